"""--config.probes: what they measure, what they refuse, spikes marked in the rows."""

import json
import sys

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import optsde
from experiments import launch, probes
from optsde import data, gradients, measure, models
from optsde.dynamics import Engine
from optsde.run import writers as metrics

DIGITS = data.load("digits", train_size=40)
BATCH_NORM = models.NormalisedMLP(10, (4,), norm="batch")


def settings(*names, **changes):
    given = dict(log_every=10, seed=0, probes=names)
    return ConfigDict(probes.SETTINGS | given | changes)


def task(model=None):
    return run.Task(
        model=model or models.MLP((6, 10)),
        loss=models.cross_entropy,
        train=jax.tree.map(jax.numpy.asarray, DIGITS.train),
        test=DIGITS.test,
        plain=DIGITS.train[0],
        prepare=DIGITS.normalise,
    )


def built(task, optimizer=None):
    plan = optsde.Plan(
        optimizer=optimizer or optsde.SGD(lr=0.05, l2=0.01), batch_size=40, horizon=20
    )
    return plan, lambda batch: gradients.full_batch(task.losses, task.train, None)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (settings("sharpnes"), "some of sharpness, ntk, invariance, spikes"),
        (settings("ntk", probe_every=15), "a multiple of log_every=10"),
        (settings("ntk", probe_examples=-1), "0 \\(all\\) or more"),
    ],
)
def test_bad_settings_are_refused(config, says):
    with pytest.raises(launch.UsageError, match=says):
        probes.check(config)


@pytest.mark.parametrize(
    ("config", "model", "optimizer", "says"),
    [
        (settings("ntk"), BATCH_NORM, None, "another norm, such as group"),
        (settings("ntk", probe_examples=41), None, None, "above the 40 there are"),
        (settings("invariance"), None, None, "names no leaf"),
        (settings("invariance"), None, optsde.Adam(), "use SGD, Momentum"),
    ],
)
def test_what_cannot_be_measured_is_refused(config, model, optimizer, says):
    one = task(model)
    with pytest.raises(launch.UsageError, match=says):
        probes.build(config, *_ordered(one, optimizer))


def test_probes_come_in_one_order(monkeypatch):
    """Whichever was named first: a checkpoint holds their memories in that order."""
    names = list("hdbgaecf")
    makers = {name: (lambda *_, name=name: name) for name in names}
    monkeypatch.setattr(probes, "_BUILD", makers)
    assert probes.build(settings("spikes", *sorted(names)), None, None, None) == names


def _ordered(one, optimizer=None):
    plan, sampler = built(one, optimizer)
    return plan, one, sampler


def test_numbers_of_a_run(tmp_path):
    """In the rows, labelled by their examples; against the kernel itself."""
    one = task()
    plan, _, sampler = _ordered(one)
    config = settings("sharpness", "ntk", probe_examples=16)
    engine = Engine(optsde.discrete(plan, sampler, one.init), 2, with_info=True)
    keys = jax.random.split(jax.random.key(0), 2)
    result = run.fit(
        engine,
        keys,
        20,
        log_every=10,
        probes=probes.build(config, plan, one, sampler),
        probe_every=10,
        writers=[run.JsonLines(tmp_path / "rows")],
    )
    rows = metrics.read(tmp_path / "rows")
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


def test_spikes_are_marked_through_an_interruption(tmp_path):
    losses = [1.0] * 25 + [5.0, 9.0, 1.1] + [1.0] * 5
    rows = [{"step": i, "loss": [x, 1.0]} for i, x in enumerate(losses)]
    whole, parts = (
        run.MarkSpikes(run.JsonLines(tmp_path / n)) for n in ("whole", "parts")
    )
    for writer, cuts in ((whole, [(0, 33)]), (parts, [(0, 27), (26, 33)])):
        for first, last in cuts:
            writer.begin(first)
            for row in rows[first + (first > 0) : last]:
                writer.write(row)
            writer.close()
    marked = metrics.read(tmp_path / "whole")
    assert marked == metrics.read(tmp_path / "parts")
    assert [i for i, (first, _) in enumerate(marked["spike"]) if first] == [25, 26]
    assert not any(second for _, second in marked["spike"])


def test_a_run_that_cannot_begin_leaves_nothing(tmp_path, monkeypatch, capsys):
    def run(config, rundir):
        assert config.probes == ("ntk", "sharpness")
        rundir.begin()
        raise launch.UsageError("no")

    place = tmp_path / "run"
    flags = [f"--workdir={place}", "--config.probes=ntk,sharpness"]
    monkeypatch.setattr(sys, "argv", ["x", *flags])
    with pytest.raises(SystemExit) as stopped:
        launch.launch(
            "fullbatch", "", "configs/fullbatch.py:digits_fb", lambda c: None, run
        )
    assert stopped.value.code == 2
    assert "experiments.fullbatch: no" in capsys.readouterr().err
    assert not place.exists()


def test_a_run_that_had_begun_is_kept(tmp_path):
    from experiments.rundir import RunDir

    rundir = RunDir(tmp_path / "run", "x", {})
    rundir.begin()
    rundir.add_curves({"loss": np.ones(3)})
    rundir.withdraw()
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {}
