"""experiments.scaling.families: arms that differ in lr, verdicts of known outcome."""

import dataclasses

import numpy as np
import pytest

import optsde
from configs import scaling as configs
from experiments.scaling import families
from experiments.scaling.families import named
from optsde.run import Series
from optsde.study import ArmRuns, RunDir, Runs, UsageError, build_task

FEW = {
    "adam": optsde.Adam(lr=1e-3, b1=0.9, b2=0.99, weight_decay=0.1),
    "muon": optsde.Muon(lr=1e-3, beta=0.9),
    "schedulefreeadam": optsde.ScheduleFreeAdam(lr=1e-3),
}
MORE = FEW | {"adagrad": optsde.AdaGrad(lr=1e-2), "lion": optsde.Lion(lr=1e-4)}
ROOT, LINEAR = families.CONTROLS


def tiny(**changes):
    small = dict(optimizers=FEW, options=dict(hidden=(4,)), train_size=64, test_size=32)
    small |= dict(seeds=3, horizon=32.0, evaluations=4, kappas=(4, 2)) | changes
    return families.Settings(**small)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            dict(families=("adam", "sgd")),
            "families=adam,sgd: needs names among adam, m",
        ),
        (dict(families=("adam", "adam")), "families=adam,adam: needs each once"),
        (dict(optimizers={}), "families=: needs names among"),
        (dict(kappas=(3,)), "kappas=3: needs whole steps in"),
        (dict(optimizers={"adam": optsde.Adam(lr=-1.0)}), "optimizers.adam.lr=-1.0"),
        (dict(schedule=dict(warmup=32.0)), "schedule.warmup=32.0: needs times before"),
    ],
)
def test_settings_that_cannot_run_are_refused(changes, says):
    with pytest.raises(UsageError, match=says):
        tiny(**changes).checked()


def test_presets_have_each_family_once():
    """Each is called as in the registry, and differs on text in lr alone."""
    digits, text = (
        configs.PRESETS[name].settings.checked()
        for name in ("families", "families_text")
    )
    assert [*digits.optimizers] == [*text.optimizers] == sorted(configs.FAMILIES)
    for name, optimizer in digits.optimizers.items():
        assert type(optimizer) is optsde.optimizers.REGISTRY[name]
        other = text.optimizers[name]
        assert dataclasses.replace(other, lr=optimizer.lr) == optimizer
    assert {"adam", "muon", "lamb"} <= {*digits.chosen}


def test_arms_differ_from_the_rule_in_lr_alone():
    """The rule is the optimizer's own; where a factor of lr is its own, it is once."""
    s = tiny(optimizers=MORE, kappas=(4, 16), horizon=128.0).checked()
    own = {"adam": ROOT, "muon": LINEAR, "schedulefreeadam": ROOT}
    for name, optimizer in MORE.items():
        arms = {arm.name: arm.plan for arm in families.arms(s, name)}
        rules = [rule for rule in families.WORDS if rule != own.get(name)]
        assert [*arms] == [
            named(name),
            *(named(name, k, r) for k in (4, 16) for r in rules),
        ]
        for kappa, power in ((4, 2), (16, 4)):
            rule = arms[named(name, kappa)]
            assert (rule.batch_size, rule.steps * rule.dt) == (4 * kappa, 128)
            scaled = optimizer.rescaled(kappa, memory="power")
            assert rule.optimizer == scaled
            for control, factor in ((ROOT, power), (LINEAR, kappa)):
                if control in rules:
                    plan = arms[named(name, kappa, control)]
                    lr = pytest.approx(optimizer.lr * factor)
                    assert plan.optimizer.lr == lr
                    assert dataclasses.replace(plan.optimizer, lr=scaled.lr) == scaled
    words = [families.power_words(families.power(s, name)) for name in s.chosen]
    assert words[:2] == ["lr", "lr·√κ"]
    assert words[2].startswith("lr·κ^0.")
    assert words[3:] == ["lr·κ", "lr·√κ"]


def known(s, shift):
    """Runs whose loss is 2 + shift(name, κ, rule), with a little spread over seeds."""
    wobble = 0.001 * np.linspace(-1, 1, s.seeds)[:, None]
    times, runs = s.every * np.arange(s.evaluations + 1), {}
    for name in s.chosen:
        for arm in families.arms(s, name):
            _, kappa, *rule = arm.name.split("/")
            level = 2 + shift(name, int(kappa), *rule)
            level = np.full(times.shape, level) * (1 + np.exp(-times))
            runs[arm.name] = ArmRuns(arm, {"loss": Series(times, level + wobble)})
    return Runs(runs)


def test_verdicts_of_known_outcome(tmp_path):
    """Adam's rule is the base run; Muon's is 10% off at κ = 4, lr·√κ is at 2%."""

    def shift(name, kappa, rule=families.RULE):
        if name == "muon" and kappa == 4:
            return {families.RULE: 0.2, ROOT: 0.04}[rule]
        if name == "adam" and rule == LINEAR and kappa == 4:
            return np.nan
        return 0.0 if rule == families.RULE else -0.5

    s = tiny(families=("adam", "muon"), seeds=6).checked()
    runs = known(s, shift)
    verdicts = list(families.claims(s, runs))
    assert {v.claim: v.outcome for v in verdicts} == {
        "adam_rule_holds_at_2": "holds",
        "adam_rule_holds_at_4": "holds",
        "muon_rule_holds_at_2": "holds",
        "muon_rule_holds_at_4": "fails",
        "adam_nearer_than_linear_at_2": "holds",
        "muon_nearer_than_root_at_2": "holds",
        "muon_nearer_than_root_at_4": "fails",
    }
    values = {v.claim: v.value for v in verdicts}
    assert values["muon_rule_holds_at_4"] == pytest.approx(10)
    assert values["adam_nearer_than_linear_at_2"] == pytest.approx(25)
    assert values["muon_nearer_than_root_at_4"] == pytest.approx(2 - 10)
    text = families.answer(s, runs, verdicts)
    assert "κ = 2, to ±5%: the rule holds for adam, muon\n" in text
    assert "κ = 4, to ±5%: the rule holds for adam; fails for muon" in text
    (shown,) = families.tables(s, runs)
    assert "diverged" in shown
    assert "-25.0 [-25.0, -25.0]" in shown
    families.figure(s, runs, tmp_path / "figure.png")


def test_a_rule_that_diverges_fails():
    """It is no error of the study, and its controls are not compared with it."""
    s = tiny(families=("muon",), kappas=(2,), seeds=6).checked()
    runs = known(s, lambda name, kappa, rule="": np.nan if rule == "rule" else 0.0)
    (verdict,) = families.claims(s, runs)
    assert verdict.outcome == "fails"
    assert np.isinf(verdict.value)
    (shown,) = families.tables(s, runs)
    assert "diverged" in shown


def test_an_average_is_judged_where_there_is_one():
    times = np.arange(2)
    plain, mean = (Series(times, np.full((3, 2), x)) for x in (1.0, 2.0))
    metrics = {"test_loss": plain, "average_test_loss": mean}
    assert families.judged(ArmRuns("an arm", metrics)) is mean
    assert families.judged(ArmRuns("an arm", {"test_loss": plain})) is plain


@pytest.mark.full
def test_families_are_run(tmp_path):
    """Every arm starts from the same loss, that of its average, and ends elsewhere."""
    s = tiny(families=("schedulefreeadam",), kappas=(2,)).checked()
    runs = families.simulate(s, RunDir(tmp_path, "scaling", {}), build_task(s))
    assert list(runs) == [arm.name for arm in families.arms(s, "schedulefreeadam")]
    base = runs[named("schedulefreeadam")]
    assert base.loss is base.average_test_loss
    assert base.loss.values.shape == (3, 5)
    for name in list(runs)[1:]:
        mine = runs[name].loss.values
        np.testing.assert_allclose(mine[:, 0], base.loss.values[:, 0], rtol=1e-6)
        assert (mine[:, -1] != base.loss.last).all()
    assert len(list(families.claims(s, runs))) == 1 + 1
