"""Losses of each example, and models joined to them."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from optsde.models.adapters import net_of
from optsde.models.net import Net

Loss = Callable[[jax.Array, jax.Array], jax.Array]  # (outputs, targets) -> of each


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns −log softmax(logits)[label] of each example.

    logits [n, classes], labels [n].
    """
    _check_labels("cross_entropy", "[n, classes]", 2, logits, labels)
    log_p = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]


def token_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean cross entropy of each row's tokens, without targets of −1.

    logits [n, T, classes], targets [n, T]. A row without any target gives 0.
    """
    name = "token_cross_entropy"
    _check_labels(name, "[n, T, classes]", 3, logits, targets)
    counts = targets >= 0
    log_p = jax.nn.log_softmax(logits)
    index = jnp.maximum(targets, 0)[:, :, None]
    of_each = -jnp.take_along_axis(log_p, index, axis=2)[:, :, 0]
    total = jnp.sum(of_each, axis=1, where=counts)
    return total / jnp.maximum(jnp.sum(counts, axis=1), 1)


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns ½|outputs − targets|² of each example, both [n, numbers]."""
    if outputs.ndim != 2 or outputs.shape != targets.shape:
        raise ValueError(
            f"squared_error takes outputs and targets [n, numbers], and has outputs "
            f"{list(outputs.shape)} and targets {list(targets.shape)}: for one number "
            "an example, both are [n, 1]"
        )
    return 0.5 * jnp.sum((outputs - targets) ** 2, axis=-1)


LOWEST_LABEL: dict[
    Callable, int
] = {  # of losses that are known to take labels; −1 does not count
    cross_entropy: 0,
    token_cross_entropy: -1,
    optax.softmax_cross_entropy_with_integer_labels: 0,
}


def of_each(loss: Loss, outputs: Any, targets: Any) -> jax.Array:
    """Returns loss(outputs, targets), which must be a number for each example."""
    losses = loss(outputs, targets)
    size = len(jax.tree.leaves(targets)[0])
    if jnp.shape(losses) != (size,):
        raise ValueError(
            f"the loss of {size} examples has the shape {list(jnp.shape(losses))}: "
            f"return the loss of each, [{size}], without a mean over the batch"
        )
    return losses


def supervised(
    model: nn.Module | Net, loss: Loss, prepare: Callable | None = None
) -> Callable:
    """Returns losses(params, (inputs, targets), mask=None, key=None), of each example.

    Without a key there is no dropout. The mask goes to models that take one, for batch
    norm: losses of masked examples are still returned.

    Args:
      model: a Linen module, or a `Net`.
      loss: (outputs, targets) -> the loss of each.
      prepare: makes the model's inputs from the data's, as floats from uint8.
    """
    net = net_of(model)

    def losses(params, examples, mask=None, key=None):
        inputs, targets = examples
        inputs = inputs if prepare is None else prepare(inputs)
        apply = net.in_training(params, inputs, mask, key)
        return of_each(loss, apply(params, inputs), targets)

    losses.takes_mask = True  # type: ignore[attr-defined]
    losses.takes_key = net.noisy  # type: ignore[attr-defined]
    return losses


def init_params(model: nn.Module | Net, key: jax.Array, inputs: jax.Array):
    """Returns the parameters alone, without collections that a model only offers."""
    return jax.jit(net_of(model).init)(key, inputs[:1])


def _check_labels(name: str, form: str, rank: int, logits: Any, labels: Any) -> None:
    fits = logits.ndim == rank and logits.shape[:-1] == labels.shape
    if not fits or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"{name} takes logits {form} and the number of each one's class, and has "
            f"outputs {list(logits.shape)} and targets {list(labels.shape)} of type "
            f"{labels.dtype}"
        )
