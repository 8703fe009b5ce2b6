"""VGG for CIFAR (Simonyan and Zisserman 2015), with one linear layer as its head."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from optsde.models.convnet import ConvNet, global_mean, max_pool


class VGG(ConvNet):
    """A VGG net: stages of convolutions, each ended by a 2×2 max pool.

    Channels are 64, 128, 256, 512, 512 times width/64. With 10 classes VGG-16 has
    14,724,042 parameters and VGG-19 20,035,018. Public code counts 4,224 and 5,504
    more, the biases of its convolutions, which batch norm takes away again. Without
    norm the biases are here too: 14,719,818 and 20,029,514.
    """

    blocks: Sequence[int] = (2, 2, 3, 3, 3)
    width: int = 64

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        smallest = 2 ** len(self.blocks)
        if min(x.shape[1:3]) < smallest:
            raise ValueError(
                f"images of {x.shape[1]}×{x.shape[2]} are too small for "
                f"{len(self.blocks)} poolings: give at least {smallest}×{smallest}"
            )
        for stage, count in enumerate(self.blocks):
            for _ in range(count):
                x = self.conv(self.width * min(2**stage, 8))(x)
                x = self.activation(self.normalize()(x, mask))
            x = max_pool(x)
        return self.head(global_mean(x))
