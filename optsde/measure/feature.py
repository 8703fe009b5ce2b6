"""Features that a network has learnt: the average gradient outer product of its inputs.

G = (1/n) Σ_i Σ_k ∇f_k(x_i) ∇f_k(x_i)ᵀ over examples i and outputs k: its top directions
are those in which the outputs change most (Radhakrishnan et al. 2024).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from optsde.checks import check_count
from optsde.gradients.groups import mean_over
from optsde.types import PyTree

Apply = Callable[[PyTree, jax.Array], jax.Array]  # (params, x [n, …]) -> [n, c]


def agop(apply: Apply, params: PyTree, x: jax.Array, block: int = 256) -> jax.Array:
    """Returns the average gradient outer product [d, d] of inputs of d numbers.

    Its memory is that of `block` examples' gradients."""

    check_count("block", block)

    def gradients(example):
        rows = jax.jacrev(lambda one: apply(params, one[None])[0])(example)
        return rows.reshape(rows.shape[0], -1)

    def of_block(examples, counted):
        slopes = jax.vmap(gradients)(examples)  # [rows, c, d]
        share = jnp.ones(slopes.shape[0], slopes.dtype) if counted is None else counted
        weight = share.astype(slopes.dtype) / jnp.sum(share).astype(slopes.dtype)
        return jnp.einsum("ikd,ike,i->de", slopes, slopes, weight)

    return mean_over(of_block, x, block)


def alignment(a: jax.Array, b: jax.Array) -> jax.Array:
    """The cosine ⟨a, b⟩/(|a| |b|) of two matrices: 1 where they agree up to scale."""
    return jnp.sum(a * b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
