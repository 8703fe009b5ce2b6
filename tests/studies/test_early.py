"""experiments.intrinsic_lr.early: arms, times, and verdicts on known runs."""

import dataclasses

import numpy as np
import pytest

from configs.intrinsic_lr import PRESETS
from experiments.intrinsic_lr import early, nets
from optsde.run import Series
from optsde.study import UsageError
from optsde.study.runs import ArmRuns, Runs


def settings(**changes):
    s = PRESETS["early"].settings
    return dataclasses.replace(s, **({"known_false": ()} | changes)).checked()


def test_both_ways_end_with_one_learning_rate():
    s = settings()
    arms = list(early.arms(s))
    assert [arm.scale for arm in arms] == [1.0, 1.0, 4.0, 4.0]
    assert [arm.at(0).lr for arm in arms] == [0.01, 1.0, 0.01, 1.0]
    assert [arm.at(400).lr for arm in arms] == [0.01] * 4
    names = [name for _, *pair in early.pairs(s) for name in pair]
    assert names == [arm.name for arm in arms]


def test_times_of_known_curves():
    """First at a level; and the last time outside of 10% around it."""
    assert np.isnan(nets.first_below([0, 1], [2.0, 1.0], 0.5))
    assert nets.first_below([0, 10, 20], [2.0, 1.0, 3.0], 1.5) == 5
    assert nets.first_below([3, 10], [1.0, 0.5], 1.0) == 3
    assert np.isnan(nets.last_above([1, 2], [0.1, 0.1], 0.5))
    assert np.isnan(nets.last_above([1, 2], [0.1, 0.6], 0.5))


def known(s, end=1.0):
    """Runs whose effective lr and losses go to 1 exponentially, one way twice as fast.

    With the large lr first they end at `end`.
    """
    times = np.arange(0, s.steps + 1, s.every)
    jitter = 1 + 1e-3 * np.array([-1.0, 0.0, 1.0])[:, None]
    runs = {}
    for number, arm in enumerate(early.arms(s)):
        length, last = (4000, 1.0) if number % 2 == 0 else (2000, end)
        curve = Series(times, last * jitter * (1 + 2 * np.exp(-times / length)))
        metrics = dict.fromkeys(nets.LOSSES, curve)
        runs[arm.name] = ArmRuns(arm, metrics | {"effective_lr": curve})
    return Runs(runs)


def test_verdicts_on_known_runs(tmp_path):
    """1 + 2 e^(−t/T) is within 10% of its end from T log 20 on."""
    s = settings()
    runs = known(s)
    verdicts = {v.claim: v for v in early.claims(s, runs)}
    assert len(verdicts) == 10
    times = {"settles", "fits", "generalizes"}
    for words in times:
        saved = verdicts[f"large_lr_first_{words}_sooner_initial_4"]
        assert saved.holds
        np.testing.assert_allclose(saved.value, 50, atol=1)
    run = runs["lr 0.01"].train_loss
    steps = early.arrival(s, "train_loss", 1.0, run.times, run.values)
    np.testing.assert_allclose(steps, 4000 * np.log(20), rtol=0.01)
    assert verdicts["small_lr_alone_same_test_loss_initial_1"].holds
    (table,) = early.tables(s, runs)
    assert "lr 1, 0.01, initial × 4" in table
    early.figure(s, runs, tmp_path / "early.png")
    verdicts = {v.claim: v for v in early.claims(s, known(s, end=0.8))}
    assert verdicts["small_lr_alone_same_test_loss_initial_1"].fails
    assert verdicts["small_lr_alone_same_test_error_initial_4"].fails


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(drop_at=300), "drop_at=300: needs a multiple of every"),
        (dict(drop_at=17_000), "drop_at=17000: needs a step before the window"),
        (dict(large_lr=0.01), "large_lr=0.01: needs a number above lr"),
        (dict(large_lr=9.0), "times decay below 0.1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        settings(**changes)
