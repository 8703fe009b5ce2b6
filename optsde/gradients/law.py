"""Laws: what an SDE asks of the gradient at a point, with noise from any source.

A law turns a standard Brownian increment dW into the noise Σ^{1/2} dW of one base-batch
gradient, beside its mean and the diagonal of Σ. What drives it may have jumps besides.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from optsde.checks import check_count, check_function, check_rows
from optsde.gradients.covariance import Covariance, check_stable, stable
from optsde.gradients.draw import draw_like
from optsde.gradients.interaction import interaction_check
from optsde.gradients.oracle import FunctionOracle, Losses, Oracle, Sampler
from optsde.gradients.per_example import SumsOf, by_blocks
from optsde.types import PyTree


class Moments(NamedTuple):
    """The moments of a gradient that an SDE needs, with the noise of one batch."""

    loss: jax.Array
    mean: PyTree  # ∇f
    variance: PyTree  # diag Σ
    kick: PyTree  # Σ^{1/2} dW


def brownian(key: jax.Array, like: PyTree, h: float) -> PyTree:
    """Returns standard Brownian increments over a time h, of shapes like `like`."""
    return optax.tree.scale(math.sqrt(h), draw_like(key, like, jax.random.normal))


class Law(NamedTuple):
    """A gradient's noise law: `shape(params)` of dW, and `moments(params, dW)`.

    `increment(key, shape, h)` draws dW over a time h, Brownian unless said otherwise.
    `jumps` tells that it is not, and that the noise has no variance.
    """

    shape: Callable[[PyTree], PyTree]
    moments: Callable[[PyTree, PyTree], Moments]
    increment: Callable[[jax.Array, PyTree, float], PyTree] = brownian
    jumps: bool = False


def from_covariance(
    loss: Callable[[PyTree], jax.Array], covariance: Covariance, batch_size: int = 1
) -> Law:
    """Noise of known covariance Σ(params)/batch_size."""
    check_count("batch_size", batch_size)
    check_function("loss", loss, "params -> loss")
    if not isinstance(covariance, Covariance):
        raise ValueError(
            f"covariance is a {type(covariance).__name__}: needs a Covariance, such as "
            "gradients.diagonal(std) or gradients.dense(factor)"
        )

    def shape(params):
        return jax.tree.map(_struct, params)

    def moments(params, dw):
        value, mean = jax.value_and_grad(loss)(params)
        variance = jax.tree.map(lambda v: v / batch_size, covariance.variance(params))
        spread = covariance.spread(params, dw)
        kick = jax.tree.map(lambda s: s / math.sqrt(batch_size), spread)
        return Moments(value, mean, variance, kick)

    return Law(shape, moments)


def from_data(
    losses: Losses, data: PyTree, batch_size: int, sums: SumsOf | None = None
) -> Law:
    """The exact covariance of a batch of independent draws from n examples.

    Σ^{1/2} dW = Σ_i dW_i (g_i − ḡ)/√(n·batch_size) with one Brownian motion for each
    example: the gradient of a randomly weighted full-batch loss. It costs about one
    full-batch gradient, and Σ is never formed. `sums` says how to add up over examples
    (default `by_blocks`; `by_layers` is faster, for Linen modules). Losses of
    examples that interact, as through BatchNorm, are refused (`interaction_check`), and
    so are those with dropout, whose masks are a second source of noise.
    """
    check_count("batch_size", batch_size)
    size = check_rows("data", data)
    if getattr(losses, "takes_key", False):
        raise ValueError(
            "this law is of examples alone, and would leave the noise of dropout out: "
            "set its rate to 0 for an SDE"
        )
    check = interaction_check(losses, data)
    sums = sums or by_blocks(losses, data)

    def shape(params):
        dtype = jnp.result_type(*jax.tree.leaves(params))
        return jax.ShapeDtypeStruct((size,), dtype)

    def moments(params, dw):
        check(params)
        total = sums(params, dw)
        mean = jax.tree.map(lambda g: g / size, total.grad)
        drawn = jnp.sum(dw)
        kick = jax.tree.map(
            lambda w, g: (w - drawn * g) / math.sqrt(size * batch_size),
            total.weighted,
            mean,
        )
        variance = jax.tree.map(
            lambda q, g: jnp.maximum(q / size - g * g, 0) / batch_size,
            total.square,
            mean,
        )
        return Moments(total.loss / size, mean, variance, kick)

    return Law(shape, moments)


class Driven(NamedTuple):
    """Increments that drive a law with stable noise; over longer times they add up."""

    own: PyTree  # of the law without it
    jump: PyTree  # dL, like the parameters
    square: PyTree  # dL²
    time: jax.Array


def heavy_tailed_law(law: Law, alpha: float, size: float) -> Law:
    """Returns the law of `heavy_tailed(oracle, alpha, size)`: stable noise is added.

    The noise is Σ^{1/2} dW + size·dL, with a symmetric α-stable Lévy motion L in each
    coordinate: over a time h it moves by h^{1/α} stable numbers of scale 1. It jumps
    and has no variance, and `moments` give diag Σ + size² dL²/h in its place, what v of
    Adam adds up: over many steps that is Σ and the squares of the jumps.

    The limit κ → 0 has it where gradients of κ times the batch have κ^{1/α − 1} times
    the size, as means of stable numbers have.
    """
    check_stable(alpha, size)

    def shape(params):
        return law.shape(params), jax.tree.map(_struct, params)

    def increment(key, like, h):
        first, second = jax.random.split(key)
        own, params = like

        def sample(key, shape, dtype):
            return h ** (1 / alpha) * stable(key, alpha, shape, dtype)

        jump = draw_like(second, params, sample)
        square = jax.tree.map(jnp.square, jump)
        return Driven(law.increment(first, own, h), jump, square, jnp.asarray(h))

    def moments(params, dw: Driven):
        loss, mean, variance, kick = law.moments(params, dw.own)
        kick = jax.tree.map(lambda k, j: k + size * j, kick, dw.jump)
        variance = jax.tree.map(
            lambda v, q: v + size**2 * q / dw.time.astype(q.dtype), variance, dw.square
        )
        return Moments(loss, mean, variance, kick)

    return Law(shape, moments, increment, jumps=True)


def _struct(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def drawn_from(law_of: Callable[[int], Law]) -> Sampler:
    """Returns a sampler of ∇f + Σ^{1/2} z, z ~ N(0, I), with the covariance of a law.

    Beside the batches themselves it tells what the shape of their noise does. A
    gradient costs what one of the SDE does. Noise with jumps is that of a unit of time.

    Args:
      law_of: batch size -> law, such as `task.law`.

        >>> from optsde.gradients import Draw, diagonal
        >>> noise = diagonal(jnp.zeros_like)
        >>> law_of = lambda size: from_covariance(lambda x: x**2 / 2, noise, size)
        >>> draw = Draw(jax.random.key(0), 0)
        >>> loss, grad = drawn_from(law_of)(8)(jnp.array(3.0), draw)
        >>> float(loss), float(grad)
        (4.5, 3.0)
    """

    def sampler(batch_size: int) -> Oracle:
        law = law_of(batch_size)

        def noisy(source, params, draw):
            z = law.increment(draw.fresh(), law.shape(params), 1.0)
            loss, mean, _, kick = law.moments(params, z)
            return loss, jax.tree.map(jnp.add, mean, kick)

        return FunctionOracle(noisy)

    return sampler
