"""Loss and accuracy on held-out data, with BatchNorm's statistics made for the purpose.

No running averages ride along in training. For an evaluation one pass over training
data, in groups of `rows`, gives each layer's E[x] and E[x²] as it goes; their averages
over the groups then take the place of a group's own.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from optsde.gradients.groups import mean_over
from optsde.models.losses import Loss
from optsde.types import PyTree


def statistics(
    model: nn.Module, params: PyTree, inputs: jax.Array, rows: int, prepare: Callable
) -> PyTree:
    """BatchNorm's statistics for evaluation; empty for models without it."""
    if not has_statistics(model, params, inputs, prepare):
        return {}
    return mean_over(partial(_statistics, model, prepare, params), inputs, rows)


def has_statistics(
    model: nn.Module, params: PyTree, inputs: jax.Array, prepare: Callable
) -> bool:
    """Returns whether the model has BatchNorm, for which examples interact."""
    of_group = partial(_statistics, model, prepare)
    return bool(jax.eval_shape(of_group, params, inputs[:1], None))


def _statistics(
    model: nn.Module, prepare: Callable, params: PyTree, examples: jax.Array, mask: Any
) -> PyTree:
    _, collected = model.apply(
        {"params": params}, prepare(examples), mask, mutable=["statistics"]
    )
    return collected.get("statistics", {})


def evaluate(
    model: nn.Module,
    loss: Loss,
    params: PyTree,
    train_inputs: jax.Array,
    test: tuple[jax.Array, jax.Array],
    *,
    prepare: Callable = lambda x: x,
    rows: int = 512,
) -> dict[str, jax.Array]:
    """{"loss", "accuracy"} of the test examples; tokens with target −1 do not count.

    train_inputs: what the statistics are made from, un-augmented.
    """
    collected = statistics(model, params, train_inputs, rows, prepare)
    variables = {"params": params} | ({"statistics": collected} if collected else {})

    def of_group(examples, mask):
        inputs, targets = examples
        outputs: Any = model.apply(variables, prepare(inputs), mask)
        each = {
            "loss": loss(outputs, targets),
            "accuracy": _right(outputs, targets),
        }
        counts = jnp.ones(len(inputs), bool) if mask is None else mask
        return jax.tree.map(
            lambda x: jnp.sum(jnp.where(counts, x, 0)) / jnp.sum(counts), each
        )

    return mean_over(of_group, test, rows)


def _right(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """The share of each example's targets that has the largest output."""
    hit = (jnp.argmax(outputs, axis=-1) == targets).astype(jnp.float32)
    hit = hit.reshape(len(hit), -1)
    known = (targets >= 0).reshape(hit.shape)
    total = jnp.sum(hit, axis=1, where=known)
    return total / jnp.maximum(jnp.sum(known, axis=1), 1)
