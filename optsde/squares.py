"""A gradient with the squares of its micro-batches', for who divides by these."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from optsde.types import PyTree, Scalar


class Squares(NamedTuple):
    """A step's gradient, and the first two moments of its micro-batches' gradients.

    Every micro-batch counts alike in `mean` and `square`. `grad` is their mean too, but
    under SVAG, where it is the signed mix of two draws.
    """

    grad: PyTree
    mean: PyTree
    square: PyTree


def step_gradient(grads: PyTree) -> PyTree:
    """Returns the gradient that a step goes by, with or without squares."""
    return grads.grad if isinstance(grads, Squares) else grads


def shifted(grads: PyTree, by: PyTree) -> PyTree:
    """Returns the gradient plus what is added to that of each micro-batch.

    E (g + c)² = E g² + 2 c E g + c², which rounding must not take below (E g + c)².
    """
    if not isinstance(grads, Squares):
        return jax.tree.map(jnp.add, grads, by)
    mean = shifted(grads.mean, by)
    square = jax.tree.map(
        lambda q, g, c, m: jnp.maximum(q + 2 * c * g + c * c, m * m),
        grads.square,
        grads.mean,
        by,
        mean,
    )
    return Squares(shifted(grads.grad, by), mean, square)


def clipped(grads: PyTree, norm: jax.Array, largest: Scalar) -> PyTree:
    """Returns the gradient of this global norm with one of at most `largest`.

    It is `optax.clip_by_global_norm`; squares shrink by the square of the same factor.
    """
    below = norm < largest

    def clip(x):
        return jax.lax.select(below, x, (x / norm.astype(x.dtype)) * largest)

    grad = jax.tree.map(clip, step_gradient(grads))
    if not isinstance(grads, Squares):
        return grad
    factor = jnp.where(below, 1, largest / norm)

    def scaled(tree, by):
        return jax.tree.map(lambda x: (by * x).astype(x.dtype), tree)

    return Squares(grad, scaled(grads.mean, factor), scaled(grads.square, factor**2))


def each(function: Callable[[PyTree], PyTree], grads: PyTree) -> PyTree:
    """Returns the function of the gradient, or of each moment that there is."""
    if not isinstance(grads, Squares):
        return function(grads)
    return Squares(*(function(x) if jax.tree.leaves(x) else x for x in grads))


def mixed(first: float, one: PyTree, second: float, other: PyTree) -> PyTree:
    """Returns first·one + second·other; the moments count both draws alike."""
    if not isinstance(one, Squares):
        return jax.tree.map(lambda a, b: first * a + second * b, one, other)
    return Squares(
        mixed(first, one.grad, second, other.grad),
        mixed(0.5, one.mean, 0.5, other.mean),
        mixed(0.5, one.square, 0.5, other.square),
    )
