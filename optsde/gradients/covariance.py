"""Known gradient noise, not drawn from data: Gaussian, of any law, heavy-tailed."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from optsde.checks import check_number
from optsde.gradients.draw import Use, draw_like
from optsde.gradients.oracle import FunctionOracle, Oracle, Sampler
from optsde.types import PyTree


class Covariance(NamedTuple):
    """Σ(params) of one example's gradient, by what is needed of it.

    `spread(params, z)` is Σ^{1/2} z for z like the parameters; `variance` is diag Σ.
    """

    spread: Callable[[PyTree, PyTree], PyTree]
    variance: Callable[[PyTree], PyTree]


def diagonal(std: Callable[[PyTree], PyTree]) -> Covariance:
    """Returns a diagonal Σ with the standard deviations `std(params)`."""
    return Covariance(
        spread=lambda params, z: jax.tree.map(jnp.multiply, std(params), z),
        variance=lambda params: jax.tree.map(jnp.square, std(params)),
    )


def dense(factor: Callable[[jax.Array], jax.Array]) -> Covariance:
    """Returns Σ = L Lᵀ with L = `factor(params)`, where params is one flat array."""
    return Covariance(
        spread=lambda params, z: factor(params) @ z,
        variance=lambda params: jnp.sum(factor(params) ** 2, axis=1),
    )


def gaussian(
    loss: Callable[[PyTree], jax.Array],
    covariance: Covariance,
    sample: Callable[..., jax.Array] = jax.random.normal,
) -> Sampler:
    """Returns a sampler of ∇loss + Σ^{1/2} z/√batch_size with z ~ N(0, I).

    Args:
      loss: the mean loss, a function of the parameters.
      covariance: Σ of one example's gradient.
      sample: `(key, shape, dtype)` -> z; any law of mean 0 and variance 1.
    """

    def sampler(batch_size: int) -> Oracle:
        scale = 1 / math.sqrt(batch_size)

        def noisy(source, params, draw):
            value, grads = jax.value_and_grad(loss)(params)
            z = draw_like(draw.fresh(), params, sample)
            noise = covariance.spread(params, z)
            return value, jax.tree.map(lambda g, n: g + scale * n, grads, noise)

        return FunctionOracle(noisy)

    return sampler


def heavy_tailed(oracle: Oracle, alpha: float, size: float) -> Oracle:
    """Returns the oracle plus `size` times symmetric α-stable noise in each coordinate.

    α = 2 is Gaussian (of variance 2·size²); below that the variance is infinite, and
    the mean too for α ≤ 1.
    """
    check_stable(alpha, size)
    if Use.HEAVY_TAIL in oracle.adds:
        raise ValueError(
            "an oracle takes heavy tails once: a second noise would be the same numbers"
        )

    def sample(key, shape, dtype):
        return size * stable(key, alpha, shape, dtype)

    def noisy(oracle, params, draw):
        loss, grads = oracle(params, draw)
        noise = draw_like(draw.stream(Use.HEAVY_TAIL).fresh(), params, sample)
        return loss, jax.tree.map(jnp.add, grads, noise)

    return oracle.wrapped(noisy, (Use.HEAVY_TAIL,))


def check_stable(alpha: float, size: float) -> None:
    """Refuses what is no index of a stable law, or no scale of it."""
    check_number("size", size, "a number ≥ 0", 0)
    if not 0 < alpha <= 2:
        raise ValueError(f"alpha={alpha} must lie in (0, 2]; 2 is Gaussian")


def stable(key: jax.Array, alpha: float, shape=(), dtype=jnp.float32) -> jax.Array:
    """Draws symmetric α-stable numbers of scale 1 (Chambers, Mallows and Stuck 1976).

    The characteristic function is exp(−|t|^α).
    """
    key_angle, key_length = jax.random.split(key)
    angle = jax.random.uniform(
        key_angle, shape, dtype, minval=-math.pi / 2, maxval=math.pi / 2
    )
    tiny = jnp.finfo(dtype).eps  # float32(π/2) is beyond π/2, where cos is negative
    length = jnp.maximum(jax.random.exponential(key_length, shape, dtype), tiny)
    cosine = jnp.maximum(jnp.cos(angle), tiny)
    if alpha == 1:
        return jnp.sin(angle) / cosine
    turned = jnp.maximum(jnp.cos((1 - alpha) * angle), tiny) / length
    return (
        jnp.sin(alpha * angle) / cosine ** (1 / alpha) * turned ** ((1 - alpha) / alpha)
    )
