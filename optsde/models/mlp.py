"""Multilayer perceptron."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax

from optsde.models.layers import Dense


class MLP(nn.Module):
    """A multilayer perceptron of the given widths, without activation at the end.

    Images are flattened. The last layer multiplies in the type of the parameters.
    """

    takes_mask = True

    widths: Sequence[int]
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    parametrization: str = "standard"
    dtype: Any = None
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        layer = functools.partial(
            Dense, use_bias=self.use_bias, parametrization=self.parametrization
        )
        x = x.reshape(x.shape[0], -1)
        for width in self.widths[:-1]:
            x = self.activation(layer(width, dtype=self.dtype)(x))
        return layer(self.widths[-1])(x)
