"""experiments.fullbatch.convex: the function, descent on it, its closed forms."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from configs.fullbatch import PRESETS
from experiments.fullbatch import convex
from optsde.analysis import estimate
from optsde.study import RunDir, UsageError
from optsde.study.study import run


def settings(**changes):
    return dataclasses.replace(PRESETS["gd_convex"].settings, **changes).checked()


def mean_root(count):
    """E√K of a binomial number of fair bits."""
    weights = [math.comb(count, k) for k in range(count + 1)]
    return np.dot(weights, np.sqrt(np.arange(count + 1))) / 2**count


@pytest.mark.parametrize("count", [1, 5, 100])
def test_the_risk_of_equal_coordinates_is_that_of_a_binomial(count):
    w = np.concatenate([np.full(count, -0.3), np.zeros(3)])
    np.testing.assert_allclose(convex.risk(w), 0.3 * mean_root(count), rtol=1e-6)
    w[-1] = 0.2
    np.testing.assert_allclose(convex.risk(w), 0.3 * mean_root(count) + 0.2, rtol=1e-6)


def test_the_risk_of_unequal_coordinates_is_the_mean_over_all_bits():
    w = -np.array([0.5, 0.1, 0.02, 0.3])
    bits = np.array(np.meshgrid(*[[0, 1]] * 4)).reshape(4, -1).T
    expected = np.linalg.norm(bits * w, axis=1).mean()
    np.testing.assert_allclose(convex.risk(w), expected, rtol=1e-6)
    assert convex.risk(np.zeros(3)) == 0


def value(w, bits, n):
    """The terms in w as the docstring has them, their mean over examples."""
    below = np.minimum(w + convex.GAMMA, 0)
    each = np.linalg.norm(bits * below, axis=1)
    each += convex.HINT * (np.where(bits, 1, -0.5 / n) @ w)
    return each.mean() + max(0, w.max())


def test_steps_are_along_subgradients():
    """f(y) ≥ f(x) + g·(y − x) at random points, and |g| ≤ √2 but for the hint."""
    rng = np.random.default_rng(0)
    bits = rng.random((3, 12)) < 0.5
    for _ in range(200):
        x, y = rng.normal(size=(2, 12)) * rng.choice([1e-6, 1e-3, 1], size=(2, 1))
        g = convex.subgradient(x, bits, 3)
        line = value(x, bits, 3) + g @ (y - x)
        assert value(y, bits, 3) >= line - 1e-12
        assert np.linalg.norm(g) < 2**0.5 + 1e-6


def test_the_full_batch_touches_what_no_example_has():
    """All coordinates of four examples, against those that descent is simulated on."""
    bits = np.random.default_rng(0).random((4, 640)) < 0.5
    steps, lr = 16, 0.25
    whole = convex.descend_in_full(bits, steps, lr)
    alone = convex.descend(
        steps, np.array([lr]), 0.0, jax.random.split(jax.random.key(0), 1)
    )
    for name, w in whole.items():
        touched = np.sort(w[w < -1e-3])
        assert len(touched) == steps - 2 + (name == "last")
        assert not bits[:, w < -1e-3].any()
        left = np.asarray(alone[name][0, 0], float)
        np.testing.assert_allclose(np.sort(left)[: len(touched)], touched, atol=1e-6)
        np.testing.assert_allclose(convex.risk(w), convex.risk(left), rtol=1e-5)
    np.testing.assert_allclose(
        convex.risk(whole["last"]), lr * mean_root(15), rtol=1e-5
    )


@pytest.mark.full
def test_sgd_in_full_and_on_what_it_touches_have_one_law():
    """Six steps in 1,024 coordinates, 400 seeds of each: means within 4 s.e."""
    steps, lr, seeds = 6, 0.5, 400
    found = []
    for seed in range(seeds):
        bits = np.random.default_rng(seed).random((steps, 1024)) < 0.5
        w = convex.descend_in_full(bits, steps, lr, one_each=True)
        found.append([convex.risk(w["mean"]), convex.risk(w["last"])])
    keys = jax.random.split(jax.random.key(1), seeds)
    w = convex.descend(steps, np.array([lr]), 0.5, keys)
    other = [convex.risk(np.asarray(w[n][:, 0], float)) for n in ("mean", "last")]
    a, b = estimate(np.array(found)), estimate(np.array(other).T)
    assert np.all(np.abs(a.mean - b.mean) < 4 * np.hypot(a.se, b.se)), (a, b)
    assert np.all(a.mean > 0)


def test_the_last_term_falls_as_its_closed_form():
    """Whole sweeps: N^-½ − η T/N after T steps; the mean is 1/(2ηT) (1 + 1/sweeps)."""
    early = convex.last_term(256, 1 / 256)
    np.testing.assert_allclose(early["last"], 1 / 4 - 1 / 16)
    late = convex.last_term(256, 1 / 16)
    assert late["last"] == 0
    np.testing.assert_allclose(late["mean"], (1 + 1 / 4) / (2 * 16))


def test_the_path_of_the_full_batch_takes_the_4th_power():
    """w_t falls by η in step t and stays: the exact path, without a simulation."""
    least, lrs, steps = [], settings().lrs, (16, 256, 4096)
    for count in steps:
        stays = np.append(np.arange(count - 2, -1, -1), 0) / count
        w = convex.risk(-stays) * np.array(lrs)
        slow = np.array([convex.last_term(count, lr)["mean"] for lr in lrs])
        least.append((w + slow).min())
    power = np.diff(np.log(steps)) / -np.diff(np.log(least))
    np.testing.assert_allclose(power, [3.80, 3.88], atol=0.02)
    np.testing.assert_allclose(least[-1] * 4096**0.25, 0.91, atol=0.02)


@pytest.mark.full
def test_a_run_in_small(tmp_path, capsys):
    s = settings(steps=(4, 16, 64), samples=(2, 16), full_steps=16, seeds=4)
    verdicts = run(convex.study, s, RunDir.open(tmp_path, "fullbatch", s.config()))
    held = {v.claim: v.holds for v in verdicts}
    assert held.keys() >= {f"sgd_within_its_bound_T{n}" for n in s.steps}
    few = {claim for claim, holds in held.items() if not holds}  # so short runs
    assert few <= {f"full_batch_takes_the_4th_power{x}" for x in convex.OUTPUTS}, held
    assert "SGD's bound" in capsys.readouterr().out
    assert (tmp_path / "figures" / "convex.png").stat().st_size > 10_000


def test_settings_are_checked():
    with pytest.raises(UsageError, match=r"steps=16,8: needs at least 3 rising"):
        settings(steps=(16, 8))
    with pytest.raises(UsageError, match=r"samples=2: needs two or more"):
        settings(samples=(2,))
