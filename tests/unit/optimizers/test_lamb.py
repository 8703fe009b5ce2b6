"""LAMB's updates against optax, and what its rule keeps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optsde

START = {"w": np.linspace(-1, 1, 6).reshape(2, 3), "b": np.array([0.3, 0.0])}
DEAD = {"dead": np.zeros(2)}


def gradient(params, k):
    def of(x):
        return 0.7 * x + jnp.cos(0.7 * k + np.arange(x.size).reshape(x.shape))

    return jax.tree.map(of, params)


def run(transform, params, gradient=gradient, steps=100):
    params = jax.tree.map(jnp.asarray, params)

    def step(carry, k):
        params, state = carry
        updates, state = transform.update(gradient(params, k), state, params)
        return (jax.tree.map(jnp.add, params, updates), state), params

    start = params, transform.init(params)
    return jax.lax.scan(step, start, jnp.arange(steps))[0][0]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_equals_optax(decay):
    """And where a parameter begins at 0, whose norm counts as ‖u‖ then."""
    ours = optsde.LAMB(lr=0.01, b2=0.99, eps=1e-3, inner_decay=decay)
    theirs = optax.lamb(0.01, b2=0.99, eps=1e-3, weight_decay=decay)
    one, two = (run(t, START | DEAD) for t in (ours.transform(), theirs))
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6, rtol=0)


@pytest.mark.usefixtures("x64")
def test_rule_of_the_inner_decay():
    """One step from a state at κ = 4, with v and the gradient's size that of κ times
    the batch: of κ times the length, in the same direction; not with ρ as it was."""
    old = optsde.LAMB(lr=0.01, b1=0.9, b2=0.9, eps=1e-3, inner_decay=0.5)
    params = jnp.asarray(START["w"])
    state = (
        old.direction()
        .init(params)
        ._replace(m=0.3 + params, v=1 + params**2, m_weight=1.0, v_weight=1.0)
    )

    def flow(optimizer, state, variance):
        mean = jnp.zeros_like(params)
        return optimizer.sde().drift(0.0, params, state, mean, variance)[0]

    new = old.rescaled(4)
    moved = old.rescale_state(state, 4, new)
    one = flow(old, state, params**2)
    np.testing.assert_allclose(flow(new, moved, params**2 / 4), 4 * one, rtol=1e-12)
    assert new.inner_decay == 1.0
    kept = dataclasses.replace(new, inner_decay=old.inner_decay)
    other = flow(kept, moved, params**2 / 4)
    assert not np.allclose(other, 4 * one, rtol=1e-2)


def test_a_step_is_as_long_as_the_parameter():
    transform = optsde.LAMB(lr=0.01).transform()
    params = jax.tree.map(jnp.asarray, START)
    updates, _ = transform.update(gradient(params, 0), transform.init(params), params)
    for update, x in zip(*map(jax.tree.leaves, (updates, START)), strict=True):
        np.testing.assert_allclose(
            jnp.linalg.norm(update), 0.01 * np.linalg.norm(x), rtol=1e-5
        )
