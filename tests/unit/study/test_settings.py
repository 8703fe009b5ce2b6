"""Settings: there and back, every range, nested groups, optimizers and tables."""

import dataclasses

import pytest
from ml_collections import ConfigDict

from optsde.optimizers import SGD, Adam, Optimizer
from optsde.study import (
    Group,
    Integers,
    Names,
    Numbers,
    Seeded,
    Settings,
    UsageError,
    seed_setting,
    setting,
)
from optsde.study.values import kind_of


class Schedule(Group):
    warmup: float = setting(0.0, "its length", unit="steps", at_least=0)
    milestones: Numbers = setting((), "where the rate falls", above=0, rising=True)
    cosine: float = setting(0.0, "its length", at_least=0)

    def demands(self):
        yield from super().demands()
        fine = not (self.cosine and self.milestones)
        yield fine, "cosine", "0 with milestones"


class Row(Group):
    lr: float = setting(0.1, "the learning rate", above=0)
    shuffle: bool = setting(False, "blocks drawn anew")
    schedule: Schedule = setting(Schedule(), "of the rate")


class Whole(Seeded):
    draws: int = setting(64, "gradients", at_least=32, multiple_of=16)
    width: int = setting(8, "of a layer", at_least=1, at_most=512)
    share: float = setting(0.5, "of the run", at_least=0, below=1)
    alpha: float = setting(1.0, "index", above=0, at_most=2)
    lrs: Numbers = setting((0.1, 0.4), "of each arm", above=0, entries=1)
    decays: Numbers = setting((0.3, 0.7), "of each arm", at_least=0, like="lrs")
    ells: Integers = setting((1, 2), "of SVAG", at_least=1, distinct=True, entries=2)
    times: Numbers = setting((1.0, 2.0), "of the figure", above=0, rising=True)
    memory: str = setting("power", "of the averages", one_of=("linear", "power"))
    probes: Names = setting((), "what is measured", some_of=("ntk", "sharpness"))
    init_seed: int = seed_setting(0, "of the initial point")
    options: dict = setting(dict(hidden=(64,), dtype="float32"), "of the model")
    optimizer: Optimizer = setting(Adam(lr=1e-3), "of the base run")
    schedule: Schedule = setting(Schedule(), "of the rate")
    rows: dict[str, Row] = setting({"a": Row(), "b": Row(lr=0.2)}, "of the table")
    optimizers: dict[str, Optimizer] = setting({"gd": SGD(lr=0.1)}, "of each arm")


class Narrow(Whole):
    draws = 128
    lrs: Numbers = (0.2,)
    decays = (0.1,)


def test_there_and_back():
    s = Whole(lrs=(0.2, 0.3), schedule=Schedule(milestones=(3.0,)), memory="linear")
    config = s.checked().config()
    assert config.is_locked
    assert config.study == "test_settings"
    assert config.optimizer.to_dict() == {
        "name": "adam",
        **dataclasses.asdict(Adam(lr=1e-3)),
    }
    assert config.schedule.milestones == (3.0,)
    assert config.rows.b.lr == 0.2
    assert config.optimizers.gd.name == "sgd"
    assert config.options.hidden == (64,)
    back = Whole.of(config)
    assert back == s
    assert back.optimizer == Adam(lr=1e-3)
    assert back.rows["b"].schedule == Schedule()
    assert Whole.of(dict(config.to_dict(), lrs=[1, 2])).lrs == (1.0, 2.0)


def test_a_config_may_name_only_what_differs():
    s = Whole.of(ConfigDict({"schedule": {"warmup": 3}}))
    assert s == Whole(schedule=Schedule(warmup=3.0))


def test_a_subclass_gives_other_defaults_and_keeps_the_ranges():
    assert Narrow().checked().draws == 128
    assert (Narrow().lrs, Narrow().width) == ((0.2,), 8)
    assert Whole().draws == 64
    with pytest.raises(UsageError, match="a multiple of 16"):
        Narrow(draws=100).checked()
    assert dataclasses.replace(Narrow(), draws=64).draws == 64


def test_defaults_are_not_shared():
    Whole().options["hidden"] = (1,)
    assert Whole().options["hidden"] == (64,)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dict(draws=16), "draws=16: needs an integer ≥ 32, a multiple of 16"),
        (dict(draws=40), "draws=40: needs an integer ≥ 32, a multiple of 16"),
        (dict(width=0), "width=0: needs an integer in [1, 512]"),
        (dict(share=1.0), "share=1.0: needs a number in [0, 1)"),
        (dict(alpha=0.0), "alpha=0.0: needs a number in (0, 2]"),
        (dict(alpha=float("nan")), "alpha=nan: needs a number in (0, 2]"),
        (dict(lrs=()), "lrs=: needs one or more positive numbers"),
        (dict(lrs=(0.1, -1.0)), "lrs=0.1,-1.0: needs one or more positive numbers"),
        (dict(lrs=(1.0, float("inf"))), "lrs=1.0,inf: needs one or more positive"),
        (dict(decays=(0.1,)), "decays=0.1: needs as many as lrs has, 2"),
        (dict(ells=(2, 2)), "ells=2,2: needs two or more distinct integers ≥ 1"),
        (dict(ells=(2,)), "ells=2: needs two or more distinct integers ≥ 1"),
        (dict(times=(2.0, 1.0)), "times=2.0,1.0: needs rising positive numbers"),
        (dict(memory="long"), "memory=long: needs one of linear, power"),
        (dict(probes=("ntk", "x")), "probes=ntk,x: needs some of ntk, sharpness"),
        (dict(seed=-1), "seed=-1: needs an integer from 0 to 2³¹ − 1"),
        (dict(init_seed=2**31), "init_seed=2147483648: needs an integer from 0"),
        (dict(options={"width": float("inf")}), "options.width=inf: needs"),
        (dict(optimizer=Adam(lr=-1.0)), "optimizer.lr=-1.0: needs a positive number"),
        (dict(optimizer=Adam(b1=1.0)), "optimizer.b1=1.0: needs 0 ≤ decay < 1"),
        (dict(schedule=Schedule(warmup=-1.0)), "schedule.warmup=-1.0: needs a number"),
        (dict(schedule=Schedule(cosine=float("inf"))), "schedule.cosine=inf: needs"),
        (
            dict(schedule=Schedule(cosine=1.0, milestones=(1.0,))),
            "schedule.cosine=1.0: needs 0 with milestones",
        ),
        (dict(rows={"a": Row(lr=0.0)}), "rows.a.lr=0.0: needs a positive number"),
        (
            dict(optimizers={"gd": SGD(lr=0.0)}),
            "optimizers.gd.lr=0.0: needs a positive number",
        ),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_one_line(change, says):
    with pytest.raises(UsageError) as error:
        Whole(**change).checked()
    assert str(error.value).startswith(f"--config.{says}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (dict(width=1.5), "width=1.5: needs an integer"),
        (dict(width=True), "width=True: needs an integer"),
        (dict(share="half"), "share=half: needs a number"),
        (dict(lrs=0.1), "lrs=0.1: needs a list of numbers"),
        (dict(ells=(1, 2.5)), "ells=1,2.5: needs a list of integers"),
        (dict(memory=3), "memory=3: needs a name"),
        (dict(widht=3), "widht: no such setting; did you mean width? allowed: "),
        (dict(schedule=dict(warm=1)), "schedule.warm: no such setting; did you mean s"),
        (dict(schedule=3), "schedule=3: needs a group of settings"),
        (dict(optimizer=dict(name="adamw")), "optimizer.name=adamw: optimizer 'adamw'"),
        (dict(optimizer=dict(name="sgd", b1=1)), "optimizer.name=sgd: it has the set"),
        (dict(rows=dict(a=dict(shuffle=1))), "rows.a.shuffle=1: needs true or false"),
        (dict(options=dict(dtype=None)), "options.dtype=None: needs an integer, a num"),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_one_line(config, says):
    with pytest.raises(UsageError) as error:
        Whole.of(config)
    assert str(error.value).startswith(f"--config.{says}")


def test_leaves_have_dotted_names_and_their_meaning():
    leaves = {leaf.name: leaf for leaf in Whole().leaves()}
    assert leaves["schedule.warmup"].help == "its length, steps; a number ≥ 0"
    assert leaves["rows.b.lr"].value == 0.2
    assert leaves["optimizers.gd.lr"].value == 0.1
    assert leaves["optimizer.name"].value == "adam"
    assert leaves["share"].help == "of the run; a number in [0, 1)"


def test_a_setting_needs_a_declaration():
    with pytest.raises(TypeError, match=r"lr: needs setting\(default, meaning\)"):

        class Bare(Settings):
            lr: float = 0.1


def test_groups_mix_with_settings():
    class Run(Row, Whole):
        lr = 0.3

    config = Run(shuffle=True).checked().config()
    assert (config.lr, config.study, config.draws) == (0.3, "test_settings", 64)
    assert Run.of(config).shuffle
    with pytest.raises(UsageError, match=r"lr=0\.0: needs a positive number"):
        Run(lr=0.0).checked()


def test_entries_of_a_table_have_one_order():
    s = Whole(rows={"b": Row(), "a": Row()})
    assert list(s.rows) == list(Whole.of(s.config()).rows) == ["a", "b"]


def test_truth_values_are_typed_out_in_lists_too():
    assert kind_of((True,)).parse("true,False") == (True, False)
    with pytest.raises(ValueError, match="truth values"):
        kind_of((True,)).parse("true,1")
