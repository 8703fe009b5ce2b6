"""experiments.catapults.edge: a small run, verdicts of known outcome, refusals."""

import dataclasses

import numpy as np
import pytest

from configs.catapults import PRESETS
from experiments.catapults import edge
from optsde.optimizers import Adam, Lion
from optsde.run import Series
from optsde.study import ArmRuns, RunDir, Runs, UsageError
from optsde.study.study import run

EDGE = PRESETS["edge"].settings


@pytest.mark.full
def test_a_small_run_and_the_same_again(tmp_path, capsys):
    """Adam on 32 digits: its measurements and the figure; then read, not run."""
    sizes = dict(train_size=32, hidden=(4,), steps=12, every=4, seeds=2)
    adam = {"adam": EDGE.optimizers["adam"]}
    settings = dataclasses.replace(EDGE, optimizers=adam, **sizes).checked()
    rundir = RunDir.open(tmp_path / "run", "catapults", settings.config())
    first = run(edge.study, settings, rundir)
    assert [v.claim for v in first] == ["adam_stays_at_threshold", "adam_rises_to_it"]
    assert rundir.figure("edge").stat().st_size > 10_000
    arm = edge.simulate(settings, rundir, edge.task(settings))["adam"]
    assert "adam: read from" in capsys.readouterr().out
    np.testing.assert_array_equal(arm.ratio.times, [4, 8, 12])
    assert arm.sharpness.values.shape == (2, 4)
    worn_off = 1 - 0.9 ** (arm.ratio.times + 1)  # 1 − b1^t of the next step
    expected = np.broadcast_to(38_000 * worn_off, (2, 3))
    np.testing.assert_allclose(arm.threshold.values[:, 1:], expected, rtol=1e-4)
    assert arm.sharpness_residual.values[:, 1:].max() <= 0.01
    assert np.all(arm.preconditioned_sharpness.values > 0)


def arm_of(late):
    """Three seeds from a fifth of the threshold to `late` of it in the last third."""
    shape = np.r_[np.linspace(0.2, 1, 6), np.full(3, late)]
    ratio = shape * np.array([[0.99], [1.0], [1.01]])
    return ArmRuns(None, {"ratio": Series(np.arange(1, 10) * 20, ratio)})


def test_verdicts_of_known_outcome():
    runs = Runs({"gd": arm_of(1.02), "adam": arm_of(1.1), "rmsprop": arm_of(0.4)})
    settings = dataclasses.replace(EDGE, steps=180)
    verdicts = {v.claim: v for v in edge.claims(settings, runs)}
    assert {claim: v.holds for claim, v in verdicts.items()} == {
        "gd_stays_at_threshold": True,
        "gd_rises_to_it": True,
        "adam_stays_at_threshold": False,
        "adam_rises_to_it": True,
        "rmsprop_stays_at_threshold": False,
        "rmsprop_rises_to_it": False,
    }
    np.testing.assert_allclose(verdicts["gd_stays_at_threshold"].value, 2.0)
    np.testing.assert_allclose(verdicts["adam_rises_to_it"].value, 90.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(every=7), "every=7: needs a divisor of steps=2400"),
        (dict(steps=20), "steps=20: needs at least 3 measurements"),
        (dict(augment="live"), "augment=live: needs none"),
        (dict(optimizers={"gd": Adam(lr=-1.0)}), "optimizers.gd.lr=-1.0: needs"),
        (dict(optimizers={"gd": Lion()}), "gd.name=lion: needs one with a stability"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(EDGE, **changes).checked()
