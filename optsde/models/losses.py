"""Losses of each example, and models joined to them."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Loss = Callable[[jax.Array, jax.Array], jax.Array]  # (outputs, targets) -> of each


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """−log softmax(logits)[label]."""
    log_p = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """½|outputs − targets|²."""
    return 0.5 * jnp.sum((outputs - targets) ** 2, axis=-1)


def supervised(model: nn.Module, loss: Loss) -> Callable:
    """losses(params, (inputs, targets)): what oracles are built from."""

    def losses(params, examples):
        inputs, targets = examples
        outputs: Any = model.apply({"params": params}, inputs)
        return loss(outputs, targets)

    return losses


def init_params(model: nn.Module, key: jax.Array, inputs: jax.Array):
    """The parameters alone, without collections that a model only offers."""
    return model.init(key, inputs[:1])["params"]
