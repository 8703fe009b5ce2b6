"""experiments.intrinsic_lr.mixing: times of forgetting, and verdicts on known runs."""

import dataclasses

import numpy as np
import pytest

from configs.intrinsic_lr import PRESETS
from experiments.intrinsic_lr import forgetting, mixing, nets, two_starts
from optsde.analysis import energy_distance
from optsde.dynamics.sphere import gamma_at
from optsde.study import RunDir, UsageError

SMALL = dict(intrinsic=(4e-5, 4e-4), seeds=8, looks=12, images=3, known_false=())


def small(**changes):
    settings = PRESETS["mixing"].settings
    return dataclasses.replace(settings, **(SMALL | changes)).checked()


def known(s, power=1.0, left=0.0):
    """Runs whose start fades at a pace ∝ λ_e^power, but for a part that is left.

    γ begins at 2 and at .1 of its equilibrium and follows its closed form.
    """
    rng = np.random.default_rng(0)
    runs = {}
    for rate in s.intrinsic:
        at = two_starts.times(s, rate)
        pace = rate * (rate / 1e-4) ** (power - 1)
        gammas = [gamma_at(at, x * 0.5 / pace, 1.0, pace) for x in (2.0, 0.1)]
        lrs = np.repeat(np.array(gammas) ** -0.5, s.seeds, axis=0)
        start = np.repeat([-1.0, 1.0], s.seeds)
        fading = start[:, None] * np.maximum(np.exp(-pace * at), left)
        shape = 2 * s.seeds, len(at), 3, 10
        noise = np.random.default_rng(1).normal(size=shape)
        run = dict(
            times=at,
            effective_lr=lrs,
            train_loss=np.exp(fading),
            test_loss=np.exp(fading),
            test_error=np.full(fading.shape, 0.1),
            aligned=0.5 + 0.01 * rng.normal(size=fading.shape),
            predictions=4 * fading[..., None, None] + noise,
        )
        runs[rate] = run | {"functions": two_starts.coordinates(run["predictions"])}
    return mixing.Mixed(runs, forgetting.forgetting(s, runs))


def test_closed_forms_have_their_time_of_forgetting():
    """|log| of two losses e^±f is 2f: it is 10% at f = .05, and half where f is half.

    The logarithm of two effective lr's is half that of their γ; both by bisection.
    """
    s = small(looks=60)
    mixed = known(s)
    first = s.first * np.ones(2)
    losses = mixed.forgetting.mean[1, :, :-1]
    np.testing.assert_allclose(losses[0], -np.log(0.05), rtol=0.01)
    np.testing.assert_allclose(losses[1], first + np.log(2), rtol=0.03)

    def ratio(t):
        high, low = (gamma_at(t, x * 0.5, 1.0, 1.0) for x in (2.0, 0.1))
        return 50 * np.log(high / low)

    grid = np.linspace(0.1, 8, 100_001)
    down = ratio(grid) > 10, 2 * ratio(grid) > ratio(0.1)
    expected = [[grid[np.argmin(x)]] for x in down]
    lrs = mixed.forgetting.mean[0, :, :-1]
    np.testing.assert_allclose(lrs, np.repeat(expected, 2, axis=1), rtol=0.02)


@pytest.mark.parametrize("power", [1.0, 1.4])
def test_the_exponent_is_that_of_the_pace(power):
    """Half of the first counts from .1/λ_e on, whatever the pace is."""
    exponents = known(small(looks=80), power).forgetting.mean[:, :, -1]
    np.testing.assert_allclose(exponents[:, 0], -power, atol=0.05)
    if power == 1:
        np.testing.assert_allclose(exponents[:, 1], -1, atol=0.05)


def test_verdicts_on_runs_that_forget(tmp_path):
    s = small(alike=30.0, slope_bound=0.3)
    mixed = known(s)
    verdicts = {v.claim: v for v in mixing.claims(s, mixed)}
    assert len(verdicts) == 2 + 2 + 6 + 6
    assert all(v.holds for v in verdicts.values()), verdicts
    first, forgets, later = mixing.tables(s, mixed)
    assert "of two halves" in first
    assert forgets.count("0.5 of the first") == 3
    assert "from 4 to 8/λ_e" in later
    mixing.figure(s, mixed, tmp_path / "mixing.png")


def test_verdicts_on_runs_that_do_not_forget():
    """A start of which a part stays is never forgotten, and makes two laws."""
    s = small()
    mixed = known(s, left=0.4)
    verdicts = {v.claim: v for v in mixing.claims(s, mixed)}
    assert verdicts["one_law_at_the_end_4e-05"].fails
    claim = verdicts["functions_forgets_in_time_1_over_intrinsic_lr"]
    assert claim.outcome == "open"
    assert np.isnan(claim.value)
    assert verdicts["law_stays_4e-05"].value < 5  # of both ensembles together


def test_coordinates_keep_distances():
    predictions = np.random.default_rng(0).normal(size=(8, 2, 5, 4))
    found = two_starts.coordinates(predictions)
    assert found.shape == (8, 2, 8)
    for i in range(2):
        np.testing.assert_allclose(
            energy_distance(found[:4, i], found[4:, i]),
            energy_distance(predictions[:4, i], predictions[4:, i]),
            rtol=1e-10,
        )


def test_how_far_runs_move():
    """Two runs, 5 apart at the end, have moved by 5 and by 10."""
    late = np.array([[[0.0, 0.0]], [[3.0, 4.0]]])
    early = np.array([[[3.0, 4.0]], [[-3.0, -4.0]]])
    np.testing.assert_allclose(forgetting.moved(early, late), 150)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(seeds=5), "seeds=5: needs at least 6"),
        (dict(scales=(1.0, 2.0, 3.0)), "scales=1.0,2.0,3.0: needs two numbers"),
        (dict(first=4.0), "first=4.0: needs a time before length/2"),
        (dict(looks=50_000), "looks=50000: needs at most so many"),
        (dict(length=1e9), "at most 2147483647 steps"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        small(**changes)


@pytest.mark.full
def test_two_starts_whole(tmp_path, monkeypatch):
    """Two ensembles of small nets; the second time all is read."""
    s = small(
        intrinsic=(0.02, 0.04),
        seeds=6,
        looks=4,
        train_size=64,
        test_size=40,
        judged=64,
        statistics=64,
        options={"hidden": (8, 8)},
    )
    monkeypatch.setattr(nets, "report", lambda *_: None)  # tested elsewhere
    rundir = RunDir(tmp_path / "run", "intrinsic_lr", {})
    rundir.begin()
    task = nets.build_task(s)
    mixed = mixing.simulate(s, rundir, task)
    run = mixed.runs[0.02]
    assert run["times"].tolist() == [5, 32, 200, 400]
    assert run["predictions"].shape == (12, 4, 3, 10)
    np.testing.assert_allclose(run["aligned"][:, 2], 1, rtol=1e-5)
    assert run["aligned"][:, 3].max() < 0.95
    # 2 and .5 of one norm: the effective lr's begin 16 times apart.
    lrs = [x.mean(axis=0) for x in forgetting.ensembles(s, run, "effective_lr")]
    assert lrs[0][0] > 5 * lrs[1][0]
    np.testing.assert_allclose(lrs[0][-1], lrs[1][-1], rtol=0.2)
    verdicts = list(mixing.claims(s, mixed))
    assert len(verdicts) == 16
    again = mixing.claims(s, mixing.simulate(s, rundir, task))
    assert repr([*again]) == repr(verdicts)  # NaN is not equal to itself
