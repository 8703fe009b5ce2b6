"""The SDE of the modified loss: recursions by hand, long runs, the study."""

import dataclasses

import numpy as np
import pytest
from test_descent import settings_of, study_of

from experiments.descent import modified_sde


def test_moments_of_sgd_by_recursion():
    """E θ² ← (1 − ηλ)² E θ² + η²σ²."""
    s = settings_of("modified_sde")
    found = modified_sde.moments_of_sgd(s, 0.05)
    for i, curvature in enumerate(s.curvatures):
        mean = square = 1.0
        for _ in range(20):
            mean *= 1 - 0.05 * curvature
            square = (1 - 0.05 * curvature) ** 2 * square + (0.05 * s.noise) ** 2
        np.testing.assert_allclose(found["mean"][i], mean, rtol=1e-12)
        np.testing.assert_allclose(found["square"][i], square, rtol=1e-12)


def test_moments_of_the_sde_by_small_steps():
    """d E θ²/dt = −2λ′ E θ² + ησ², by Euler's steps and Richardson's extrapolation."""
    s = settings_of("modified_sde", curvatures=(2.0,), time=0.4)

    def walk(steps, rate=2.0 * (1 + 0.1 * 2.0 / 2), h=0.4):
        square = 1.0
        for _ in range(steps):
            square += h / steps * (-2 * rate * square + 0.1 * s.noise**2)
        return square

    found = modified_sde.moments_of_limit(s, 0.1, "modified")["square"]
    np.testing.assert_allclose(found, 2 * walk(4000) - walk(2000), rtol=1e-6)


def test_variances_in_the_long_run():
    """At a late time the moments are those of the stationary laws."""
    s = settings_of("modified_sde")
    late = dataclasses.replace(s, time=200.0)
    for name in ("plain", "modified"):
        shares = [
            modified_sde.moments_of_limit(late, lr, name)["square"][0]
            / modified_sde.moments_of_sgd(late, lr)["square"][0]
            for lr in s.lrs
        ]
        found = modified_sde.in_the_long_run(s, name)
        np.testing.assert_allclose(found, np.array(shares) - 1, rtol=1e-6)


@pytest.mark.full
def test_the_study_runs(tmp_path):
    verdicts = {v.claim: v for v in study_of("modified_sde", tmp_path, paths=4000)}
    wrong = "modified_is_nearer_in_the_long_run"
    assert verdicts.pop(wrong).fails
    assert len(verdicts) == 9
    assert all(verdict.holds for verdict in verdicts.values())
    assert (tmp_path / "figures" / "sde.png").stat().st_size > 10_000
