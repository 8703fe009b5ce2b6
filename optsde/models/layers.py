"""Layers that let per-example gradients be summed without being formed."""

from collections.abc import Callable

import flax.linen as nn
import jax


class Dense(nn.Module):
    """x W + b, whose inputs and output gradients can be read from outside.

    The inputs are sown into `intermediates`, and `perturbations` are added to the
    outputs, where those collections are asked for; else nothing is added or kept.
    """

    features: int
    kernel_init: Callable = nn.initializers.he_normal()
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        self.sow("intermediates", "inputs", x)
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        y = x @ kernel
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias[None]
        return self.perturb("outputs", y)
