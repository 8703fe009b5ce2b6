"""Losses of each example, and models joined to them."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Loss = Callable[[jax.Array, jax.Array], jax.Array]  # (outputs, targets) -> of each


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns −log softmax(logits)[label] of each example."""
    log_p = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]


def token_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean cross entropy of each row's tokens, without targets of −1.

    logits [n, T, classes], targets [n, T]. A row without any target gives 0.
    """
    counts = targets >= 0
    log_p = jax.nn.log_softmax(logits)
    index = jnp.maximum(targets, 0)[:, :, None]
    of_each = -jnp.take_along_axis(log_p, index, axis=2)[:, :, 0]
    total = jnp.sum(of_each, axis=1, where=counts)
    return total / jnp.maximum(jnp.sum(counts, axis=1), 1)


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns ½|outputs − targets|² of each example."""
    return 0.5 * jnp.sum((outputs - targets) ** 2, axis=-1)


def supervised(
    model: nn.Module, loss: Loss, prepare: Callable | None = None
) -> Callable:
    """Returns losses(params, (inputs, targets), mask=None) -> the loss of each.

    `prepare` makes the model's inputs from the data's, as floats from uint8. The mask
    goes to the model, for batch norm: losses of masked examples are still returned.
    """

    def losses(params, examples, mask=None):
        inputs, targets = examples
        inputs = inputs if prepare is None else prepare(inputs)
        masked = () if mask is None else (mask,)
        outputs: Any = model.apply({"params": params}, inputs, *masked)
        return loss(outputs, targets)

    losses.takes_mask = True  # type: ignore[attr-defined]
    return losses


def init_params(model: nn.Module, key: jax.Array, inputs: jax.Array):
    """The parameters alone, without collections that a model only offers."""
    init = jax.jit(lambda key, example: model.init(key, example)["params"])
    return init(key, inputs[:1])
