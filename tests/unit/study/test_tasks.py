"""Tasks and probes from settings, and what of them is refused."""

import dataclasses

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import optsde
from optsde import data, gradients, models
from optsde.study import Preset, UsageError, presets, probes, setting, tasks
from optsde.study.probes import ProbeSettings
from optsde.study.tasks import LabelSettings, TaskSettings, build_task


class Digits(LabelSettings, ProbeSettings):
    augment: str = setting("none", "", one_of=("none", "live", "frozen", "masked"))
    train_size = 64
    statistics = 32


def test_a_task_is_that_of_its_settings():
    task = build_task(Digits(augment="live", test_size=100).checked())
    dataset = data.load("digits", train_size=64)
    np.testing.assert_array_equal(task.train[0], dataset.train[0])
    np.testing.assert_array_equal(task.test[1], dataset.test[1][:100])
    np.testing.assert_array_equal(task.plain, dataset.train[0][:32])
    some = task.plain[:2]
    np.testing.assert_array_equal(task.prepare(some), dataset.normalise(some))
    assert task.model == models.build("mlp", 10)
    assert task.loss is models.cross_entropy
    assert task.augment is not None


def test_labels_may_be_rarer_or_wrong():
    plain = build_task(Digits(subset=1).checked())
    noisy = build_task(Digits(subset=1, label_noise=0.5, seed=3).checked())
    wrong = np.mean(np.asarray(plain.train[1]) != np.asarray(noisy.train[1]))
    assert 0.3 < wrong < 0.6  # half are drawn, a tenth of them as they were
    rare = build_task(Digits(subset=1, imbalance=0.1).checked())
    assert plain.augment is None
    assert 20 < rare.size < 50


def test_a_task_of_text_is_masked():
    options = dict(depth=1, width=8, heads=2, length=8)
    s = Digits(dataset="text", model="transformer", options=options, augment="masked")
    task = build_task(dataclasses.replace(s, test_size=4).checked())
    assert task.loss is models.token_cross_entropy
    inputs, targets = task.test
    assert inputs.shape == targets.shape == (4, 8)
    assert (np.asarray(targets) == -1).any()


def csv_of(tmp_path, targets):
    x = np.random.RandomState(0).randn(40, 3)
    rows = np.column_stack([x, targets(x)])
    np.savetxt(tmp_path / "a.csv", rows, delimiter=",")
    return str(tmp_path / "a.csv")


def test_numbers_are_predicted_by_squared_error(tmp_path):
    name = csv_of(tmp_path, lambda x: np.sin(x[:, 0]))
    task = build_task(Digits(dataset=name, train_size=0).checked())
    assert task.loss is models.squared_error
    losses = task.losses(task.init(jax.random.key(0)), task.train)
    assert losses.shape == (32,)
    with pytest.raises(UsageError, match=r"label_noise=0\.5: needs a set of labels"):
        build_task(Digits(dataset=name, train_size=0, label_noise=0.5))


def test_what_does_not_suit_the_data_is_refused(tmp_path):
    name = csv_of(tmp_path, lambda x: np.sin(x[:, 0]))
    with pytest.raises(UsageError, match=r"augment=live: needs none: .* features"):
        build_task(Digits(dataset=name, train_size=0, augment="live"))
    with pytest.raises(UsageError, match="model=mlp: needs transformer: text is text"):
        build_task(Digits(dataset="text"))
    with pytest.raises(UsageError, match="model=smallconv: needs mlp or norm"):
        build_task(Digits(dataset=name, train_size=0, model="smallconv"))
    with pytest.raises(UsageError) as error:
        build_task(Digits(dataset=f"{name}x"))
    assert str(error.value).startswith(f"--config.dataset={name}x: no such file")


def test_copies_and_streams():
    task = build_task(Digits(augment="frozen"), copies=3)
    assert task.size == 3 * 64
    task = build_task(Digits(), stream=True)
    assert isinstance(task.train, data.Stream)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            dict(dataset="mnits"),
            "--config.dataset=mnits: data set 'mnits' is not known",
        ),
        (dict(train_size=10**6), "--config.dataset=digits: train_size=1000000 must be"),
        (dict(train_size=-1), "--config.train_size=-1: needs an integer ≥ 0"),
        (dict(test_size=-1), "--config.test_size=-1: needs an integer ≥ 0"),
        (dict(model="net"), "--config.model=net: model 'net' is none of mlp"),
        (dict(options={"depth": 1}), "--config.model=mlp: mlp has no option depth"),
        (
            dict(options={"dtype": "int32"}),
            "--config.options.dtype=int32: needs one of",
        ),
        (dict(options={"hidden": (0,)}), "--config.model=mlp: hidden=(0,): needs"),
        (dict(augment="masked"), "none, or live for images, masked for text"),
        (dict(imbalance=0.0), "--config.imbalance=0.0: needs a share in (0, 1]"),
        (dict(label_noise=float("nan")), "label_noise=nan: needs a share in [0, 1)"),
        (dict(statistics=0), "--config.statistics=0: needs an integer ≥ 1"),
        (dict(probes=("ntk", "loss")), "some of sharpness, ntk, invariance, spikes"),
        (
            dict(
                model="transformer",
                options=dict(depth=1, width=33, heads=2, length=8),
                dataset="text",
            ),
            "--config.options: transformer: ",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_one_line(changes, says):
    with pytest.raises(UsageError) as error:
        build_task(Digits(**changes).checked())
    assert says in str(error.value)


def test_labels_of_text_stay():
    options = dict(depth=1, width=8, heads=2, length=8)
    s = Digits(dataset="text", model="transformer", options=options, label_noise=0.5)
    with pytest.raises(UsageError, match=r"label_noise=0\.5: needs a set of labels"):
        build_task(s)


@pytest.mark.full
def test_probes_are_built_by_name(tmp_path):
    s = Digits(probes=("sharpness", "ntk", "spikes"), probe_examples=16)
    task = build_task(s)
    plan = optsde.Plan(optimizer=optsde.SGD(lr=0.1), batch_size=8, horizon=8)

    sampler = gradients.minibatch(task.losses, task.train)
    state = optsde.discrete(plan, sampler, task.init).init(jax.random.key(0))
    names = []
    for probe in probes.build_probes(s, plan, task, sampler):
        metrics, _ = probe.observe(probe.source, state, probe.init(state))
        names += metrics
    assert "sharpness_of_16" in names
    assert names[-1] == "ntk_norm_of_16"
    probes.writer(s, tmp_path / "metrics.jsonl")
    with pytest.raises(
        UsageError, match=r"probes=sharpness: probe_examples=65 is above"
    ):
        probes.build_probes(
            Digits(probes=("sharpness",), probe_examples=65), plan, task, sampler
        )


def test_presets_name_their_study():
    table = {"a": Preset("a text", Digits()), "b": Preset("", Digits(seed=1))}
    get_config = presets(table, "b")
    assert isinstance(get_config(), ConfigDict)
    assert (get_config().seed, get_config("a").seed) == (1, 0)
    assert get_config().study == "test_tasks"
    assert str(table["a"]) == "a text"
    assert tasks.TaskSettings.of(TaskSettings().config()) == TaskSettings()
