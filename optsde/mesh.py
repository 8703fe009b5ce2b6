"""Devices, and the two axes of a mesh: replicas of a run, and the data of one run."""

import os

import jax
import numpy as np
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
    rows, processes = min(len(devices) // shards, replicas), jax.process_count()
    while rows * shards % processes:
        rows += 1
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
    return max(1, jax.device_count() // replicas)


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
    """Sums over the devices that share a replica: one all-reduce."""
    return tree if data_shards() == 1 else jax.lax.psum(tree, DATA)
