"""Pieces that the adaptive families share: preconditioning, moments, bias correction.

A bias correction 1 − β^k is the same average, taken of the constant 1. Kept as such a
`weight`, it needs no step count, survives a change of β in mid-run, and has the obvious
limit dγ = (1 − β)(1 − γ) dt.
"""

import jax
import jax.numpy as jnp

from optsde.types import PyTree, Scalar


def denominator(v: PyTree, eps: Scalar, eps_root: Scalar) -> PyTree:
    """√(v + eps_root) + eps."""
    return jax.tree.map(lambda v: jnp.sqrt(v + eps_root) + eps, v)


def precondition(m: PyTree, v: PyTree, eps: Scalar, eps_root: Scalar) -> PyTree:
    """m / (√(v + eps_root) + eps)."""
    return jax.tree.map(jnp.divide, m, denominator(v, eps, eps_root))


def standardized(x: jax.Array, variance: jax.Array) -> jax.Array:
    """x / √variance, and 0 where x is 0: some coordinates have neither."""
    return jnp.where(x == 0, 0, x / jnp.sqrt(jnp.where(x == 0, 1, variance)))


def filled(like: PyTree, value: Scalar) -> PyTree:
    """A tree of that shape and dtype with one value everywhere."""
    return jax.tree.map(lambda x: jnp.full_like(x, value), like)


def square(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.square, tree)


def second_moment(mean: PyTree, variance: PyTree, keep_signal: bool) -> PyTree:
    """E g² as the SDE sees it: diag Σ, and with `keep_signal` diag Σ + (∇f)²."""
    if not keep_signal:
        return variance
    return jax.tree.map(lambda g, s: s + g * g, mean, variance)


def debias(average: PyTree, weight: jax.Array) -> PyTree:
    """An average that started from zero, divided by the weight it has gathered."""
    scale = 1 / weight  # one division, instead of one for each parameter
    return jax.tree.map(lambda a: (a * scale).astype(a.dtype), average)


def debias_or(average: PyTree, weight: jax.Array, at_start: PyTree) -> PyTree:
    """The same, with its limit at t = 0 where no weight has been gathered yet."""
    safe = jnp.where(weight > 0, weight, 1)
    return jax.tree.map(
        lambda a, s: jnp.where(weight > 0, a / safe, s).astype(a.dtype),
        average,
        at_start,
    )
