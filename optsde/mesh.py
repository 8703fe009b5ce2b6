"""Devices, and the two axes of a mesh: replicas of a run, and the data of one run.

Parameters may be split over the data axis, leaf by leaf. Inside a step such a leaf is a
`Shard`, the part that lies on this device, and it is gathered where it is used.
"""

import dataclasses
import math
import os
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from optsde.hosts import placed
from optsde.types import PyTree

REPLICA = "replica"
DATA = "data"


def expose_cpu_cores(count: int | None = None) -> None:
    """Makes jax see each CPU core as a device, so that replicas run on all of them.

    XLA runs small operations on one thread; two devices keep two cores busy. Call it
    before anything touches a device. Without effect on GPUs and TPUs; XLA_FLAGS or
    JAX_NUM_CPU_DEVICES may set the number already.
    """
    _let_cores_wait()
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        mine = getattr(os, "sched_getaffinity", None)  # Linux: cores of this process
        cores = count or (len(mine(0)) if mine else os.cpu_count() or 1)
        jax.config.update("jax_num_cpu_devices", cores)


def _let_cores_wait() -> None:
    """Lets cores that share a gradient wait: XLA aborts after a minute."""
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_collective_call" not in flags:
        limits = {"warn_stuck": 600, "terminate": 86_400}
        for name, seconds in limits.items():
            flags += f" --xla_cpu_collective_call_{name}_timeout_seconds={seconds}"
        os.environ["XLA_FLAGS"] = flags.strip()


def enable_compilation_cache() -> None:
    """Keeps compiled programs between runs, in $JAX_COMPILATION_CACHE_DIR if it is set.

    By default in ~/.cache/optsde; an empty JAX_COMPILATION_CACHE_DIR switches it off.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    place = os.environ.get("JAX_COMPILATION_CACHE_DIR", os.path.join(home, "optsde"))
    if place:
        jax.config.update("jax_compilation_cache_dir", place)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def run_mesh(replicas: int, shards: int = 1) -> Mesh:
    """Returns devices by [replica, data]; `shards` of them share one replica's work.

    No more devices are taken than there are replicas to fill them, but as many of each
    process, since all take part in a run.
    """
    devices = jax.devices()
    if not 1 <= shards <= len(devices):
        raise ValueError(f"shards={shards}: there are {len(devices)} devices to use")
    rows, processes = _rows(replicas, shards), jax.process_count()
    each = rows * shards // processes
    taken = [x for n in range(processes) for x in _devices_of(n)[:each]]
    if len(taken) < rows * shards:
        raise ValueError(
            f"shards={shards}: {processes} processes with {len(devices)} devices in "
            "all cannot share replicas so; give a divisor of the devices"
        )
    grid = np.array(taken).reshape(rows, shards)
    return Mesh(grid, (REPLICA, DATA))


def _devices_of(process: int) -> list[jax.Device]:
    return [x for x in jax.devices() if x.process_index == process]


def shards_for(replicas: int) -> int:
    """Returns how many devices may share each of so few replicas, at least 1."""
    count = len(jax.devices())
    fitting = range(1, count // replicas + 1)
    return max((n for n in fitting if _rows(replicas, n) * n <= count), default=1)


def _rows(replicas: int, shards: int) -> int:
    """Returns how many rows of devices have replicas, so that processes have equally
    many devices.
    """
    rows = min(len(jax.devices()) // shards, replicas)
    while rows * shards % jax.process_count():
        rows += 1
    return rows


def replicated(tree: PyTree, mesh: Mesh) -> PyTree:
    """Places a copy of the tree on each device of the mesh."""
    return placed(tree, NamedSharding(mesh, PartitionSpec()))


def data_shards() -> int:
    """Returns how many devices share a replica's work, for use inside a step."""
    try:
        return jax.lax.axis_size(DATA)
    except NameError:  # not under a mesh
        return 1


def sum_over_data(tree: PyTree) -> PyTree:
    """Sums over the devices that share a replica: one all-reduce.

    Shards are left alone, since the derivative of `whole`, or `scattered`, summed them.
    """
    if data_shards() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree, is_leaf=_is_shard)
    summed = iter(jax.lax.psum([x for x in leaves if not _is_shard(x)], DATA))
    return structure.unflatten([x if _is_shard(x) else next(summed) for x in leaves])


@partial(jax.tree_util.register_dataclass, data_fields=["value"], meta_fields=["axis"])
@dataclasses.dataclass(frozen=True)
class Shard:
    """The part on one device of a leaf that is split over the data axis."""

    value: Any
    axis: int  # along which the leaf is split


SplitRule: TypeAlias = Callable[[str, tuple[int, ...], int], int | None]
"""(path, shape, shards) -> the axis along which a parameter is split, None: whole.

The path has its names joined by slashes, as in "Dense_0/kernel"."""


def largest_axis(
    path: str, shape: tuple[int, ...], shards: int, least: int = 2**12
) -> int | None:
    """Returns a leaf's largest axis that `shards` divides: the usual `SplitRule`.

    Leaves of fewer than `least` numbers stay whole.

        >>> largest_axis("Dense_0/kernel", (784, 512), 8)
        0
        >>> largest_axis("Dense_0/bias", (512,), 8) is None
        True
    """
    del path
    fitting = [axis for axis, size in enumerate(shape) if size % shards == 0]
    if not fitting or math.prod(shape) < least:
        return None
    return max(fitting, key=lambda axis: shape[axis])


def split(params: PyTree, rule: SplitRule, shards: int) -> PyTree:
    """Returns arrays or their shapes, in a `Shard` where the rule splits a leaf."""

    def of_leaf(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        axis = rule(name, leaf.shape, shards) if shards > 1 else None
        if axis is None:
            return leaf
        if not 0 <= axis < leaf.ndim or leaf.shape[axis] % shards:
            raise ValueError(
                f"sharded: the rule splits {name or 'the parameter'} of shape "
                f"{list(leaf.shape)} along axis {axis}: return one that {shards} "
                "devices divide, or None"
            )
        return Shard(leaf, axis)

    return jax.tree.map_with_path(of_leaf, params)


def whole_where_odd(tree: PyTree, shards: int) -> PyTree:
    """Returns the tree with whole arrays in place of shards that have no such axis.

    A state in the place of a parameter may have another shape, as its rows' means have,
    of which the parameter's axis is missing, or is none that the devices divide.
    """

    def of_leaf(x):
        if not _is_shard(x):
            return x
        shape = x.value.shape
        fits = x.axis < len(shape) and shape[x.axis] % shards == 0
        return x if fits else x.value

    return jax.tree.map(of_leaf, tree, is_leaf=_is_shard)


def whole(tree: PyTree) -> PyTree:
    """Gathers the shards of a tree: one all-gather for each leaf that is split.

    The derivative sums over devices and leaves to each its shard: a reduce-scatter.
    """

    def gathered(x):
        if not _is_shard(x):
            return x
        return jax.lax.all_gather(x.value, DATA, axis=x.axis, tiled=True)

    return jax.tree.map(gathered, tree, is_leaf=_is_shard)


def scattered(tree: PyTree, like: PyTree) -> PyTree:
    """Sums over devices what is split in `like`; each device keeps its shard."""

    def of_leaf(wanted, x):
        if not _is_shard(wanted):
            return x
        axis = wanted.axis
        mine = jax.lax.psum_scatter(x, DATA, scatter_dimension=axis, tiled=True)
        return Shard(mine, axis)

    return jax.tree.map(of_leaf, like, tree, is_leaf=_is_shard)


def own_shards(tree: PyTree, like: PyTree) -> PyTree:
    """Returns this device's shards of a tree that is whole and equal on all devices."""

    def of_leaf(wanted, x):
        if not _is_shard(wanted):
            return x
        size = x.shape[wanted.axis] // data_shards()
        first = jax.lax.axis_index(DATA) * size
        mine = jax.lax.dynamic_slice_in_dim(x, first, size, wanted.axis)
        return Shard(mine, wanted.axis)

    return jax.tree.map(of_leaf, like, tree, is_leaf=_is_shard)


def whole_shapes(tree: PyTree) -> PyTree:
    """Returns the tree with the shape of the whole leaf in place of each shard."""

    def of_leaf(x):
        if not _is_shard(x):
            return x
        shape = list(x.value.shape)
        shape[x.axis] *= data_shards()
        return jax.ShapeDtypeStruct(tuple(shape), x.value.dtype)

    return jax.tree.map(of_leaf, tree, is_leaf=_is_shard)


def norm(tree: PyTree) -> jax.Array:
    """Returns the 2-norm of a whole tree, of which parts may lie in shards."""
    if not has_shards(tree):
        return optax.tree.norm(tree)
    leaves = jax.tree.leaves(tree, is_leaf=_is_shard)
    shared = optax.tree.norm([x.value for x in leaves if _is_shard(x)], squared=True)
    rest = [x for x in leaves if not _is_shard(x)]
    return jnp.sqrt(jax.lax.psum(shared, DATA) + optax.tree.norm(rest, squared=True))


def axes(tree: PyTree) -> list[int | None]:
    """Returns of each array of a tree the axis along which it is split, or None."""
    return [
        part.axis if _is_shard(part) else None
        for part in jax.tree.leaves(tree, is_leaf=_is_shard)
        for _ in jax.tree.leaves(part)
    ]


def has_shards(tree: PyTree) -> bool:
    """Returns whether any leaf of the tree is split over devices."""
    return any(map(_is_shard, jax.tree.leaves(tree, is_leaf=_is_shard)))


def _is_shard(x: Any) -> bool:
    return isinstance(x, Shard)
