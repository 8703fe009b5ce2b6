"""Schedule-free SGD on a 1-D quadratic, without Monte Carlo.

The step is linear in (y, z − x), with coefficients that change with the number of the
step; its matrices are taken of our own update. h = 1, x0 = 1.5.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import hyp1f1

import optsde

pytestmark = pytest.mark.usefixtures("x64")
X0, NOISE, LR, TIME = 1.5, 10.0, 0.02, 128


def moments(optimizer, steps, noise):
    """Means [2] and covariance [2, 2] of (x, y) after the steps, exactly."""
    transform = optimizer.transform()
    start = transform.init(jnp.zeros(1))

    def moved(pair, z, k):
        y, e = pair[:, None]
        old = start.direction._replace(apart=e, steps=k)
        change, new = transform.update(y + z, start._replace(direction=old), y)
        return jnp.concatenate([y + change, new.direction.apart])

    def step(carry, k):
        mean, cov = carry
        a = jax.jacobian(moved, 0)(jnp.zeros(2), jnp.zeros(1), k)
        b = jax.jacobian(moved, 1)(jnp.zeros(2), jnp.zeros(1), k)
        return (a @ mean, a @ cov @ a.T + noise**2 * b @ b.T), None

    first = jnp.array([X0, 0.0]), jnp.zeros((2, 2))
    (mean, cov), _ = jax.lax.scan(step, first, jnp.arange(float(steps)))
    to_x = np.array([[1, -(1 - optimizer.beta)], [1, 0]])
    return to_x @ np.asarray(mean), to_x @ np.asarray(cov) @ to_x.T


def at_kappa(optimizer, kappa):
    """Moments of `optimizer`, which is one at κ, at the end of the base run."""
    return moments(optimizer, round(TIME / kappa), NOISE / kappa**0.5)


def of_the_sde(lr, beta):
    """(x, y) at the end: the mean in closed form, the covariance from its equation.

    Of dz = −lr (y dt + σ dW) and dx = (z − x) dt/t. So t x″ + (2 + a t) x′ + lr x = 0
    in the mean, with a = lr (1−β): Kummer's equation in −a t.
    """
    a, p = lr * (1 - beta), 1 / (1 - beta)
    x = X0 * hyp1f1(p, 2, -a * TIME)
    slope = -X0 * a * p / 2 * hyp1f1(p + 1, 3, -a * TIME)
    mean = np.array([x, x + (1 - beta) * TIME * slope])

    def rate(t, flat):  # of the covariance of (x, z)
        flow = np.array([[-1 / t, 1 / t], [-lr * beta, -lr * (1 - beta)]])
        cov = flat.reshape(2, 2)
        noise = np.diag([0, (lr * NOISE) ** 2])
        return (flow @ cov + cov @ flow.T + noise).ravel()

    end = solve_ivp(rate, (1e-7, TIME), np.zeros(4), "LSODA", rtol=1e-9, atol=1e-12)
    to_y = np.array([[1, 0], [beta, 1 - beta]])
    return mean, to_y @ end.y[:, -1].reshape(2, 2) @ to_y.T


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_small_kappa_approaches_the_sde(beta):
    """Order 1 in κ, for means and covariances of x and y."""
    base = optsde.ScheduleFreeSGD(lr=LR, beta=beta)
    limit = np.concatenate([x.ravel() for x in of_the_sde(LR, beta)])
    distance = []
    for kappa in (1, 1 / 4, 1 / 16, 1 / 64):
        found = at_kappa(base.rescaled(kappa), kappa)
        found = np.concatenate([x.ravel() for x in found])
        distance.append(np.abs(found - limit).max())
    assert distance[-1] < 1e-3
    assert np.all(np.array(distance[:-1]) / distance[1:] > 3.3)


def test_each_part_of_the_rule_counts():
    """κ = 4: five times as far off, and more, by lr·√κ, and with β taken for a memory,
    1 − β → κ(1−β)."""
    base = optsde.ScheduleFreeSGD(lr=LR, beta=0.9)
    reference = at_kappa(base, 1)

    def error(optimizer):
        found = at_kappa(optimizer, 4)
        return max(np.abs(a - b).max() for a, b in zip(found, reference, strict=True))

    rule = base.rescaled(4)
    for changes in (dict(lr=2 * LR), dict(beta=0.6)):
        assert error(dataclasses.replace(rule, **changes)) > 5 * error(rule)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_what_noise_leaves_of_x(beta):
    """t·Var x → N/(h²(1−β²)), whatever lr; within 2% at lr h (1−β) t = 100 and more."""
    lr = 0.05 if beta else 0.01
    steps = round(100 / (lr * (1 - beta)))
    _, cov = moments(optsde.ScheduleFreeSGD(lr=lr, beta=beta), steps, 3.0)
    np.testing.assert_allclose(steps * cov[0, 0], 9 / (1 - beta**2), rtol=0.02)
