"""Sophia's step, a clipped average over a curvature, with the curvature known.

θ ← θ − lr·clip(m/(γ h), 1) on ½hθ² (Liu et al. 2023): the part of Sophia that the
batch's noise reaches. Its estimates of h need more than gradients, and are left out.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optsde

BASE, NOISE, H, TIME = optsde.Momentum(lr=0.02, beta=0.97), 16.0, 1.0, 128


def moments(optimizer, kappa, size=20_000):
    """(E x, E x²) at the end of the base run, their standard errors, and how many of
    the last steps were clipped."""
    direction, noise = optimizer.direction(), NOISE / kappa**0.5
    x = jnp.full(size, 1.5)

    def step(carry, key):
        x, state = carry
        g = H * x + noise * jax.random.normal(key, (size,))
        m, state = direction.update(g, state)
        clipped = jnp.abs(m) > H
        return (x - optimizer.lr * jnp.clip(m / H, -1, 1), state), jnp.mean(clipped)

    keys = jax.random.split(jax.random.key(0), round(TIME / kappa))
    run = jax.jit(lambda c: jax.lax.scan(step, c, keys))
    (x, _), clipped = run((x, direction.init(x)))
    both = np.stack([x, x**2]).astype(np.float64)
    return both.mean(1), both.std(1) / size**0.5, float(clipped[-1])


@pytest.mark.full
def test_the_rule_is_linear_with_the_memory_in_samples():
    """κ = 4. By lr·κ, 1−β → κ(1−β) the moments stay within 4 s.e. and .02, and as many
    steps are clipped within 3 points; lr·√κ is off by 10 s.e. more, and β left alone
    clips 20 points fewer."""
    base, base_se, clipped = moments(BASE, 1)

    def compare(optimizer):
        found, se, share = moments(optimizer, 4)
        se = np.hypot(se, base_se)
        return np.abs(found - base), se, share - clipped

    rule = BASE.rescaled(4)
    error, se, share = compare(rule)
    assert np.all(error < 4 * se + 0.02)
    assert abs(share) < 0.03
    error, se, _ = compare(dataclasses.replace(rule, lr=2 * BASE.lr))
    assert np.any(error > 14 * se + 0.02)
    assert compare(dataclasses.replace(rule, beta=BASE.beta))[2] < -0.2
