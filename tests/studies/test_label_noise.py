"""Label noise on a diagonal net: its measures, its slow flows, the study."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_descent import settings_of, study_of

from experiments.descent import label_noise as study

pytestmark = pytest.mark.usefixtures("x64")


def test_the_measures_are_those_of_the_hessian():
    s = settings_of("label_noise")
    w = study.start_of(s)
    hessian = jax.hessian(lambda w: (study.output(s, w) - 1) ** 2 / 2)(w)
    diagonal, beta = np.diag(hessian), study.products(np.asarray(w))
    np.testing.assert_allclose(study.measure(s, "sgd", beta), diagonal.sum())
    np.testing.assert_allclose(study.measure(s, "adam", beta), np.sqrt(diagonal).sum())


def test_slow_flows():
    """They stay at minima and u = v; SGD's is β_j′ = −δ²(a_j² − λa_j)β_j by hand.

    From −(δ²/4)·∇ of Σ a_j²(u_j² + v_j²) + a multiple of f, with Σ a_jβ_j′ = 0. Adam's
    with v = δ²·diag H descends tr Diag(H)^½ at the rate ½ of its own metric P/δ.
    """
    s = settings_of("label_noise")
    w, a = study.start_of(s), jnp.asarray(s.inputs)
    slope = jax.grad(partial(study.output, s))(w)
    beta = study.products(w)
    lagrange = jnp.sum(a**3 * beta) / jnp.sum(a**2 * beta)
    by_hand = -(s.noise**2) * (a**2 - lagrange * a) * beta
    one = study.along(s, w, jnp.ones(4))
    found = one[:2] * w[2:] + w[:2] * one[2:]
    np.testing.assert_allclose(found, by_hand, rtol=1e-10)
    root = lambda w: jnp.sum(jnp.abs(jax.grad(partial(study.output, s))(w)))  # noqa: E731
    of_adam = study.along(s, w, s.noise * jnp.abs(slope))
    free = -0.5 * jax.grad(root)(w) / jnp.abs(slope)
    normal = jnp.sign(slope)  # P⁻¹∇f
    off = normal * (slope @ free) / (slope @ normal)
    np.testing.assert_allclose(of_adam, free - off, rtol=1e-10)
    for flow in (one, of_adam):
        np.testing.assert_allclose(slope @ flow, 0, atol=1e-12)
        np.testing.assert_allclose(flow[:2], flow[2:], rtol=1e-12)


@pytest.mark.full
def test_the_study_runs(tmp_path):
    verdicts = study_of("label_noise", tmp_path)
    assert len(verdicts) == 8
    assert all(verdict.holds for verdict in verdicts)
    assert (tmp_path / "figures" / "label_noise.png").stat().st_size > 10_000
