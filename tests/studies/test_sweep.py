"""experiments.sweep: the grid, verdicts of known outcome, points that diverge."""

import dataclasses

import numpy as np
import pytest

import optsde
from configs.sweep import PRESETS
from experiments.sweep import grid
from optsde.run import Series
from optsde.study import ArmRuns, RunDir, Runs, UsageError
from optsde.study.arms import stacks
from optsde.study.study import run

TINY = dict(
    options={"hidden": (8,)}, train_size=64, test_size=64, steps=20, evaluations=2
)


def settings(preset="adam", **changes):
    return dataclasses.replace(PRESETS[preset].settings, **TINY | changes).checked()


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_grids(preset):
    s = settings(preset)
    arms = list(grid.arms(s))
    assert len(arms) == np.prod([len(values) for values in s.over.values()])
    batches = len(s.over.get("batch_size", (1,)))
    assert len(stacks(arms)) == batches
    assert len({arm.name for arm in arms}) == len(arms)


def test_a_point_sets_what_it_names():
    s = settings("momentum", over={"lr": (0.1,), "batch_size": (8, 32), "l2": (0.5,)})
    small, large = grid.arms(s)
    assert small.name == "lr 0.1, batch_size 8, l2 0.5"
    assert small.plan.optimizer == optsde.HeavyBall(lr=0.1, beta=0.9, l2=0.5)
    assert (small.plan.batch_size, large.plan.batch_size) == (8, 32)


def test_a_sweep_is_run_judged_drawn_and_read_again(tmp_path, capsys):
    """Rates of 1e-6 learn nothing, and of 1e30 diverge: the third is the best."""
    optimizer = optsde.SGD(lr=0.1)
    s = settings(optimizer=optimizer, over={"lr": (1e-6, 0.3, 1e30)}, seeds=8)
    verdicts = run(grid.study, s, RunDir.open(tmp_path, "sweep", s.config()))
    assert [(v.claim, v.holds) for v in verdicts] == [("best_below_lr_1e-06", True)]
    out = capsys.readouterr().out
    assert "4 of 4 diverged" in out
    assert "best: lr 0.3; told apart from 1 of the other 2" in out
    assert (tmp_path / "figures" / "sweep.png").is_file()
    again = run(grid.study, s, RunDir.open(tmp_path, "sweep", s.config()))
    assert again == verdicts
    assert "read from" in capsys.readouterr().out


def known(losses):
    """Runs of given last losses [seeds], by learning rate."""
    s = settings(over={"lr": tuple(losses)}, seeds=8)
    runs = {}
    for arm, loss in zip(grid.arms(s), losses.values(), strict=True):
        values = np.asarray(loss)[:, None] + [[0.5, 0.0]]
        metrics = {"test_loss": Series(np.array([10.0, 20.0]), values)}
        runs[arm.name] = ArmRuns(arm, metrics)
    return s, Runs(runs)


def test_one_half_chooses_and_the_other_judges():
    """What the choosing seeds like best is worst for those that judge."""
    noise = 1e-3 * np.arange(8)
    lucky = np.where(np.arange(8) < 4, 0.5, 2.0) + noise
    s, runs = known({1e-3: lucky, 1e-2: 1.0 + noise})
    assert grid.best(runs) == "lr 0.001"
    [verdict] = grid.claims(s, runs)
    assert (verdict.claim, verdict.holds, verdict.fails) == (
        "best_below_lr_0.01",
        False,
        True,
    )
    assert "told apart from 0 of the other 1" in grid.answer(s, runs, [verdict])


def test_a_best_point_at_the_end_of_its_list_is_said_to_be():
    noise = 1e-3 * np.arange(8)
    s, runs = known({1e-3: 3 + noise, 1e-2: 2 + noise, 1e-1: 1 + noise})
    text = grid.answer(s, runs, list(grid.claims(s, runs)))
    assert "lr 0.1 is the end of its list" in text
    s, runs = known({1e-3: 3 + noise, 1e-2: 1 + noise, 1e-1: 2 + noise})
    assert "end of its list" not in grid.answer(s, runs, list(grid.claims(s, runs)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(over={"lr": (0.1, -1.0)}), "over.lr.*lr=-1.0: needs a positive number"),
        (dict(over={"beta3": (0.1, 0.2)}), "over.beta3.*of .*b1, b2"),
        (dict(over={"lr": 0.1}), "a list of numbers, with a comma"),
        (dict(seeds=5), "an even number ≥ 4"),
        (dict(evaluations=3), "a divisor of the 20 steps"),
        (dict(warmup=20.0), "fewer than the 20 steps"),
    ],
)
def test_grids_that_cannot_run_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        settings(**change)
