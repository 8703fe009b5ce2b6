"""Nets small enough to run many seeds of on a CPU."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from optsde.models.convnet import ConvNet, global_mean, max_pool
from optsde.models.layers import Conv, Dense

he_normal = nn.initializers.he_normal()


class DigitsNet(ConvNet):
    """A net for 8×8 digits: conv 8, 16 of stride 2, 16, global mean, linear.

    Each convolution is 3×3, followed by norm and activation; He's initialization with
    fan-in. The count is that of images with 1 channel, 10 classes and batch norm.
    """

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        conv = functools.partial(self.conv, kernel_init=he_normal)
        for features, stride in ((8, 1), (16, 2), (16, 1)):
            x = conv(features, stride=stride)(x)
            x = self.activation(self.normalize()(x, mask))
        return self.head(global_mean(x), he_normal)


class SmallConv(nn.Module):
    """A net of one 3×3 convolution, an activation, and a linear layer on all of it."""

    takes_mask = True

    classes: int
    width: int = 32
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    form: str = "auto"
    parametrization: str = "standard"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        conv = Conv(
            self.width,
            form=self.form,
            kernel_init=he_normal,
            use_bias=True,
            parametrization=self.parametrization,
            dtype=self.dtype,
        )
        x = self.activation(conv(x)).reshape(x.shape[0], -1)
        return Dense(self.classes, parametrization=self.parametrization)(x)


class TwoConv(nn.Module):
    """A net of two 3×3 convolutions, each with 2×2 pooling, and two linear layers.

    The second convolution has twice the `width`; each layer but the last is followed by
    the activation.
    """

    takes_mask = True

    classes: int
    width: int = 8
    hidden: int = 32
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    form: str = "auto"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        looks = dict(form=self.form, kernel_init=he_normal, use_bias=True)
        for features in (self.width, 2 * self.width):
            x = Conv(features, dtype=self.dtype, **looks)(x)
            x = max_pool(self.activation(x))
        x = Dense(self.hidden, dtype=self.dtype)(x.reshape(x.shape[0], -1))
        return Dense(self.classes)(self.activation(x))
