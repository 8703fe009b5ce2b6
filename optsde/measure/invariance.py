"""Scale invariance: which parameters does the loss see only by their direction?

Found numerically for any oracle, leaf by leaf, by both sides of Euler's theorem:
L(c w) = L(w) for all c > 0, so that ⟨w, ∇L⟩ = 0. A leaf may be invariant as a whole, or
each of its channels (slices of the last axis) by itself, as before BatchNorm.
"""

from enum import StrEnum
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from optsde.gradients import Draw, FunctionOracle, Oracle, Use
from optsde.types import PyTree

TOLERANCE = 1e-3


class Kind(StrEnum):
    """The part of a leaf that the loss depends on."""

    CHANNELS = "each channel"  # the direction of each channel
    WHOLE = "as a whole"  # the direction of the leaf
    TOGETHER = "together"  # the direction of all parameters, as one vector
    NONE = "no"  # its size too
    UNUSED = "no effect"  # nothing, such as a bias before a norm


class Invariance(NamedTuple):
    """Numerical tests of one leaf, the largest over the batches; 0 where invariant."""

    angle: jax.Array  # |⟨w, ∇L⟩|/(‖w‖‖∇L‖)
    change: jax.Array  # |L(c w) − L(w)|/|L(w)|
    channel_angle: jax.Array  # |⟨w_i, ∇_i L⟩|/(‖w_i‖‖∇_i L‖), the largest
    channel_change: jax.Array  # the same change with a c for each channel
    effect: jax.Array  # ‖w‖‖∇L‖/|L|

    def kind(self, tolerance: float = TOLERANCE) -> Kind:
        """The finest that both tests allow; `tolerance` is for half precision to raise.

        An ε inside a norm breaks the invariance by about ε/variance.
        """
        if self.effect < 0.1 * tolerance:
            return Kind.UNUSED
        if max(self.channel_angle, self.channel_change) < tolerance:
            return Kind.CHANNELS
        if max(self.angle, self.change) < tolerance:
            return Kind.WHOLE
        return Kind.NONE


def invariance(oracle: Oracle, params: PyTree, draw: Draw, batches: int = 4) -> PyTree:
    """A tree like params of `Invariance`, from `batches` draws of the oracle.

    Each costs a gradient and three losses for each leaf: of the leaf halved, doubled,
    and with each channel one of the two (powers of 2 round nothing). A leaf that is
    zero, such as a bias at the start, has no scale: random numbers take its place.
    """
    key = draw.stream(Use.INVARIANCE).fresh()
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.fold_in(key, batches), (2, len(leaves)))
    at = [_away_from_zero(k, x) for k, x in zip(keys[0], leaves, strict=True)]
    factors = [_factors(k, x) for k, x in zip(keys[1], leaves, strict=True)]

    def of_batch(number):
        one = draw._replace(key=jax.random.fold_in(key, number))
        loss, grads = oracle(structure.unflatten(at), one)

        def change(which):
            chosen, kind = which
            scaled = [
                jnp.where(i == chosen, x * c[kind], x)
                for i, (x, c) in enumerate(zip(at, factors, strict=True))
            ]
            value = oracle(structure.unflatten(scaled), one)[0]
            return jnp.abs(value - loss) / jnp.abs(loss)

        count = len(leaves)
        tests = jnp.repeat(jnp.arange(count), 3), jnp.tile(jnp.arange(3), count)
        halved, doubled, mixed = jax.lax.map(change, tests).reshape(count, 3).T
        pairs = zip(at, jax.tree.leaves(grads), strict=True)
        found = [_of_leaf(x, g, loss) for x, g in pairs]
        angle, channel_angle, effect = map(jnp.stack, zip(*found, strict=True))
        return Invariance(
            angle, jnp.maximum(halved, doubled), channel_angle, mixed, effect
        )

    every = jax.lax.map(of_batch, jnp.arange(batches))
    worst = jax.tree.map(lambda x: jnp.max(x, axis=0), every)
    return structure.unflatten(
        [Invariance(*of_leaf) for of_leaf in zip(*worst, strict=True)]
    )


def joint_invariance(
    oracle: Oracle, params: PyTree, draw: Draw, batches: int = 4
) -> Invariance:
    """Tests all parameters together, as one leaf of one channel.

    So it is with a PreResNet, whose convolutions add up to one stream before the norm.
    """
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(draw.stream(Use.INVARIANCE).fresh(), len(leaves))
    at = [_away_from_zero(k, x) for k, x in zip(keys, leaves, strict=True)]
    flat, unravel = ravel_pytree(structure.unflatten(at))

    def of_flat(oracle, column, draw):
        loss, grads = oracle(unravel(column[:, 0]), draw)
        return loss, ravel_pytree(grads)[0][:, None]

    column = FunctionOracle(of_flat, oracle)
    return invariance(column, flat[:, None], draw, batches)


def _away_from_zero(key: jax.Array, x: jax.Array) -> jax.Array:
    drawn = 0.1 * jax.random.normal(key, x.shape, x.dtype)
    return jnp.where(jnp.any(x != 0), x, drawn)


def _factors(key: jax.Array, x: jax.Array) -> jax.Array:
    """Returns factors [3, …, channels]: ½, 2, and one of the two for each channel."""
    channels = x.shape[-1:]
    mixed = jnp.where(jax.random.bernoulli(key, 0.5, channels), 2.0, 0.5)
    half = jnp.full(channels, 0.5)
    factors = jnp.stack([half, 4 * half, mixed]).astype(x.dtype)
    return jnp.broadcast_to(
        factors.reshape(3, *[1] * (x.ndim - 1), *channels), (3, *x.shape)
    )


def _of_leaf(w: jax.Array, grad: jax.Array, loss: jax.Array):
    """Returns (angle, largest angle of a channel, effect)."""
    w, grad = (_rows(x) for x in (w, grad))
    inner = jnp.sum(w * grad, axis=0)
    size, force = (jnp.sqrt(jnp.sum(x * x, axis=0)) for x in (w, grad))
    whole_size, whole_force = (jnp.sqrt(jnp.sum(x * x)) for x in (size, force))
    # A channel without gradient has only rounding errors, which the mean force covers.
    mean_force = whole_force / jnp.sqrt(float(len(force)))
    product = size * jnp.maximum(force, mean_force)
    angles = jnp.abs(inner) / jnp.where(product > 0, product, 1)
    whole = whole_size * whole_force
    angle = jnp.abs(jnp.sum(inner)) / jnp.where(whole > 0, whole, 1)
    return angle, jnp.max(angles), whole / jnp.abs(loss)


def _rows(x: jax.Array) -> jax.Array:
    """Returns the leaf as [rest, channels], at least float32."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return wide.reshape(-1, x.shape[-1]) if x.ndim else wide.reshape(1, 1)
