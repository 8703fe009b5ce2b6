"""Decay of a linear perceptron: the theory against direct solutions, and the study."""

import dataclasses

import numpy as np
import pytest
from test_descent import settings_of, study_of

from experiments.descent import perceptron

SMALL = dict(dimension=8, steps=40, seeds=4)


@pytest.mark.parametrize("load", [0.3, 1.0, 4.0])
def test_moments_of_the_spectrum(load):
    """Mean α, second moment α + α² and, of all weights, 1 (Marchenko and Pastur)."""
    a, weight = perceptron.spectrum(load)
    for power, expected in ((0, 1), (1, load), (2, load + load**2)):
        assert weight @ a**power == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("load", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("factor", [0.25, 1.0])
def test_theory_after_long_is_that_of_the_solved_problem(load, factor):
    """w = (A + λ)⁻¹ b of 400 data sets of 40 weights, within 4 s.e. and 1/N."""
    s = settings_of("perceptron", dimension=40, seeds=400)
    decay = factor * s.noise**2
    found = []
    for x, y in zip(*perceptron.data(s, load), strict=True):
        w = np.linalg.solve(x.T @ x + decay * np.eye(40), x.T @ y)
        found.append(np.mean((w - 1) ** 2))
    expected = perceptron.theory(s, load, decay, [10**6], s.start)[0]
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - expected) < 4 * error + expected / 40


def test_theory_at_the_start_and_without_examples():
    """Before a step (w − u)² is 1 + v²; without decay a share 1 − α stays there."""
    s = settings_of("perceptron", noise=1e-6)
    assert perceptron.theory(s, 0.5, 0.1, [0], s.start)[0] == pytest.approx(2)
    left = perceptron.theory(s, 0.5, 0, [10**7], s.start)[0]
    assert left == pytest.approx(0.5 * 2, rel=1e-3)


def test_the_least_error_is_at_the_noise():
    s = settings_of("perceptron")
    for load in s.loads:
        errors = [
            perceptron.theory(s, load, factor * s.noise**2, [10**6], 0)[0]
            for factor in (0.97, 1.0, 1.03)
        ]
        assert np.argmin(errors) == 1


@pytest.mark.full
def test_runs_are_descent_on_the_examples():
    """Each replica's own recursion, in float64."""
    s = dataclasses.replace(settings_of("perceptron", **SMALL, start=0.0), steps=16)
    found = perceptron.errors(s, 1.0)["error"]
    assert found.shape == (len(s.decays), s.seeds, len(s.times))
    for number, (x, y) in enumerate(zip(*perceptron.data(s, 1.0), strict=True)):
        for i, decay in enumerate(s.decays):
            w = np.zeros(s.dimension)
            for _ in range(s.steps):
                w = w - s.lr * (x.T @ (x @ w - y) + decay * w)
            np.testing.assert_allclose(
                found[i, number, -1], np.mean((w - 1) ** 2), rtol=1e-4
            )


@pytest.mark.full
def test_the_study_runs(tmp_path):
    verdicts = study_of("perceptron", tmp_path, **SMALL)
    assert len(verdicts) == 3 * 6 + 1
    assert (tmp_path / "figures" / "perceptron.png").stat().st_size > 10_000
