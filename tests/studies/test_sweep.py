"""experiments.sweep: the grid, verdicts of known outcome, points that diverge."""

import dataclasses

import numpy as np
import pytest

import optsde
from configs.sweep import PRESETS
from experiments.sweep import grid
from optsde.run import Series
from optsde.run import writers as files
from optsde.study import ArmRuns, RunDir, Runs, UsageError, build_task
from optsde.study.arms import stacks
from optsde.study.study import run

TINY = dict(
    options={"hidden": (8,)}, train_size=64, test_size=64, steps=20, evaluations=2
)


def settings(preset="adam", **changes):
    return dataclasses.replace(PRESETS[preset].settings, **TINY | changes).checked()


@pytest.mark.parametrize("preset", [x for x in PRESETS if "timescale" not in x])
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


@pytest.mark.full
def test_batches_see_as_many_samples(tmp_path):
    over = {"lr": (0.1,), "batch_size": (3, 7, 14)}
    s = settings(optimizer=optsde.SGD(lr=0.1), over=over, batch_size=21, seeds=4)
    arms = {arm.name: arm.plan for arm in grid.arms(s)}
    assert [p.steps * p.batch_size for p in arms.values()] == 3 * [s.samples]
    runs = grid.simulate(s, RunDir.open(tmp_path, "sweep", s.config()), build_task(s))
    for name, plan in arms.items():
        np.testing.assert_allclose(runs[name].test_loss.times, [0, 10, 20])
        log = files.read(tmp_path / "arms" / f"batch{plan.batch_size}/metrics.jsonl")
        assert log["step"][1:] == [210 // plan.batch_size, 420 // plan.batch_size]


def test_a_sweep_is_run_judged_drawn_and_read_again(tmp_path, capsys):
    """Rates of 1e-6 learn nothing, and of 1e30 diverge: the third is the best."""
    optimizer = optsde.SGD(lr=0.1)
    s = settings(optimizer=optimizer, over={"lr": (1e-6, 0.3, 1e30)}, seeds=8)
    verdicts = run(grid.study, s, RunDir.open(tmp_path, "sweep", s.config()))
    assert [(v.claim, v.holds) for v in verdicts] == [("best_below_lr_1e-06", True)]
    out = capsys.readouterr().out
    assert "8 of 8 diverged" in out
    assert "best: lr 0.3; told apart from 1 of the other 2, of which 1 diverged" in out
    assert (tmp_path / "figures" / "sweep.png").is_file()
    again = run(grid.study, s, RunDir.open(tmp_path, "sweep", s.config()))
    assert again == verdicts
    assert "read from" in capsys.readouterr().out


def known(losses, name="lr", preset="adam"):
    """Runs of given last losses [seeds], by learning rate, or by what is named."""
    s = settings(preset, over={name: tuple(losses)}, seeds=8)
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


def test_nothing_lies_beyond_a_value_of_0():
    noise = 1e-3 * np.arange(8)
    losses = {0.0: 1 + noise, 0.1: 2 + noise, 1.0: 3 + noise}
    s, runs = known(losses, "weight_decay", "adamw")
    text = grid.answer(s, runs, grid.claims(s, runs))
    assert text == "best: weight_decay 0; told apart from 2 of the other 2"


@pytest.mark.parametrize("seed", [0, 7])
def test_a_point_that_diverges_on_any_seed_is_not_the_best(seed):
    noise = 1e-3 * np.arange(8)
    lost = 0.5 + noise
    lost[seed] = np.inf
    s, runs = known({1e-3: 2 + noise, 1e-2: 1 + noise, 1e-1: lost})
    assert grid.best(runs) == "lr 0.01"
    [verdict] = verdicts = grid.claims(s, runs)
    assert (verdict.claim, verdict.holds) == ("best_below_lr_0.001", True)
    [text] = grid.tables(s, runs)
    assert "1 of 8 diverged" in text
    assert "nan" not in text
    answer = grid.answer(s, runs, verdicts)
    assert "told apart from 1 of the other 2, of which 1 diverged" in answer


def test_where_every_point_diverges_one_line_says_so(tmp_path):
    lost = np.array([np.nan, np.inf, *np.ones(6)])
    s, runs = known({1e-3: lost, 1e-2: lost})
    assert grid.claims(s, runs) == []
    [text] = grid.tables(s, runs)
    assert text.count("2 of 8 diverged") == 2
    assert grid.answer(s, runs, []).startswith("best: none, every point diverged")
    grid.figure(s, runs, tmp_path / "sweep.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(over={"lr": (0.1, -1.0)}), "over.lr.*lr=-1.0: needs a positive number"),
        (dict(over={"beta3": (0.1, 0.2)}), "over.beta3.*of .*b1, b2"),
        (dict(over={"lr": 0.1}), "a list of numbers, with a comma"),
        (dict(over={"lr": (1e-3, 1e-3)}), "over.lr.*differ in their first six digits"),
        (dict(over={"lr": (0.12345671, 0.12345672)}), "first six digits"),
        (dict(over={"batch_size": (8.2, 8.7)}), "over.batch_size.*divisors of .* 160"),
        (dict(over={"batch_size": (8, 128)}), "over.batch_size.*divisors of .* 160"),
        (dict(over={"batch_size": (0, 8)}), "over.batch_size.*divisors of .* 160"),
        (dict(seeds=5), "an even number ≥ 4"),
        (dict(evaluations=3), "a divisor of the 20 steps"),
        (dict(warmup=20.0), "fewer than the 20 steps"),
    ],
)
def test_grids_that_cannot_run_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        settings(**change)
