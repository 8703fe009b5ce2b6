"""--config.probes: what they measure, and what they refuse."""

import json

import jax
import numpy as np
import pytest

import optsde
from optsde import data, gradients, measure, models, run
from optsde.run.writers import read
from optsde.study import UsageError, probes
from optsde.study.probes import ProbeSettings
from optsde.study.rundir import RunDir

DIGITS = data.load("digits", train_size=40)
BATCH_NORM = models.NormalisedMLP(10, (4,), norm="batch")


def settings(*names, **changes):
    return ProbeSettings(probes=names, **changes)


def task(model=None):
    return run.Task(
        model=model or models.MLP((6, 10)),
        loss=models.cross_entropy,
        train=jax.tree.map(jax.numpy.asarray, DIGITS.train),
        test=DIGITS.test,
        plain=DIGITS.train[0],
        prepare=DIGITS.normalise,
    )


def build(settings, task, optimizer=None):
    """(plan, sampler, probes) of full-batch descent."""
    optimizer = optimizer or optsde.SGD(lr=0.05, l2=0.01)
    plan = optsde.Plan(optimizer=optimizer, batch_size=40, horizon=20)
    sampler = gradients.full_batch(task.losses, task.train, None)
    return plan, sampler, probes.build_probes(settings, plan, task, sampler)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (settings("sharpnes"), "some of sharpness, ntk, invariance, spikes"),
        (settings("ntk", probe_examples=-1), "an integer ≥ 0, where 0 means all"),
    ],
)
def test_bad_settings_are_refused(settings, says):
    with pytest.raises(UsageError, match=says):
        settings.checked()


@pytest.mark.parametrize(
    ("settings", "model", "optimizer", "says"),
    [
        (settings("ntk"), BATCH_NORM, None, "another norm, such as group"),
        (settings("ntk", probe_examples=41), None, None, "above the 40 there are"),
        (settings("invariance"), None, None, "names no leaf"),
        (settings("invariance"), None, optsde.Adam(), "use SGD, Momentum"),
    ],
)
def test_what_cannot_be_measured_is_refused(settings, model, optimizer, says):
    with pytest.raises(UsageError, match=says):
        build(settings, task(model), optimizer)


def test_probes_come_in_one_order():
    """Whichever was named first: a checkpoint holds their memories in that order."""
    one = task(models.NormalisedMLP(10, (4,), norm="layer"))
    last_first = settings("spikes", "invariance", "ntk", "sharpness")
    plan, sampler, built = build(last_first, one)
    state = optsde.discrete(plan, sampler, one.init).init(jax.random.key(0))
    first = [
        min(jax.eval_shape(p.observe, p.source, state, p.init(state))[0]) for p in built
    ]
    assert [name.rpartition("/")[2] for name in first] == [
        "preconditioned_sharpness",
        "ntk_norm",
        "effective_lr",
    ]


@pytest.mark.full
def test_numbers_of_a_run(tmp_path):
    """In the rows, labelled by their examples; against the kernel itself."""
    one = task()
    s = settings("sharpness", "ntk", probe_examples=16)
    plan, sampler, built = build(s, one)
    result = optsde.fit(
        optsde.discrete(plan, sampler, one.init),
        jax.random.split(jax.random.key(0), 2),
        20,
        every=10,
        probes=built,
        writers=[probes.writer(s, tmp_path / "rows")],
    )
    rows = read(tmp_path / "rows")
    assert rows["threshold_of_16"] == [pytest.approx([40, 40])] * 3
    params = jax.tree.map(lambda x: x[0], result.state.params)

    def apply(params, x):
        return one.model.apply({"params": params}, one.prepare(x))

    kernel = measure.ntk.kernel(apply, params, one.train[0][:16])
    norm = measure.ntk.spectrum(kernel).norm
    assert rows["ntk_norm_of_16"][-1][0] == pytest.approx(norm, rel=1e-2)
    assert rows["preconditioned_sharpness_of_16"][-1][0] == pytest.approx(
        rows["sharpness_of_16"][-1][0] + 0.01, rel=1e-3
    )
    assert "spike" not in rows


def test_a_run_that_had_begun_is_kept(tmp_path):
    rundir = RunDir(tmp_path / "run", "x", {})
    rundir.begin()
    rundir.keep("arm", {"loss": np.ones(3)})
    rundir.withdraw()
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {}
