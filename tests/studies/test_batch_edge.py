"""experiments.catapults.batch_edge: a small run, known verdicts, refusals."""

import dataclasses
import types

import numpy as np
import pytest

from configs.catapults import PRESETS
from experiments.catapults import batch_edge, edge
from optsde.optimizers import Adam
from optsde.run import Series
from optsde.study import ArmRuns, RunDir, Runs, UsageError
from optsde.study.study import run

SETTINGS = PRESETS["batch_edge"].settings


def test_arms_are_of_each_batch():
    arms = {arm.name: arm.plan for arm in batch_edge.arms(SETTINGS)}
    assert {"sgd/8", "sgd/32", "sgd/128"} <= set(arms)
    assert {plan.batch_size for plan in arms.values()} == {8, 32, 128}
    assert len(arms) == 6


@pytest.mark.full
def test_a_small_run(tmp_path):
    """RMSprop on 32 digits: every measurement is positive, P exists from step 4 on."""
    sizes = dict(train_size=32, hidden=(4,), steps=12, every=4, seeds=2, draws=4)
    rmsprop = {"rmsprop": SETTINGS.optimizers["rmsprop"]}
    settings = dataclasses.replace(
        SETTINGS, optimizers=rmsprop, batch_sizes=(4,), **sizes
    ).checked()
    rundir = RunDir.open(tmp_path / "run", "catapults", settings.config())
    found = run(batch_edge.study, settings, rundir)
    claims = ["rmsprop_4_batch_at_threshold", "rmsprop_4_whole_below"]
    assert [v.claim for v in found] == claims
    arm = batch_edge.simulate(settings, rundir, edge.task(settings))["rmsprop/4"]
    np.testing.assert_array_equal(arm.batch.times, [4, 8, 12])
    assert np.all(arm.batch.values > 0)
    assert np.all(arm.whole.values > 0)


def arm_of(batch, whole, name):
    """Three seeds that end at these shares of the threshold."""
    spread = np.array([[0.99], [1.0], [1.01]])
    times = np.arange(1, 10) * 20
    ones = np.ones((3, 9))
    metrics = {
        "batch": Series(times, batch * spread * ones),
        "whole": Series(times, whole * spread * ones),
        "threshold": Series(times, 8.0 * ones),
        "test_loss": Series(times, ones),
    }
    plan = types.SimpleNamespace(batch_size=int(name.split("/")[1]))
    return ArmRuns(types.SimpleNamespace(name=name, plan=plan), metrics)


def test_verdicts_of_known_outcome(tmp_path):
    runs = Runs({"sgd/8": arm_of(1.03, 0.4, "sgd/8")})
    runs |= Runs({"sgd/32": arm_of(1.3, 0.95, "sgd/32")})
    settings = dataclasses.replace(SETTINGS, steps=180, every=20)
    found = {v.claim: v for v in batch_edge.claims(settings, runs)}
    assert {claim: v.holds for claim, v in found.items()} == {
        "sgd_8_batch_at_threshold": True,
        "sgd_32_batch_at_threshold": False,
        "sgd_8_whole_below": True,
        "sgd_32_whole_below": False,
    }
    np.testing.assert_allclose(found["sgd_8_batch_at_threshold"].value, 3.0)
    np.testing.assert_allclose(found["sgd_8_whole_below"].value, 60.0)
    (text,) = batch_edge.tables(settings, runs)
    assert "0.400 ± " in text
    batch_edge.figure(settings, runs, tmp_path / "edge.png")
    assert (tmp_path / "edge.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(optimizers={"adam": Adam()}),
            "adam.name=adam: needs one without momentum",
        ),
        (dict(batch_sizes=(8, 8)), "batch_sizes=8,8"),
        (dict(draws=1), "draws=1"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(SETTINGS, **changes).checked()
