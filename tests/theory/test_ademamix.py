"""AdEMAMix on a 1-D quadratic, without Monte Carlo.

With eps_root far above v the update is linear in (x, m, n). Its step and its SDE are
taken of our own code as matrices; h = 1, x0 = 1.5, weights of averages at 1.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm, solve_continuous_lyapunov

import optsde
from optsde.optimizers.ademamix import AdEMAMixState

pytestmark = pytest.mark.usefixtures("x64")
P, X0, NOISE, TIME = 1e4, 1.5, 10.0, 192
BASE = optsde.AdEMAMix(lr=0.002 * P, b1=0.98, b3=0.996, alpha=5.0, eps_root=P**2)


def state(m, n):
    one, none = jnp.ones(()), jnp.zeros(1)
    return AdEMAMixState(m, n, none, one, one)


def step(optimizer):
    """(A, b) of y ← A y + b ξ, with y = (x, m, n) and g = x + ξ."""
    transform = optimizer.transform()

    def moved(y, z):
        x, m, n = y[:, None]
        start = transform.init(x)._replace(direction=state(m, n))
        change, new = transform.update(x + z, start, x)
        return jnp.concatenate([x + change, new.direction.m, new.direction.slow])

    at = jnp.zeros(3), jnp.zeros(1)
    return tuple(np.asarray(jax.jacobian(moved, i)(*at)) for i in (0, 1))


def system(optimizer):
    """(A, b) of dy = A y dt + b dW, from the drift and the noise of the SDE."""
    sde, one = optimizer.sde(), jnp.ones(1)

    def flow(y):
        x, m, n = y[:, None]
        dx, d = sde.drift(0.0, x, state(m, n), x, one)
        return jnp.concatenate([dx, d.m, d.slow])

    still = state(0 * one, 0 * one)
    dx, d = sde.noise(0.0, one, still, one, one, one, one)
    kick = np.concatenate([dx, d.m, d.slow])[:, None]
    return np.asarray(jax.jacobian(flow)(jnp.zeros(3))), kick


def discrete_moments(optimizer, steps, noise):
    a, b = step(optimizer)
    mean, cov = np.array([X0, 0, 0]), np.zeros((3, 3))
    for _ in range(steps):
        mean, cov = a @ mean, a @ cov @ a.T + noise**2 * b @ b.T
    return np.array([mean[0], cov[0, 0] + mean[0] ** 2])


def at_kappa(kappa, **changes):
    new = dataclasses.replace(BASE.rescaled(kappa), **changes)
    return discrete_moments(new, round(TIME / kappa), NOISE / kappa**0.5)


def test_small_kappa_approaches_the_sde():
    """Mean and second moment against the matrix exponential, at order 1 in κ."""
    a, b = system(BASE)
    flow = expm(a * TIME)
    rest = solve_continuous_lyapunov(a, -(NOISE**2) * b @ b.T)
    mean, cov = flow @ [X0, 0, 0], rest - flow @ rest @ flow.T
    limit = np.array([mean[0], cov[0, 0] + mean[0] ** 2])
    distance = [np.abs(at_kappa(4.0**-k) - limit) for k in (0, 1, 2, 3)]
    assert np.all(distance[-1] < 1e-3)
    ratios = np.array(distance[:-1]) / distance[1:]
    assert np.all((ratios > 3.5) & (ratios < 4.5))


def test_each_part_of_the_rule_counts():
    """κ = 4, 8: four times as far off, and more, where b1, b3 or α do not follow it."""
    base = at_kappa(1)
    for kappa in (4, 8):
        rule = np.abs(at_kappa(kappa) - base).max()
        for changes in (dict(b3=BASE.b3), dict(b1=BASE.b1), dict(alpha=5.0 * kappa)):
            assert np.abs(at_kappa(kappa, **changes) - base).max() > 4 * rule


@pytest.mark.parametrize("lr", [1e-4, 1e-2, 1.0])
def test_variance_at_rest_is_the_closed_form(lr):
    """G/N = F k(1+α)/2, with F between 1 and 1/(1+α)."""
    k, alpha, c1, c3 = lr, 5.0, 0.1, 1e-4
    optimizer = optsde.AdEMAMix(lr=lr * P, eps_root=P**2)
    a, b = system(optimizer)
    found = solve_continuous_lyapunov(a, -b @ b.T)[0, 0]
    both, size = c1 + alpha * c3, c1 * c3 * (1 + alpha)
    above = k * both**2 + size * (c1 + c3)
    below = (c1 * c3 + k * both) * (c1 + c3) - k * size
    np.testing.assert_allclose(found, k / 2 * above / below, rtol=1e-6)
    share = found / (k / 2 * (1 + alpha))
    assert 1 / (1 + alpha) < share < 1
