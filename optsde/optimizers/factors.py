"""Factors L = E GGᵀ and R = E GᵀG of a parameter's gradient G, their roots and bases.

Kronecker's product of L and R stands for the covariance of all entries of a matrix, in
Shampoo and SOAP. Parameters are matrices as `as_matrix` has them. Factors are kept in
float32 where parameters have fewer digits.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optsde.optimizers.decompositions import eigh
from optsde.optimizers.orthogonal import as_matrix
from optsde.types import PyTree, Scalar


class Factors(NamedTuple):
    """L and R of each parameter."""

    left: PyTree  # of each parameter [inputs, inputs], float32 or more
    right: PyTree  # of each parameter [outputs, outputs], float32 or more


def squares(grads: PyTree) -> Factors:
    """Returns GGᵀ and GᵀG of each parameter's gradient."""
    matrices = jax.tree.map(wide_matrix, grads)
    return Factors(
        jax.tree.map(lambda g: g @ g.T, matrices),
        jax.tree.map(lambda g: g.T @ g, matrices),
    )


def of_signal(mean: PyTree, keep_signal: bool) -> Factors:
    """Returns what the mean gradient has in E GGᵀ and E GᵀG, 0 unless it is kept."""
    found = squares(mean)
    return found if keep_signal else optax.tree.zeros_like(found)


def independent(variance: PyTree) -> Factors:
    """Returns E GGᵀ and E GᵀG of entries with these variances, if independent.

    Of the true ones, the diagonals are these.
    """
    matrices = jax.tree.map(wide_matrix, variance)
    return Factors(
        jax.tree.map(lambda v: jnp.diag(jnp.sum(v, axis=1)), matrices),
        jax.tree.map(lambda v: jnp.diag(jnp.sum(v, axis=0)), matrices),
    )


def wide_matrix(x: jax.Array) -> jax.Array:
    """Returns a parameter as a matrix, of float32 at least."""
    return as_matrix(x).astype(jnp.promote_types(x.dtype, jnp.float32))


def inverse_root(a: jax.Array, order: int, eps: Scalar) -> jax.Array:
    """Returns (A + eps)^(−1/order) of a symmetric matrix A ≥ 0, through eigenvectors.

    An eigenvalue below the rounding of the largest counts as that much: its own digits
    say nothing, and may be below zero. Of A = 0 and eps = 0 it is 0.

    >>> print(inverse_root(jnp.diag(jnp.array([16.0, 1.0])), order=4, eps=0.0))
    [[0.5 0. ]
     [0.  1. ]]
    """
    values, vectors = eigh(a)
    least = jnp.finfo(a.dtype).eps * values[-1]
    values = jnp.maximum(jnp.maximum(values, least), 0) + eps
    some = values > 0
    roots = jnp.where(some, jnp.where(some, values, 1) ** (-1 / order), 0)
    return ((vectors * roots[None, :]) @ vectors.T).astype(a.dtype)


def eigenbasis(a: jax.Array) -> jax.Array:
    """Returns the eigenvectors of a symmetric matrix as columns, by rising eigenvalue.

    >>> print(abs(eigenbasis(jnp.diag(jnp.array([3.0, 1.0])))))
    [[0. 1.]
     [1. 0.]]
    """
    return eigh(a)[1]


def check_one_share(signal: PyTree) -> None:
    """Refuses other shares of the mean gradient than one number of all the factors."""
    if not jax.tree_util.all_leaves([signal]) or np.ndim(signal):
        raise ValueError(
            "signal is a share for each parameter or entry, and the factors L and R "
            "have one of their own: give one number"
        )
