"""Oracles: (params, draw) -> (loss, grads), the only way anything gets a gradient.

An oracle is pure and keeps no state: a `Draw` says which stream of randomness to read
and at which step. What builds oracles takes and returns functions.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from optsde.gradients.per_example import by_blocks
from optsde.types import PyTree

Losses = Callable[[PyTree, PyTree], jax.Array]  # (params, examples) -> loss of each


class Draw(NamedTuple):
    key: jax.Array  # of the whole run
    step: jax.Array  # int32

    def fresh(self) -> jax.Array:
        """The key of this step."""
        return jax.random.fold_in(self.key, self.step)

    def stream(self, number: int) -> "Draw":
        """An independent stream of randomness for the same step, number 1, 2, …"""
        return Draw(jax.random.fold_in(self.key, 2**32 - number), self.step)


Oracle = Callable[[PyTree, Draw], tuple[jax.Array, PyTree]]
Sampler = Callable[[int], Oracle]  # batch size -> oracle


@dataclasses.dataclass(frozen=True)
class ExampleOracle:
    """The mean loss over the examples that `choose(draw)` names, and its gradient."""

    losses: Losses
    data: PyTree
    choose: Callable[[Draw], jax.Array]

    def __call__(self, params: PyTree, draw: Draw) -> tuple[jax.Array, PyTree]:
        index = self.choose(draw)
        examples = jax.tree.map(lambda x: x[index], self.data)
        return jax.value_and_grad(lambda p: jnp.mean(self.losses(p, examples)))(params)

    def mixed(self, streams: Sequence[int], weights: Sequence[float]) -> Oracle:
        """Σ_i weight_i · (mean loss of stream i), each batch passed on its own.

        The gradient of the mixed loss is the mix of the gradients, in one pass.
        """

        def oracle(params, draw):
            index = jnp.stack([self.choose(draw.stream(i)) for i in streams])
            batches = jax.tree.map(lambda x: x[index], self.data)

            def loss(p):
                each = jax.vmap(lambda batch: jnp.mean(self.losses(p, batch)))(batches)
                return jnp.asarray(weights, each.dtype) @ each

            return jax.value_and_grad(loss)(params)

        return oracle


def minibatch(losses: Losses, data: PyTree, batch_size: int) -> ExampleOracle:
    """Mean over `batch_size` examples drawn independently, with replacement.

    This is the draw for which the noise of a κ times larger batch is exactly Σ/κ.
    """
    size = _size(data)

    def choose(draw):
        return jax.random.randint(draw.fresh(), (batch_size,), 0, size)

    return ExampleOracle(losses, jax.tree.map(jnp.asarray, data), choose)


def epochs(losses: Losses, data: PyTree, batch_size: int) -> ExampleOracle:
    """Mean over the next `batch_size` examples of a fresh permutation each epoch.

    The examples that do not fill a batch at the end of an epoch are left out of it.
    Each batch size has its own permutations, so a switch in mid-run replays nothing.
    """
    size = _size(data)
    per_epoch = size // batch_size
    if per_epoch == 0:
        raise ValueError(f"batch_size={batch_size} is above the {size} examples")

    def choose(draw):
        epoch, batch = draw.step // per_epoch, draw.step % per_epoch
        key = jax.random.fold_in(jax.random.fold_in(draw.key, per_epoch), epoch)
        order = jax.random.permutation(key, size)
        return jax.lax.dynamic_slice_in_dim(order, batch * batch_size, batch_size)

    return ExampleOracle(losses, jax.tree.map(jnp.asarray, data), choose)


def full_batch(losses: Losses, data: PyTree, block: int = 512) -> Oracle:
    """Mean over all examples, in blocks, with memory for one block."""
    size = _size(data)
    sums = by_blocks(losses, data, block)

    def oracle(params, draw):
        del draw
        total = sums(params, None)
        return total.loss / size, jax.tree.map(lambda g: g / size, total.grad)

    return oracle


def _size(data: PyTree) -> int:
    return jax.tree.leaves(data)[0].shape[0]
