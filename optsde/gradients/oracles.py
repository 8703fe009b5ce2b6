"""Oracles: (params, draw) -> (loss, grads), the only way anything gets a gradient.

An oracle is pure and keeps no state: a `Draw` says which stream of randomness to read
and at which step. What builds oracles takes and returns functions.
"""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optsde.data.stream import Stream, Window
from optsde.gradients.groups import Groups, grouped, shares, weighted_sum
from optsde.gradients.penalty import Penalty, penalized
from optsde.mesh import data_shards
from optsde.types import PyTree

Losses = Callable[..., jax.Array]
"""(params, examples) -> loss of each. Where examples of one call interact, as through
BatchNorm, (params, examples, mask): rows where mask is False only fill the call up."""

Augment = Callable[[jax.Array, PyTree], PyTree]  # (key of each, examples) -> examples


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


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["data"],
    meta_fields=[
        "losses",
        "choose",
        "size",
        "group",
        "at_once",
        "augment",
        "penalty",
        "running_mean",
        "streams",
        "gains",
    ],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleOracle:
    """The mean loss over `size` examples that `choose(draw)` names, and its gradient.

    A pytree of its data, so that a compiled step takes the data as an argument. What
    does not fit on the device is a `Stream`, which an engine feeds as a `Window`.

    group: examples of one call of the model (all of them where None, and then they must
    not interact, since devices share them). at_once: groups in one pass; the rest one
    after the other, in the memory of one pass.
    augment: applied to what was drawn, with a key of each example's own.
    penalty: added to the gradient of each group.
    running_mean: the average of the published full-batch runs, see `full_batch`.
    streams, gains: SVAG's mix of draws; each stream's groups stay among themselves.
    """

    data: PyTree
    losses: Losses
    choose: Callable[[Draw], jax.Array]
    size: int
    group: int | None = None
    at_once: int = 1
    augment: Augment | None = None
    penalty: Penalty | None = None
    running_mean: bool = False
    streams: tuple[int, ...] = ()
    gains: tuple[float, ...] = (1.0,)

    def __call__(self, params: PyTree, draw: Draw) -> tuple[jax.Array, PyTree]:
        rows, at_once = self.group, self.at_once
        if rows is None:
            rows, at_once = -(-self.size // data_shards()), len(self.gains)
        index, data = self.index(draw), self.data
        if isinstance(data, Stream):
            raise ValueError(
                "this oracle's data is a Stream, which an Engine feeds to the steps of "
                "a run; for one gradient, give it the examples themselves"
            )
        if isinstance(data, Window):
            index, data = _in_order(index), data.at(draw.step)
        groups = grouped(index, rows, self._weights(rows))
        loss = partial(self._mean_loss, data, draw.stream(_AUGMENT).fresh())
        if self.penalty is None:
            return weighted_sum(params, groups, at_once, loss=loss)
        gradient = partial(self._penalized, loss, self.penalty, draw.step)
        return weighted_sum(params, groups, at_once, gradient=gradient)

    def index(self, draw: Draw) -> jax.Array:
        """[streams, size]: the examples of this draw."""
        draws = [draw.stream(i) for i in self.streams] or [draw]
        return jnp.stack([self.choose(d) for d in draws])

    def mixed(self, streams: Sequence[int], gains: Sequence[float]) -> "ExampleOracle":
        """Σ_i gain_i · (mean loss of stream i), in one pass."""
        return dataclasses.replace(self, streams=tuple(streams), gains=tuple(gains))

    @staticmethod
    def _penalized(loss, penalty: Penalty, step, params: PyTree, group: Groups):
        return penalized(lambda p: loss(p, group), params, penalty, step)

    def _mean_loss(
        self, data: PyTree, key: jax.Array, params: PyTree, group: Groups
    ) -> jax.Array:
        examples = jax.tree.map(lambda x: x[group.index], data)
        if self.augment is not None:
            keys = jax.vmap(partial(jax.random.fold_in, key))(group.slot)
            examples = self.augment(keys, examples)
        if group.counted is None:
            return jnp.mean(self.losses(params, examples))
        if len(inspect.signature(self.losses).parameters) > 2:
            each = self.losses(params, examples, group.counted)
        else:
            each = self.losses(params, examples)
        total = jnp.sum(jnp.where(group.counted, each, 0))
        return total / jnp.sum(group.counted).astype(each.dtype)

    def _weights(self, rows: int) -> np.ndarray:
        """Each group's weight, in the order of `grouped`."""
        if self.running_mean:
            count = self.size // rows
            share = (1 - 1 / count) ** np.arange(count - 1, -1, -1) / count
        else:
            share = shares(self.size, rows)
        return np.concatenate([gain * share for gain in self.gains])


_AUGMENT = 9  # stream


def _in_order(index: jax.Array) -> jax.Array:
    """Where a window's batch holds these examples: one after the other."""
    return jnp.arange(index.size).reshape(index.shape)


def minibatch(
    losses: Losses, data: PyTree, batch_size: int, **options
) -> ExampleOracle:
    """Mean over `batch_size` examples drawn independently, with replacement.

    This is the draw for which the noise of a κ times larger batch is exactly Σ/κ.
    """
    count = _size(data)

    def choose(draw):
        return jax.random.randint(draw.fresh(), (batch_size,), 0, count)

    return _oracle(losses, data, choose, batch_size, options)


def epochs(losses: Losses, data: PyTree, batch_size: int, **options) -> ExampleOracle:
    """Mean over the next `batch_size` examples of a fresh permutation each epoch.

    The examples that do not fill a batch at the end of an epoch are left out of it.
    Each batch size has its own permutations, so a switch in mid-run replays nothing.
    """
    count = _size(data)
    per_epoch = count // batch_size
    if per_epoch == 0:
        raise ValueError(f"batch_size={batch_size} is above the {count} examples")

    def choose(draw):
        epoch, batch = draw.step // per_epoch, draw.step % per_epoch
        key = jax.random.fold_in(jax.random.fold_in(draw.key, per_epoch), epoch)
        order = jax.random.permutation(key, count)
        return jax.lax.dynamic_slice_in_dim(order, batch * batch_size, batch_size)

    return _oracle(losses, data, choose, batch_size, options)


def full_batch(
    losses: Losses,
    data: PyTree,
    group: int | None = 512,
    *,
    shuffle: bool = False,
    running_mean: bool = False,
    **options,
) -> ExampleOracle:
    """The exact mean over all examples, in groups, with memory for `at_once` of them.

    shuffle: put the groups together anew at each step. It matters where examples of a
    group interact: through BatchNorm's statistics, or a penalty on its gradient.
    running_mean: the average by which the published full-batch runs were made until
    January 2023, m ← m + (g_b − m)/n over n blocks from m = 0, of total weight
    1 − (1 − 1/n)^n = .633; it leaves out the examples that do not fill a block.
    """
    if isinstance(data, Stream):
        raise ValueError(
            "full_batch needs its data on the device, and was given a Stream; "
            "minibatch and epochs can read one"
        )
    count = _size(data)
    used = count
    if running_mean:
        if group is None or group > count:
            raise ValueError(
                f"running_mean needs blocks within the {count} examples, and group was "
                f"{group}"
            )
        used = count - count % group

    def choose(draw):
        order = jnp.arange(count)
        if shuffle:
            order = jax.random.permutation(draw.fresh(), order)
        return order[:used]

    options["running_mean"] = running_mean
    return _oracle(losses, data, choose, used, {"group": group, **options})


def _oracle(losses, data, choose, size: int, options: dict) -> ExampleOracle:
    if not isinstance(data, Stream):
        data = jax.tree.map(jnp.asarray, data)
    oracle = ExampleOracle(
        data=data, losses=losses, choose=choose, size=size, **options
    )
    if oracle.group is not None:
        oracle = dataclasses.replace(oracle, group=min(oracle.group, size))
    return oracle


def _size(data: PyTree) -> int:
    if isinstance(data, Stream):
        return len(data)
    return jax.tree.leaves(data)[0].shape[0]
