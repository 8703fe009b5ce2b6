"""Normalization layers.

All subtract a mean and divide by √(var + eps), taken in float32 or wider whatever the
type of the inputs, and then multiply by `scale` and add `bias` if `affine`. With eps 0
the outputs do not change when the inputs are scaled, and a dead unit, of variance 0,
gives 0 with gradient 0.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
    """A norm of each channel over all positions of the examples in one call.

    Examples whose `mask` is 0 do not count in mean and variance (which is biased). For
    ghost batches, vmap over the groups. There is no running average for evaluation:
    `apply(..., mutable=["statistics"])` also returns the `mean` and `square`, E[x] and
    E[x²], of its batch; average them over batches, weighted by their numbers of
    examples, and pass them in as the collection "statistics", to be used instead.
    """

    takes_mask = True

    eps: float = 1e-5
    affine: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        wide = _widen(x)
        if self.has_variable("statistics", "mean"):
            mean: Any = self.get_variable("statistics", "mean")
            square: Any = self.get_variable("statistics", "square")
            var = jnp.maximum(square - mean**2, 0)
        else:
            mean, var = _masked_moments(wide, mask)
            if self.is_mutable_collection("statistics") and not self.is_initializing():
                self.put_variable("statistics", "mean", mean)
                self.put_variable("statistics", "square", var + mean**2)
        mean, var = (jnp.broadcast_to(v, x.shape) for v in (mean, var))
        return _rescale(self, _standardize(wide, mean, var, self.eps)).astype(x.dtype)


class GroupNorm(nn.Module):
    """A norm of groups of channels over one example's positions (Wu and He 2018)."""

    groups: int = 8
    eps: float = 1e-5
    affine: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        n, channels = x.shape[0], x.shape[-1]
        if channels % self.groups:
            raise ValueError(
                f"{channels} channels do not make {self.groups} equal groups: "
                f"use widths that are multiples of {self.groups}"
            )
        split = _widen(x).reshape(n, -1, self.groups, channels // self.groups)
        mean = jnp.mean(split, axis=(1, 3), keepdims=True)
        var = jnp.var(split, axis=(1, 3), keepdims=True)
        y = _standardize(split, mean, var, self.eps).reshape(x.shape)
        return _rescale(self, y).astype(x.dtype)


class LayerNorm(nn.Module):
    """A norm of the last axis, at one position of one example (Ba et al. 2016)."""

    eps: float = 1e-5
    affine: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        wide = _widen(x)
        mean = jnp.mean(wide, axis=-1, keepdims=True)
        var = jnp.var(wide, axis=-1, keepdims=True)
        return _rescale(self, _standardize(wide, mean, var, self.eps)).astype(x.dtype)


class NoNorm(nn.Module):
    """The inputs as they are."""

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        return x


def _widen(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _masked_moments(x: jax.Array, mask: jax.Array | None):
    """Returns mean and variance [channels], 0 where the mask leaves no example."""
    axes = tuple(range(x.ndim - 1))
    rows, where = x.shape[0], None
    if mask is not None:
        where = mask.astype(bool).reshape(-1, *[1] * (x.ndim - 1))
        rows = jnp.maximum(jnp.sum(where), 1)
    count = rows * math.prod(x.shape[1:-1])
    mean = jnp.sum(x, axes, where=where) / count
    centred = x - jnp.broadcast_to(mean, x.shape)
    return mean, jnp.sum(centred**2, axes, where=where) / count


def _standardize(x: jax.Array, mean: jax.Array, var: jax.Array, eps: float):
    """Returns (x − mean)/√(var + eps), and 0 where that divides by 0."""
    total = var + eps
    inverse = jnp.where(total > 0, jax.lax.rsqrt(jnp.where(total > 0, total, 1)), 0)
    return (x - mean) * inverse


def _rescale(layer: BatchNorm | GroupNorm | LayerNorm, y: jax.Array) -> jax.Array:
    if not layer.affine:
        return y
    channels = y.shape[-1:]
    scale = layer.param("scale", nn.initializers.ones, channels)
    bias = layer.param("bias", nn.initializers.zeros, channels)
    return y * jnp.broadcast_to(scale, y.shape) + jnp.broadcast_to(bias, y.shape)
