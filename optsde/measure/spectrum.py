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

    Lanczos with full reorthogonalisation from the sum of the vectors, `dimension`
    products at a time, until the residuals are below the tolerance, or `restarts` times
    for each eigenvalue. It holds dimension + 3·(count − 1) vectors, and when these are
    full goes on from the best of them (thick restarts, Wu and Simon 2000). One start
    finds one vector of each eigenvalue; so, where several are asked for, a random
    direction joins in when they are found (a band, Ruhe 1979), and they must outlast
    half as many products again. The residuals that are returned say whether the
    tolerance was met. A value is off by residual²/gap. Where eigenvalues lie closer
    than the tolerance, it may be the second that is found: of the spectrum 1, 2, …, 300
    in 13 of 2,000 searches.
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
    room, kept = min(dimension + 3 * (count - 1), size), max(2 * count - 1, 3)

    def noise(number):
        fresh = jax.random.fold_in(key, number)
        return _unit(jax.random.normal(fresh, (size,), starts.dtype))

    def grow(number, band):
        return band.grown(apply, noise(number))

    def search(carry):
        turn, products, band, joined, met = carry
        full = band.done == room
        band = jax.lax.cond(full, lambda b: b.restarted(kept), _same, band)
        joins = met & ~joined
        band = jax.lax.cond(joins, lambda b: b.joined(noise(-turn)), _same, band)
        steps = jnp.where(joins, -(-dimension // 2), dimension)
        steps = jnp.minimum(steps, room - band.done)
        band = jax.lax.fori_loop(products, products + steps, grow, band)
        _, _, residuals = band.pairs(count)
        met = (band.done >= count) & jnp.all(residuals <= tolerance)
        return turn + 1, products + steps, band, joined | joins, met

    def goes_on(carry):
        turn, _, band, joined, met = carry
        sure = met & (joined | (count == 1) | (band.done == size))
        finite = jnp.isfinite(band.matrix).all()
        return ~sure & finite & (turn < restarts * count)

    start = jnp.sum(_unit(starts), axis=0)
    band = _Band.beginning(_unit(start) + FRESH * noise(2**30), room)
    first = search((0, 0, band, jnp.array(False), jnp.array(False)))
    _, products, band, *_ = jax.lax.while_loop(goes_on, search, first)
    values, s, residuals = band.pairs(count)
    found = jax.vmap(unravel)(s @ band.vectors)
    return Eigenpairs(values, found, residuals, products)


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


class _Band(NamedTuple):
    """A space that products of a map span, and the map within it, as it grows.

    The images of the first `done` vectors lie in the span of the first `filled`.
    """

    vectors: jax.Array  # [room + 2, size], orthonormal, then zero
    matrix: jax.Array  # [room + 2, room + 2], of the map; its columns that are done
    done: jax.Array
    filled: jax.Array

    @classmethod
    def beginning(cls, start: jax.Array, room: int) -> "_Band":
        """Returns the band of one vector, with room for so many that are done."""
        vectors = jnp.zeros((room + 2, start.size), start.dtype)
        matrix = jnp.zeros((room + 2, room + 2), start.dtype)
        zero = jnp.int32(0)
        return cls(vectors.at[0].set(_unit(start)), matrix, zero, zero + 1)

    def joined(self, vector: jax.Array) -> "_Band":
        """Adds a vector's part outside; nothing where the space is whole."""
        away, _ = self._outside(vector)
        length = jnp.linalg.norm(away)
        lost = length <= _rounding(vector.dtype) * jnp.linalg.norm(vector)
        away = jnp.where(lost, 0, away / length)
        vectors = self.vectors.at[self.filled].set(away)
        return self._replace(vectors=vectors, filled=self.filled + ~lost)

    def grown(self, apply: Callable, noise: jax.Array) -> "_Band":
        """Takes the product with the next vector; noise goes on where it stays inside.

        There Lanczos would divide by rounding noise or zero.
        """
        image = apply(self.vectors[self.done])
        away, inside = self._outside(image)
        length = jnp.linalg.norm(away)
        matrix = self.matrix.at[:, self.done].set(inside)
        scale = jnp.max(jnp.abs(matrix))
        closed = length <= _rounding(image.dtype) * scale
        matrix = matrix.at[self.filled, self.done].set(jnp.where(closed, 0, length))
        band = self._replace(matrix=matrix, done=self.done + 1)
        alone = band.filled == band.done
        return jax.lax.cond(
            closed,
            lambda b: jax.lax.cond(alone, lambda c: c.joined(noise), _same, b),
            lambda b: b._replace(
                vectors=b.vectors.at[b.filled].set(away / length), filled=b.filled + 1
            ),
            band,
        )

    def pairs(self, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns the largest eigenvalues within, what mixes the vectors, residuals."""
        values, s = self._ritz()
        values, s = values[::-1][:count], s[:, ::-1][:, :count]
        outside = jnp.arange(len(s)) >= self.done
        missed = jnp.linalg.norm((self.matrix @ s) * outside[:, None], axis=0)
        scale = jnp.max(jnp.abs(values))
        return values, s.T, missed / jnp.where(scale > 0, scale, 1)

    def restarted(self, most: int) -> "_Band":
        """Returns the band of its best vectors, with what waited for its product."""
        values, s = self._ritz()
        kept = min(most, len(s) - 3)
        best = s[:, ::-1][:, :kept]
        waiting = jnp.stack([self._at(self.done), self._at(self.done + 1)])
        number = jnp.minimum(self.filled - self.done, 2)
        vectors = jnp.zeros_like(self.vectors)
        vectors = vectors.at[:kept].set(best.T @ self.vectors)
        vectors = vectors.at[kept : kept + 2].set(waiting)
        coupling = jax.lax.dynamic_slice_in_dim(self.matrix @ best, self.done, 2)
        matrix = jnp.zeros_like(self.matrix)
        matrix = matrix.at[:kept, :kept].set(jnp.diag(values[::-1][:kept]))
        matrix = matrix.at[kept : kept + 2, :kept].set(coupling)
        return _Band(vectors, matrix, jnp.int32(kept), kept + number)

    def _ritz(self) -> tuple[jax.Array, jax.Array]:
        """Returns the eigenpairs within the vectors that are done, rising.

        What is not done yet counts as a diagonal far below every eigenvalue.
        """
        done = jnp.arange(len(self.matrix)) < self.done
        inner = jnp.where(done[:, None] & done[None], self.matrix, 0)
        below = -4 * jnp.max(jnp.abs(inner)) - 1
        values, s = _eigh(0.5 * (inner + inner.T) + jnp.diag(jnp.where(done, 0, below)))
        return values, jnp.where(done[:, None], s, 0)

    def _outside(self, vector: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns a vector without its part in the space, and that part's coordinates.

        Taken away twice, since once leaves rounding.
        """
        first = self.vectors @ vector
        vector = vector - first @ self.vectors
        second = self.vectors @ vector
        return vector - second @ self.vectors, first + second

    def _at(self, number: jax.Array) -> jax.Array:
        return jax.lax.dynamic_index_in_dim(self.vectors, number, keepdims=False)


def _same(band: _Band) -> _Band:
    return band


def _rounding(dtype: Any) -> float:
    return 100 * float(jnp.finfo(dtype).eps)


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


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
