"""Residual nets for small images, with the norm after or before the convolution.

Counts with 10 classes. ResNet (He et al. 2015) in its ImageNet form with a 3×3 stem, as
in Geiping et al. 2022 and most public CIFAR code: ResNet-18 11,173,962; -34 21,282,122;
-50 23,520,842; -152 58,156,618. With stem="7x7" and 1000 classes it is the paper's own:
-18 11,689,512; -50 25,557,032. In its CIFAR form (16-32-64 channels) with "pad":
ResNet-20 269,722; -32 464,154; -56 853,018; -110 1,727,962. PreResNet (He et al. 2016)
with basic blocks: -20 272,282; -32 466,714; -56 855,578; -110 1,730,522.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from optsde.models.convnet import ConvNet, average_pool, global_mean


class ResNet(ConvNet):
    """A ResNet (He et al. 2016): stages of residual blocks, each halving the image.

    The first stage leaves its size.

    downsample, where a block changes the shape, makes the shortcut: "conv" (1×1 of the
    block's stride, norm), "avgpool" (2×2 mean, 1×1, norm: Geiping et al. 2022) or "pad"
    (every second pixel, channels filled up with zeros: He et al. 2015 on CIFAR).
    bottleneck: 1×1, 3×3 (which has the stride), 1×1 to four times the channels.
    stem: "3x3", or "7x7" of photographs: 7×7 of stride 2, then the largest of 3×3
    pixels, every second of them.
    """

    blocks: Sequence[int] = (2, 2, 2, 2)
    width: int = 64
    bottleneck: bool = False
    downsample: str = "conv"
    stem: str = "3x3"

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        if self.stem not in ("3x3", "7x7"):
            raise ValueError(f"stem={self.stem!r} is none of 3x3, 7x7")
        large = self.stem == "7x7"
        x = self.conv(self.width, 7, 2)(x) if large else self.conv(self.width)(x)
        x = self.activation(self.normalize()(x, mask))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))) if large else x
        for stage, count in enumerate(self.blocks):
            for number in range(count):
                x = _Block(
                    self.width * 2**stage,
                    stride=2 if stage and not number else 1,
                    bottleneck=self.bottleneck,
                    downsample=self.downsample,
                    conv=self.conv,
                    normalize=self.normalize,
                    activation=self.activation,
                    name=f"stage{stage}_block{number}",
                )(x, mask)
        return self.head(global_mean(x))


class PreResNet(ConvNet):
    """A PreResNet: norm and activation before each convolution and before the head.

    Where a block changes the shape, its shortcut is a 1×1 convolution of the block's
    first activations, as in the authors' code. With bottleneck=True and blocks
    (12, 12, 12) this is what the code of SWA calls PreResNet-110, but for its
    shortcuts, which convolve the raw inputs.
    """

    blocks: Sequence[int] = (5, 5, 5)
    width: int = 16
    bottleneck: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        x = self.conv(self.width)(x)
        for stage, count in enumerate(self.blocks):
            for number in range(count):
                x = _PreBlock(
                    self.width * 2**stage,
                    stride=2 if stage and not number else 1,
                    bottleneck=self.bottleneck,
                    conv=self.conv,
                    normalize=self.normalize,
                    activation=self.activation,
                    name=f"stage{stage}_block{number}",
                )(x, mask)
        return self.head(global_mean(self.activation(self.normalize()(x, mask))))


class _Block(nn.Module):
    """A block act(shortcut(x) + norm(conv(… act(norm(conv(x))))))."""

    features: int
    stride: int
    bottleneck: bool
    downsample: str
    conv: Callable[..., nn.Module]
    normalize: Callable[[], nn.Module]
    activation: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        layers = _layers(self.features, self.stride, self.bottleneck)
        y = x
        for number, (features, size, stride) in enumerate(layers):
            y = self.activation(y) if number else y
            y = self.normalize()(self.conv(features, size, stride)(y), mask)
        if y.shape != x.shape:
            x = self._shortcut(x, y.shape[-1], mask)
        return self.activation(x + y)

    def _shortcut(self, x: jax.Array, features: int, mask: jax.Array | None):
        if self.downsample == "pad":
            x = x[:, :: self.stride, :: self.stride]
            return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))
        if self.downsample not in ("conv", "avgpool"):
            raise ValueError(
                f"downsample={self.downsample!r} is none of conv, avgpool, pad"
            )
        stride = self.stride
        if self.downsample == "avgpool" and stride == 2:
            x, stride = average_pool(x), 1
        x = self.conv(features, 1, stride, name="shortcut")(x)
        return self.normalize()(x, mask)


class _PreBlock(nn.Module):
    """A block shortcut + conv(act(norm(… conv(act(norm(x))))))."""

    features: int
    stride: int
    bottleneck: bool
    conv: Callable[..., nn.Module]
    normalize: Callable[[], nn.Module]
    activation: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        layers = _layers(self.features, self.stride, self.bottleneck)
        first = y = self.activation(self.normalize()(x, mask))
        for number, (features, size, stride) in enumerate(layers):
            y = self.activation(self.normalize()(y, mask)) if number else y
            y = self.conv(features, size, stride)(y)
        if y.shape != x.shape:
            x = self.conv(y.shape[-1], 1, self.stride, name="shortcut")(first)
        return x + y


def _layers(features: int, stride: int, bottleneck: bool):
    """Returns (features, size, stride) of a block's convolutions."""
    if bottleneck:
        return (features, 1, 1), (features, 3, stride), (4 * features, 1, 1)
    return (features, 3, stride), (features, 3, 1)
