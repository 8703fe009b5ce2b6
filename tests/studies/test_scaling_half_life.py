"""experiments.scaling.half_life: what each arm keeps, verdicts of known outcome."""

import dataclasses

import numpy as np
import pytest

import optsde
from configs import scaling as configs
from experiments.scaling import half_life
from optsde.run import Series
from optsde.study import ArmRuns, RunDir, Runs, UsageError, build_task

NET = dict(dtype="float32", depth=1, width=8, heads=2, length=8)


def tiny(**changes):
    small = dict(options=NET, train_size=300, test_size=32, seeds=4, warmup=4.0)
    small |= dict(horizon=32.0, evaluations=4, kappas=(8, 2)) | changes
    return dataclasses.replace(configs.PRESETS["half_life"].settings, **small)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(factors=(0.5, 1.0)), "factors=0.5,1.0: needs three or more"),
        (dict(factors=(0.5, 2.0, 4.0)), "factors=.*1 among them"),
        (dict(kappas=(3,)), "kappas=3: needs whole steps in"),
        (dict(warmup=32.0), "warmup=32.0: needs less than the horizon, 32"),
        (dict(seeds=2), "seeds=2: needs at least 3"),
        (dict(optimizer=optsde.RMSprop(lr=1e-3)), "optimizer.name.*b1 and b2"),
    ],
)
def test_settings_that_cannot_run_are_refused(changes, says):
    with pytest.raises(UsageError, match=says):
        tiny(**changes).checked()


def test_arms_keep_what_their_names_tell():
    s = tiny(optimizer=optsde.Adam(lr=1e-3, b1=0.9, b2=0.99)).checked()
    arms = {arm.name: arm.plan for arm in half_life.arms(s)}
    assert len(arms) == (1 + 2 * 3) * len(s.factors)
    assert s.batches == (1, 2, 8)
    for kept, b1, b2 in (
        ("both", 0.9**8, 0.99**8),
        ("v", 0.9, 0.99**8),
        ("neither", 0.9, 0.99),
    ):
        plan = arms[f"8/{kept}/0.5"]
        optimizer = plan.optimizer.single()
        assert (plan.batch_size, plan.steps * plan.dt) == (8, 32)
        found = [float(x) for x in (optimizer.lr, optimizer.b1, optimizer.b2)]
        np.testing.assert_allclose(found, [0.5e-3 * 8**0.5, b1, b2], rtol=1e-6)


def test_a_seed_is_judged_at_the_lr_that_others_choose():
    losses = np.array([[1.0, 2.0], [1.0, 2.0], [9.0, 0.0]])
    np.testing.assert_array_equal(half_life.tuned(losses), [2.0, 2.0, 9.0])


def test_the_best_lr_is_that_of_a_parabola():
    """Its vertex, where the lowest lies inside the list, and else the list's end."""
    factors = (0.25, 0.5, 1.0, 2.0)
    logs = np.log2(factors)
    for vertex in (-1.3, -0.2, 0.4):
        found = half_life.best_lr(factors, 2 + (logs - vertex) ** 2)
        assert found == pytest.approx(vertex)
    assert half_life.best_lr(factors, logs) == -2.0


def known(s, vertex, shift):
    """Runs whose loss is 2 + .1 (log2 factor − vertex(κ, kept))² + shift(κ, kept)."""
    wobble = 0.001 * np.linspace(-1, 1, s.seeds)[:, None]
    times, runs = s.every * np.arange(5), {}
    for arm in half_life.arms(s):
        kappa, kept, factor = arm.name.split("/")
        log = np.log2(float(factor))
        loss = 2 + 0.1 * (log - vertex(int(kappa), kept)) ** 2
        values = loss + shift(int(kappa), kept) + wobble + np.zeros(5)
        runs[arm.name] = ArmRuns(arm, {"test_loss": Series(times, values)})
    return Runs(runs)


def test_verdicts_of_known_outcome(tmp_path):
    """The rule keeps the curve; with v's memory alone the best lr grows as κ^¼."""
    s = tiny(kappas=(4, 16), horizon=64.0, seeds=6).checked()

    def vertex(kappa, kept):
        return -0.25 * np.log2(kappa) if kept == "v" else 0.0

    shifts = {"both": 0.0, "v": -0.2, "neither": 0.2}
    runs = known(s, vertex, lambda kappa, kept: shifts[kept] * (kappa > 1))
    verdicts = list(half_life.claims(s, runs))
    outcomes = {v.claim: v.outcome for v in verdicts}
    assert {name for name, outcome in outcomes.items() if outcome != "holds"} == {
        *(
            f"{kept}_keeps_the_curve_at_{k}"
            for kept in ("v", "neither")
            for k in (4, 16)
        ),
        *(f"base_batch_ends_no_higher_than_{k}" for k in (4, 16)),
        *(f"best_lr_of_{kept}_grows_below_root" for kept in ("both", "neither")),
    }
    values = {v.claim: v.value for v in verdicts}
    assert values["best_lr_of_v_grows_below_root"] == pytest.approx(0.25)
    assert values["v_alone_ends_below_both_at_16"] == pytest.approx(100 * 0.2 / 1.8)
    assert values["base_batch_ends_no_higher_than_16"] == pytest.approx(-10)
    assert values["both_keeps_the_curve_at_4"] == pytest.approx(0, abs=1e-9)
    assert values["v_keeps_the_curve_at_16"] == pytest.approx(100 * (0.1 - 0.2) / 2)
    text = half_life.answer(s, runs, verdicts)
    assert "b1 and b2 in tokens: the curve is shown to be that of the base run up to "
    assert "κ = 16; the best lr grows as κ to the 0.50 [0.50, 0.50]" in text
    assert "up to κ = 1; the best lr grows as κ to the 0.25 [0.25, 0.25]" in text
    first, second = half_life.tables(s, runs)
    assert "+0.00 [+0.00, +0.00]" in first
    assert "(end)" not in second
    half_life.figure(s, runs, tmp_path / "figure.png")


def test_the_nearest_curve_counts():
    """With v's memory alone the curve at half the lr is the base run's own."""
    s = tiny(kappas=(4,)).checked()
    runs = known(s, lambda kappa, kept: -1.0 if kept == "v" else 0.0, lambda *_: 0.0)
    found = half_life.nearer(s, runs, 4)
    assert found.mean == pytest.approx(0, abs=1e-9)
    runs = known(s, lambda kappa, kept: -9.0 if kept == "v" else 0.0, lambda *_: 0.0)
    nearest = 0.1 * (9 - 2) ** 2
    assert half_life.nearer(s, runs, 4).mean == pytest.approx(50 * nearest)


@pytest.mark.full
def test_half_lives_are_run(tmp_path):
    s = tiny(kappas=(2,), evaluations=2, seeds=3).checked()
    runs = half_life.simulate(s, RunDir(tmp_path, "scaling", {}), build_task(s))
    assert list(runs) == [arm.name for arm in half_life.arms(s)]
    assert half_life.curves(s, runs, 2, "v").shape == (3, 4, 2)
    assert len(list(half_life.claims(s, runs))) == 3 + 1 + 2 + 1 + 3
