"""Devices, and the axis along which ensembles are sharded."""

import os

import jax
import numpy as np
from jax.sharding import Mesh

REPLICA = "replica"


def expose_cpu_cores(count: int | None = None) -> None:
    """Make jax see each CPU core as a device, so that replicas run on all of them.

    XLA runs small operations on one thread; two devices keep two cores busy. Call it
    before anything touches a device. Without effect on GPUs and TPUs, or where
    XLA_FLAGS or JAX_NUM_CPU_DEVICES set the number already.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        mine = getattr(os, "sched_getaffinity", None)  # Linux: cores of this process
        cores = count or (len(mine(0)) if mine else os.cpu_count() or 1)
        jax.config.update("jax_num_cpu_devices", cores)


def enable_compilation_cache() -> None:
    """Keep compiled programs between runs, in $JAX_COMPILATION_CACHE_DIR if it is set.

    By default in ~/.cache/optsde; an empty JAX_COMPILATION_CACHE_DIR switches it off.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    place = os.environ.get("JAX_COMPILATION_CACHE_DIR", os.path.join(home, "optsde"))
    if place:
        jax.config.update("jax_compilation_cache_dir", place)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def replica_mesh(replicas: int) -> Mesh:
    """All local devices along one axis, but no more of them than replicas."""
    devices = jax.local_devices()[:replicas]
    return Mesh(np.array(devices), (REPLICA,))
