"""Multilayer perceptron."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax

from optsde.models.layers import Dense


class MLP(nn.Module):
    """Dense layers of the given widths; the last one has no activation."""

    widths: Sequence[int]
    activation: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width in self.widths[:-1]:
            x = self.activation(Dense(width)(x))
        return Dense(self.widths[-1])(x)
