"""DenseNet for CIFAR (Huang et al. 2017), bottlenecked and compressed by half."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from optsde.models.convnet import ConvNet, average_pool, global_mean


class DenseNet(ConvNet):
    """A DenseNet (Huang et al. 2017): each layer adds `growth` channels to its input.

    A layer is norm, act, 1×1 to 4·growth channels, norm, act, 3×3. Between stages:
    norm, act, 1×1 to half the channels, 2×2 mean. The defaults are DenseNet-121 with a
    3×3 stem: 6,956,298 parameters with 10 classes.
    """

    blocks: Sequence[int] = (6, 12, 24, 16)
    growth: int = 32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        def activated(x):
            return self.activation(self.normalize()(x, mask))

        x = self.conv(2 * self.growth)(x)
        for stage, count in enumerate(self.blocks):
            if stage:
                x = average_pool(self.conv(x.shape[-1] // 2, 1)(activated(x)))
            for _ in range(count):
                y = self.conv(4 * self.growth, 1)(activated(x))
                y = self.conv(self.growth)(activated(y))
                x = jnp.concatenate([y, x], axis=-1)
        return self.head(global_mean(activated(x)))
