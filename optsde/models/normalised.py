"""A multilayer perceptron of which the loss sees only the weights' directions."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax

from optsde.models.layers import Dense
from optsde.models.norm import BatchNorm, LayerNorm


class NormalisedMLP(nn.Module):
    """A scale-invariant MLP: dense, norm, activation; the last layer is fixed.

    norm: "layer" or "batch", without affine part, and with an ε that float32 does not
    see where the variance is not tiny. The fixed matrix has entries N(0, 4/width), the
    same for all runs.
    """

    takes_mask = True

    classes: int
    hidden: Sequence[int] = (64, 64)
    norm: str = "layer"
    eps: float = 1e-12
    activation: Callable[[jax.Array], jax.Array] = nn.gelu
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        if self.norm not in ("layer", "batch"):
            raise ValueError(f"norm={self.norm!r} is none of layer, batch")
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = Dense(width, use_bias=False, dtype=self.dtype)(x)
            if self.norm == "layer":
                x = LayerNorm(self.eps, affine=False)(x)
            else:
                x = BatchNorm(self.eps, affine=False)(x, mask)
            x = self.activation(x)
        shape = x.shape[-1], self.classes
        fixed = jax.random.normal(jax.random.key(0), shape)
        return x @ (2 / math.sqrt(shape[0]) * fixed)
