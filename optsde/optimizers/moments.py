"""Pieces that the adaptive families share: preconditioning, moments, bias correction.

A bias correction 1 − β^k is the same average, taken of the constant 1. Kept as such a
`weight`, it needs no step count, survives a change of β in mid-run, and has the obvious
limit dγ = (1 − β)(1 − γ) dt.
"""

import jax
import jax.numpy as jnp
import numpy as np

from optsde.types import PyTree, Scalar


def denominator(v: PyTree, eps: Scalar, eps_root: Scalar) -> PyTree:
    """Returns √(v + eps_root) + eps."""
    return jax.tree.map(lambda v: jnp.sqrt(v + eps_root) + eps, v)


def precondition(m: PyTree, v: PyTree, eps: Scalar, eps_root: Scalar) -> PyTree:
    """Returns m / (√(v + eps_root) + eps)."""
    return jax.tree.map(jnp.divide, m, denominator(v, eps, eps_root))


def standardized(x: jax.Array, variance: jax.Array) -> jax.Array:
    """Returns x / √variance, and 0 where x is 0: some coordinates have neither."""
    return jnp.where(x == 0, 0, x / jnp.sqrt(jnp.where(x == 0, 1, variance)))


GUARD = 1e-3
"""An ε below this, as the usual 1e-8, guards a division and says nothing of scale."""


def refuse_empty_start(
    name: str, start: Scalar, eps: Scalar, eps_root: Scalar, remedy: str
) -> None:
    """Refuses the start of an SDE at P = √(start + eps_root) + eps of nearly zero.

    Where v grows as t from nothing, the noise lr² ∫ Σ/v dt diverges at t = 0 as ∫ dt/t,
    and a small ε only sets where it is cut off. A start above 0 is taken for a scale of
    the gradients, and so is √eps_root + eps from `GUARD` on.
    """
    given = start, eps, eps_root
    if any(isinstance(x, jax.core.Tracer) for x in given):
        return
    s, outside, inside = (np.asarray(x, np.float64) for x in given)
    if np.any((s == 0) & (np.sqrt(inside) + outside < GUARD)):
        raise ValueError(
            f"{name}={start}: the SDE would divide by eps={eps} at its start, and its "
            f"noise grows without bound as eps → 0: {remedy}"
        )


def filled(like: PyTree, value: Scalar) -> PyTree:
    """Returns a tree of the same shapes and dtypes with one value everywhere."""
    return jax.tree.map(lambda x: jnp.full_like(x, value), like)


def square(tree: PyTree) -> PyTree:
    """Returns the squares of all entries."""
    return jax.tree.map(jnp.square, tree)


def second_moment(mean: PyTree, variance: PyTree, keep_signal: bool) -> PyTree:
    """Returns E g² of the SDE: diag Σ, and with `keep_signal` diag Σ + (∇f)².

    The first is that of Malladi et al. (2022). The second is that of Compagnoni et al.
    (2024, arXiv 2411.15958), who integrate such SDEs on networks. The effective
    equations of Callisti, Romito and Triggiano (2025, arXiv 2509.21614) have Brownian
    noise in v besides, of an order that is left out here.
    """
    if not keep_signal:
        return variance
    return jax.tree.map(lambda g, s: s + g * g, mean, variance)


def debias(average: PyTree, weight: jax.Array) -> PyTree:
    """Returns an average that started from zero, divided by its weight."""
    scale = 1 / weight  # one division, instead of one for each parameter
    return jax.tree.map(lambda a: (a * scale).astype(a.dtype), average)


def debias_or(average: PyTree, weight: jax.Array, at_start: PyTree) -> PyTree:
    """Returns the debiased average, and its limit at t = 0 where the weight is 0."""
    safe = jnp.where(weight > 0, weight, 1)
    return jax.tree.map(
        lambda a, s: jnp.where(weight > 0, a / safe, s).astype(a.dtype),
        average,
        at_start,
    )
