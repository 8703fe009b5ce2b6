"""MARS: the update written out, and γ of its exact form on a 1-D quadratic.

The exact form, c = g(θ) + a (g(θ) − g(θ₋)) with both gradients of one batch and
a = γ·b1/(1−b1), is linear in (θ, θ₋, m) where the divisor is held: its moments are
those of matrices. h = 1, x0 = 1.5; lr·κ stands for √κ of a divisor that falls by √κ.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm, solve_continuous_lyapunov

import optsde


@pytest.mark.usefixtures("x64")
def test_update_is_adam_of_a_quasi_hyperbolic_momentum():
    """By sums over the past in numpy: m_k is (1−γ) M_k + γ g_k − γ·b1^k·g_1, with M the
    average of g and γ = a(1−b1)/b1; v averages c²."""
    b1, b2, lr, a, eps = 0.8, 0.9, 0.1, 0.7, 0.01
    gamma = a * (1 - b1) / b1
    grads = np.random.default_rng(0).normal(size=(6, 3)) + 1
    ours = optsde.MARS(lr=lr, b1=b1, b2=b2, correction=a, eps=eps).transform()
    x = jnp.zeros(3)
    state = ours.init(x)
    before = np.vstack([grads[:1], grads[:-1]])
    c = grads + a * (grads - before)
    for k, g in enumerate(grads, 1):
        updates, state = ours.update(jnp.asarray(g), state, x)
        average = (1 - b1) * b1 ** np.arange(k)[::-1] @ grads[:k]
        m = (1 - gamma) * average + gamma * g - gamma * b1**k * grads[0]
        v = (1 - b2) * b2 ** np.arange(k)[::-1] @ c[:k] ** 2
        root = np.sqrt(v / (1 - b2**k)) + eps
        np.testing.assert_allclose(updates, -lr * m / (1 - b1**k) / root, rtol=1e-10)


LR, B1, GAMMA, NOISE, X0, TIME = 0.02, 0.98, 0.3, 3.0, 1.5, 192


def exact(kappa, gamma):
    """E x and E x² of the exact form at κ."""
    lr, b1 = LR * kappa, 1 - kappa * (1 - B1)
    a = gamma * b1 / (1 - b1)
    m = np.array([(1 - b1) * (1 + a), -(1 - b1) * a, b1])  # in x, x₋, m
    step = np.array([[1.0, 0, 0] - lr * m, [1.0, 0, 0], m])
    kick = (1 - b1) * np.array([-lr, 0, 1]) * NOISE / kappa**0.5
    mean, cov = np.array([X0, X0, 0]), np.zeros((3, 3))
    for _ in range(round(TIME / kappa)):
        mean, cov = step @ mean, step @ cov @ step.T + np.outer(kick, kick)
    return np.array([mean[0], cov[0, 0] + mean[0] ** 2])


def test_gamma_of_the_exact_form_stays():
    """dm = (1−b1)((∇f − m) dt + Σ^½ dW) + γ h dθ is approached at order 1 in κ; and at
    κ = 4 and 8 the run is nearer to the base run than with a kept, by half and more.
    Stated beforehand."""
    c = 1 - B1
    flow = np.array([[0, -LR], [c, -c - GAMMA * LR]])
    kick = NOISE * c * np.array([[0.0], [1.0]])
    over, rest = expm(flow * TIME), solve_continuous_lyapunov(flow, -kick @ kick.T)
    mean, cov = over @ [X0, 0], rest - over @ rest @ over.T
    limit = np.array([mean[0], cov[0, 0] + mean[0] ** 2])
    far = [np.abs(exact(4.0**-k, GAMMA) - limit) for k in (1, 2, 3)]
    ratios = np.array(far[:-1]) / far[1:]
    assert np.all((ratios > 3.5) & (ratios < 4.5))
    base = exact(1, GAMMA)
    for kappa in (4, 8):
        b1 = 1 - kappa * c
        rule, kept = (
            np.abs(exact(kappa, gamma) - base).max()
            for gamma in (GAMMA, GAMMA * kappa * B1 / b1)
        )
        assert kept > 2 * rule
