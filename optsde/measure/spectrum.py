"""Eigenvalues, trace and spectral density of a linear map known by its products.

A `Product` maps a tree to a tree of the same shapes, and is symmetric. All of it works
inside jit, under vmap, and with products that are summed over devices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from matfree.decomp import hessenberg

from optsde.analysis import Estimate
from optsde.checks import ABOVE_0, check_count, check_number
from optsde.types import PyTree

Product = Callable[[PyTree], PyTree]


class Eigenpairs(NamedTuple):
    values: jax.Array  # [count], the largest first
    vectors: PyTree  # leaves [count, ...], orthonormal
    residuals: jax.Array  # [count], |A u − λ u| in units of the largest |λ| of these
    products: jax.Array  # how many it took


def random_vectors(key: jax.Array, like: PyTree, count: int = 1) -> PyTree:
    """Returns vectors of length 1 to begin a search with, leaves [count, ...]."""
    flat, unravel = ravel_pytree(like)
    drawn = jax.random.normal(key, (count, flat.size), flat.dtype)
    return jax.vmap(unravel)(_unit(drawn))


def top_eigenvalues(
    product: Product,
    vectors: PyTree,
    key: jax.Array,
    *,
    tolerance: float = 1e-3,
    dimension: int = 16,
    restarts: int = 30,
) -> Eigenpairs:
    """The largest eigenvalues (the most positive ones), as many as there are vectors.

    One after the other, each orthogonal to those before it: Lanczos with full
    reorthogonalisation in `dimension` products, begun anew from the vector it found
    until the residual is below the tolerance, or `restarts` times. In the end the map
    is diagonalised within what was found. The residuals that are returned are computed
    there: they say whether the tolerance was met. A value is off by residual²/gap.
    vectors: where to begin, such as those of the last call, leaves [count, ...]. Some
    noise from `key` is added, for what has grown since in other directions.
    """
    check_number("tolerance", tolerance, "a positive number", ABOVE_0)
    check_count("dimension", dimension, least=2)
    check_count("restarts", restarts)
    starts = jax.vmap(lambda v: ravel_pytree(v)[0])(vectors)
    apply, unravel = _flat(product, jax.tree.map(lambda x: x[0], vectors))
    count, size = starts.shape
    if count > size:
        raise ValueError(f"{count} eigenvalues were asked for, and there are {size}")
    dimension = min(dimension, size)
    fresh = FRESH * _unit(jax.random.normal(key, starts.shape, starts.dtype))
    starts = _unit(starts) + fresh
    bound = tolerance / count**0.5

    def next_one(number, carry):
        found, largest, turns = carry

        def search(carry):
            turn, start, *_ = carry
            basis, matrix, out = _krylov(remaining, project(start), dimension)
            values, s = _eigh(matrix)
            scale = jnp.maximum(largest, jnp.abs(values[-1]))
            missed = jnp.linalg.norm(out * s[:, -1])
            again = missed > bound * scale  # not where they are NaN
            return turn + 1, s[:, -1] @ basis, scale, again

        def project(x):
            return x - (found @ x) @ found

        def remaining(x):
            """Returns A x without the part along the vectors found so far."""
            return project(apply(project(x)))

        def unmet(carry):
            turn, *_, again = carry
            return again & (turn < restarts)

        first = search((0, starts[number]))
        turn, vector, largest, _ = jax.lax.while_loop(unmet, search, first)
        return found.at[number].set(_unit(vector)), largest, turns + turn

    nothing = jnp.zeros_like(starts), jnp.zeros((), starts.dtype), 0
    found, _, turns = jax.lax.fori_loop(0, count, next_one, nothing)
    found = _orthogonal(found.T).T
    images = jax.lax.map(apply, found)
    inner = found @ images.T
    values, s = _eigh(0.5 * (inner + inner.T))
    values, s = values[::-1], s[:, ::-1]
    missed = jnp.linalg.norm(s.T @ images - values[:, None] * (s.T @ found), axis=1)
    scale = jnp.max(jnp.abs(values))
    return Eigenpairs(
        values=values,
        vectors=jax.vmap(unravel)(s.T @ found),
        residuals=missed / jnp.where(scale > 0, scale, 1),
        products=turns * dimension + count,
    )


def trace(
    product: Product, like: PyTree, key: jax.Array, samples: int = 64
) -> Estimate:
    """Estimates the trace as E zᵀAz with random signs z (Hutchinson 1990)."""
    check_count("samples", samples, least=2)
    apply, zeros = _flat_like(product, like)

    def once(key):
        z = jax.random.rademacher(key, zeros.shape, zeros.dtype)
        return z @ apply(z)

    return _estimate(jax.lax.map(once, jax.random.split(key, samples)))


class Density(NamedTuple):
    """A spectrum's distribution as Gauss quadratures, one of each random vector."""

    nodes: jax.Array  # [samples, dimension]
    weights: jax.Array  # [samples, dimension], of sum 1

    def smoothed(self, at: jax.Array, width: jax.Array | float) -> Estimate:
        """The density, of integral 1, seen through a Gaussian of that width."""
        away = jnp.asarray(at)[None, None] - self.nodes[..., None]
        return self.mean(jax.scipy.stats.norm.pdf(away, scale=width))

    def mean(self, values: jax.Array) -> Estimate:
        """Returns the mean of a function, given its values [samples, dimension, ...].

        Times the number of parameters it estimates tr f(A).
        """
        return _estimate(jnp.einsum("sd,sd...->s...", self.weights, values))


def spectral_density(
    product: Product,
    like: PyTree,
    key: jax.Array,
    samples: int = 16,
    dimension: int = 48,
) -> Density:
    """Estimates the density of eigenvalues by stochastic Lanczos quadrature.

    As Ghorbani et al. (2019) do.

    The errors are those of the random vectors. What the quadrature itself misses is
    below them where the density is smoothed over more than the distance of the nodes.
    """
    check_count("samples", samples)
    check_count("dimension", dimension, least=2)
    apply, zeros = _flat_like(product, like)
    dimension = min(dimension, zeros.size)

    def once(key):
        z = jax.random.rademacher(key, zeros.shape, zeros.dtype)
        _, matrix, _ = _krylov(apply, z, dimension)
        nodes, s = _eigh(matrix)
        return nodes, s[0] ** 2

    return Density(*jax.lax.map(once, jax.random.split(key, samples)))


FRESH = 0.1  # the noise in a warm start, against 1


def _krylov(apply, start: jax.Array, dimension: int):
    """Returns (orthonormal basis in rows, the map within it, lengths out of it).

    Where the map has few distinct eigenvalues the space closes early, and what Lanczos
    divides by is rounding noise or zero. There it is cut off: the rest of the basis is
    zero, and the rest of the matrix a diagonal far below every eigenvalue.
    """
    decompose: Any = hessenberg(dimension, reortho="full", custom_vjp=False)
    basis, matrix, rest, _ = decompose(apply, start)
    out = jnp.append(jnp.diagonal(matrix, -1), jnp.linalg.norm(rest))
    scale = jnp.nanmax(jnp.abs(matrix))
    goes_on = out > 100 * jnp.finfo(out.dtype).eps * scale
    kept = jnp.cumprod(jnp.append(True, goes_on[:-1])) > 0
    both = kept[:, None] & kept[None, :]
    below = jnp.diag(jnp.where(kept, 0, -4 * scale - 1))
    matrix = jnp.where(both, 0.5 * (matrix + matrix.T), 0) + below
    last = kept & ~jnp.append(kept[1:], False)
    return jnp.where(kept[:, None], basis, 0), matrix, jnp.where(last, out, 0)


def _flat(product: Product, like: PyTree):
    """The product on flat vectors, and the way back to trees."""
    _, unravel = ravel_pytree(like)
    return lambda x: ravel_pytree(product(unravel(x)))[0], unravel


def _flat_like(product: Product, like: PyTree):
    """The product on flat vectors, and the zero among them."""
    apply, _ = _flat(product, like)
    return apply, jnp.zeros_like(ravel_pytree(like)[0])


def _estimate(each: Any) -> Estimate:
    """Returns `analysis.estimate` of samples along the first axis, inside jit."""
    count = each.shape[0]
    spread = each.std(axis=0, ddof=1)
    return Estimate(each.mean(axis=0), spread / count**0.5, count - 1)


def _one_by_one(function: Callable) -> Callable:
    """Maps a function of matrices one by one where it is vmapped on CPUs.

    With jax 0.10 two CPU devices that each decompose a dozen at once inside a loop wait
    for each other for ever.
    """

    def run(matrix):
        if jax.default_backend() == "cpu":
            return jax.custom_batching.sequential_vmap(function)(matrix)
        return function(matrix)

    return run


_eigh = _one_by_one(lambda matrix: tuple(jnp.linalg.eigh(matrix)))
_orthogonal = _one_by_one(lambda matrix: jnp.linalg.qr(matrix)[0])


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
