"""Decompositions of matrices that never wait for each other where seeds are stacked.

On CPUs XLA's batched LAPACK calls hand parts of their batch to the threads that run the
program, and wait for them. Two such calls at once may take all threads, and then wait
for ever (seen with jax 0.10 on two cores). So on CPUs each matrix is one call of its
own; other devices take the batch.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp


def one_by_one(decompose: Callable[[jax.Array], tuple]) -> Callable:
    """Returns the function of one matrix, for `jax.vmap` over many."""

    @jax.custom_batching.custom_vmap
    def single(a: jax.Array) -> tuple:
        return tuple(decompose(a))

    @single.def_vmap
    def stacked(size, batched, a):
        found = jax.lax.platform_dependent(
            a, cpu=partial(jax.lax.map, single), default=lambda a: tuple(decompose(a))
        )
        return found, (True,) * len(found)

    return single


eigh = one_by_one(jnp.linalg.eigh)
"""Returns eigenvalues, rising, and eigenvectors, as columns, of a symmetric matrix.

>>> values, vectors = jax.vmap(eigh)(jnp.diag(jnp.array([3.0, 1.0]))[None])
>>> print(values, abs(vectors[0, :, 0]))
[[1. 3.]] [0. 1.]
"""

svd = one_by_one(partial(jnp.linalg.svd, full_matrices=False))
"""Returns U, the singular values, falling, and Vᵀ of a matrix, no larger than it is."""
