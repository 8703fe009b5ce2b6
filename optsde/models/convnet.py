"""What convolutional classifiers share: their options, their head, their pooling."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from optsde.models.layers import Conv, Dense
from optsde.models.norm import BatchNorm, GroupNorm, NoNorm

# torch's nn.Linear: uniform on ±1/√fan_in
linear_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class ConvNet(nn.Module):
    """A convolutional classifier's options, which all of them share.

    norm: "batch", "group" (8 groups) or "none"; convolutions have a bias only without.
    affine, eps: of the norms.
    form: of the convolutions, "direct", "patches", or "auto", see `Conv`.
    fixed_head: the last layer is a constant, one random matrix for all runs.
    dtype: of activations and convolutions. Parameters, statistics and the last layer
        are float32, and so are the logits.

    With `SCALE_INVARIANT` (Li, Lyu, Arora 2020) scaling all weights of a normalized net
    leaves the outputs alone.
    """

    takes_mask = True

    classes: int
    norm: str = "batch"
    affine: bool = True
    eps: float = 1e-5
    form: str = "auto"
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    fixed_head: bool = False
    dtype: Any = None

    @property
    def conv(self) -> Callable[..., Conv]:
        """Makes the net's convolutions."""
        bias = self.norm == "none"
        return functools.partial(Conv, form=self.form, use_bias=bias, dtype=self.dtype)

    @property
    def normalize(self) -> Callable[[], nn.Module]:
        """Makes the net's norms."""
        if self.norm == "none":
            return NoNorm
        kinds = {"batch": BatchNorm, "group": GroupNorm}
        if self.norm not in kinds:
            raise ValueError(f"norm={self.norm!r} is none of batch, group, none")
        return functools.partial(kinds[self.norm], eps=self.eps, affine=self.affine)

    @nn.nowrap
    def head(self, x: jax.Array, init: Callable = linear_init) -> jax.Array:
        """Returns the logits of features [n, d]."""
        if self.fixed_head:
            return x @ init(jax.random.key(0), (x.shape[-1], self.classes))
        return Dense(self.classes, kernel_init=init, name="head")(x)


SCALE_INVARIANT = dict(affine=False, eps=0.0, fixed_head=True)


def global_mean(x: jax.Array) -> jax.Array:
    """Averages [n, h, w, c] over positions to [n, c]."""
    return jnp.mean(x, axis=(1, 2))


def average_pool(x: jax.Array) -> jax.Array:
    """Averages 2×2 pixels; an odd last row or column is dropped, as in torch."""
    return jnp.mean(_windows(x), axis=(2, 4))


def max_pool(x: jax.Array) -> jax.Array:
    """Takes the largest of 2×2 pixels, likewise. Pixels that tie share the gradient."""
    return jnp.max(_windows(x), axis=(2, 4))


def _windows(x: jax.Array) -> jax.Array:
    n, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c)
