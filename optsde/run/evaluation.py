"""Loss and accuracy on held-out data, with BatchNorm's statistics made for the purpose.

No running averages ride along in training. For an evaluation one pass over training
data, in groups of `rows`, gives each layer's E[x] and E[x²] as it goes; their averages
over the groups then take the place of a group's own.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from optsde.gradients.groups import mean_over
from optsde.models import Net, net_of
from optsde.models.losses import Loss, of_each
from optsde.types import PyTree


def statistics(
    model: nn.Module | Net,
    params: PyTree,
    inputs: jax.Array,
    rows: int,
    prepare: Callable,
) -> PyTree:
    """Returns BatchNorm's statistics for evaluation; empty for models without it.

    Models that take no mask see whole groups alone: up to `rows` − 1 inputs are left
    out.
    """
    net = net_of(model)
    if not has_statistics(net, params, inputs, prepare):
        return {}
    rows = min(rows, len(inputs))
    if not net.takes_mask:
        inputs = inputs[: len(inputs) // rows * rows]

    def of_group(examples, mask):
        return net.of_batch(params, prepare(examples), mask)

    return mean_over(of_group, inputs, rows)


def has_statistics(
    model: nn.Module | Net, params: PyTree, inputs: jax.Array, prepare: Callable
) -> bool:
    """Returns whether the model has BatchNorm, for which examples interact."""
    net = net_of(model)
    one = jax.eval_shape(prepare, inputs[:1])
    return net.examples_interact(params, one)


def evaluate(
    model: nn.Module | Net,
    loss: Loss,
    params: PyTree,
    train_inputs: jax.Array,
    test: tuple[jax.Array, jax.Array],
    *,
    prepare: Callable = lambda x: x,
    rows: int = 512,
) -> dict[str, jax.Array]:
    """Returns {"loss", "accuracy"} of the test examples, without dropout.

    There is an accuracy where targets are labels: integers, one for each place where
    outputs have several numbers. Tokens with target −1 do not count in it.

    Args:
      model: a Linen module, or a `Net`.
      loss: (outputs, targets) -> the loss of each example.
      params: where it is taken.
      train_inputs: what BatchNorm's statistics are made from, un-augmented.
      test: inputs and targets.
      prepare: makes the model's inputs from the data's.
      rows: examples at once.
    """
    net = net_of(model)
    collected = statistics(net, params, train_inputs, rows, prepare)

    def of_group(examples, mask):
        inputs, targets = examples
        outputs = net.evaluated(params, prepare(inputs), collected)
        each = {"loss": of_each(loss, outputs, targets)}
        if _are_labels(outputs, targets):
            each["accuracy"] = _right(outputs, targets)
        counts = jnp.ones(len(inputs), bool) if mask is None else mask
        return jax.tree.map(
            lambda x: jnp.sum(jnp.where(counts, x, 0)) / jnp.sum(counts), each
        )

    return mean_over(of_group, test, rows)


def _are_labels(outputs: Any, targets: jax.Array) -> bool:
    """Returns whether targets are the number of one output each."""
    several = [x.shape[:-1] for x in jax.tree.leaves(outputs) if x.shape[-1:] > (1,)]
    return jnp.issubdtype(targets.dtype, jnp.integer) and several == [targets.shape]


def _right(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the share of each example's targets that has the largest output."""
    hit = (jnp.argmax(outputs, axis=-1) == targets).astype(jnp.float32)
    hit = hit.reshape(len(hit), -1)
    known = (targets >= 0).reshape(hit.shape)
    total = jnp.sum(hit, axis=1, where=known)
    return total / jnp.maximum(jnp.sum(known, axis=1), 1)
