"""Weighted sums of gradients over groups of examples, split over steps and devices.

A group is what the model sees in one call: a ghost group of BatchNorm, a block of the
penalty, a micro-batch. Groups are made by position, so the sum is the same function for
any number of groups at once and any number of devices, and it ends in one all-reduce.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optsde import squares
from optsde.mesh import DATA, data_shards, scattered, sum_over_data, whole
from optsde.types import PyTree


class Groups(NamedTuple):
    """The groups that examples are split into, and their weights in a sum.

    Rows that only fill up the last group of a part are copies that do not count.
    """

    index: jax.Array  # [groups, rows] which examples
    slot: np.ndarray | jax.Array  # [groups, rows] the position of each, from 0
    counted: np.ndarray | jax.Array | None  # [groups, rows] False: only fills up
    weight: np.ndarray | jax.Array  # [groups]


WeightedSum = Callable[[PyTree, Groups], PyTree]  # (params, groups) -> Σ weight·number


def grouped(index: jax.Array, rows: int, weight: np.ndarray) -> Groups:
    """Splits [parts, n] indices into groups of `rows`; the last of a part is filled up.

    weight: [groups], of all parts one after the other.
    """
    parts, size = index.shape
    count = -(-size // rows)
    fill = count * rows - size
    whole = jnp.concatenate([index, index[:, :fill]], axis=1) if fill else index
    slot = np.arange(count * rows)[None] + count * rows * np.arange(parts)[:, None]
    counted = np.broadcast_to(np.arange(count * rows) < size, slot.shape)
    shape = (parts * count, rows)
    return Groups(
        whole.reshape(shape),
        slot.reshape(shape).astype(np.int32),
        counted.reshape(shape) if fill else None,
        weight,
    )


def shares(size: int, rows: int) -> np.ndarray:
    """Returns each group's share of `size` examples; the last group may be smaller."""
    count = -(-size // rows)
    share = np.full(count, rows / size)
    share[-1] = 1 - share[:-1].sum()
    return share


def mean_over(
    function: Callable[[PyTree, jax.Array | None], PyTree], data: PyTree, rows: int
) -> PyTree:
    """Returns the mean over all examples of what are means over groups of `rows`.

    function(examples, mask) gives the means over those examples that the mask counts.
    """
    data = jax.tree.map(jnp.asarray, data)
    size = jax.tree.leaves(data)[0].shape[0]
    rows = min(rows, size)
    groups = grouped(jnp.arange(size)[None], rows, shares(size, rows))

    def of_group(_, group):
        examples = jax.tree.map(lambda x: x[group.index], data)
        return function(examples, group.counted)

    return sum_over_groups(weighted(of_group), None, groups, 1)


def sum_over_groups(
    part: WeightedSum, params: PyTree, groups: Groups, at_once: int, own: bool = False
) -> PyTree:
    """Returns `part(params, groups)` of all groups, on all devices.

    Args:
      part: the weighted sum over the groups of one pass.
      params: where it is taken.
      groups: of all devices together.
      at_once: groups in one pass; memory is that of one pass.
      own: whether a device has the examples of its groups alone, in their order.
    """
    mine, at_once = _my_share(groups, at_once)
    if own:
        in_order = np.arange(mine.index.size).reshape(mine.index.shape)
        mine = mine._replace(index=jnp.asarray(in_order))
    count = mine.index.shape[0]
    if count == at_once:
        return sum_over_data(part(params, mine))

    def add(total, chunk):
        more = part(params, chunk)
        return jax.tree.map(jnp.add, total, more), None

    chunks = jax.tree.map(lambda x: x.reshape(-1, at_once, *x.shape[1:]), mine)
    first = jax.tree.map(lambda x: x[0], chunks)
    zero = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(part, params, first)
    )
    return sum_over_data(jax.lax.scan(add, zero, chunks)[0])


def gathered_twice(total: Callable[[PyTree, Groups], jax.Array]) -> WeightedSum:
    """Returns Σ_b w_b L_b of groups and its gradient, at parameters in shards.

    They are gathered for the loss and again for its derivative, so that no copy is kept
    in between, and the gradient is scattered as it is summed.
    """

    def of_shards(params, groups):
        return total(whole(params), groups)

    def keep(primitive, *_, **__):
        return primitive is not jax.lax.all_gather_p

    return jax.value_and_grad(jax.checkpoint(of_shards, policy=keep))


def gathered_once(part: WeightedSum) -> WeightedSum:
    """Returns a part of the sum, at parameters in shards.

    It is for what needs the gradient of each group by itself: the device has all
    parameters, and a whole gradient, until the pass is done.
    """

    def of_shards(params, groups):
        loss, grads = part(whole(params), groups)
        return loss, squares.each(lambda tree: scattered(tree, params), grads)

    return of_shards


def weighted(function: Callable[[PyTree, Groups], PyTree]) -> WeightedSum:
    """Returns Σ_b w_b function(params, group b), each group's numbers by itself."""

    def part(params, groups):
        return weighted_sum(groups.weight, each_group(function, params, groups))

    return part


def each_group(
    function: Callable[[PyTree, Groups], PyTree], params: PyTree, groups: Groups
) -> PyTree:
    """Returns function(params, group) of every group, leaves [groups, …]."""
    if groups.index.shape[0] > 1:
        return jax.vmap(function, (None, 0))(params, groups)
    only = jax.tree.map(lambda x: x[0], groups)
    return jax.tree.map(lambda x: x[None], function(params, only))


def weighted_sum(weight: jax.Array | np.ndarray, each: PyTree) -> PyTree:
    """Returns Σ_b w_b x_b of leaves [groups, …]."""

    def total(x):
        w = weight.astype(x.dtype)
        return w[0] * x[0] if len(w) == 1 else jnp.tensordot(w, x, 1)

    return jax.tree.map(total, each)


def _my_share(groups: Groups, at_once: int) -> tuple[Groups, int]:
    """Returns this device's groups; copies of the first, of weight 0, even them out."""
    shards, count = data_shards(), groups.index.shape[0]
    mine, at_once = _evenly(count, at_once, shards)
    fill = shards * mine - count

    def filled(x):
        return jnp.concatenate([x, jnp.repeat(x[:1], fill, axis=0)]) if fill else x

    weight = np.concatenate([groups.weight, np.zeros(fill, groups.weight.dtype)])
    groups = jax.tree.map(filled, groups)._replace(weight=weight)
    groups = jax.tree.map(jnp.asarray, groups)
    if shards > 1:
        start = jax.lax.axis_index(DATA) * mine
        groups = jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x, start, mine), groups
        )
    return groups, at_once


def _evenly(count: int, at_once: int, shards: int) -> tuple[int, int]:
    """Returns how many of `count` groups each device has, and how many in a pass."""
    at_once = min(at_once, -(-count // shards))
    return -(-count // (shards * at_once)) * at_once, at_once


def places(parts: int, size: int, rows: int, at_once: int, shards: int) -> np.ndarray:
    """Returns the examples of each device's groups, [shards, groups · rows].

    They are named by their places in the [parts, size] indices that are `grouped`.
    """
    count = -(-size // rows)
    inside = np.arange(count * rows) % size  # the first fill up the last group
    place = inside + size * np.arange(parts)[:, None]
    groups = place.reshape(parts * count, rows)
    mine, _ = _evenly(parts * count, at_once, shards)
    fill = np.repeat(groups[:1], shards * mine - parts * count, axis=0)
    return np.concatenate([groups, fill]).reshape(shards, -1)
