"""Processes that share a run: how they meet, and what process 0 tells the others.

On several hosts the same program runs in several processes, each with devices of its
own, which `jax.distributed` joins to one mesh. All compute; process 0 alone decides,
writes and prints. A process by itself is process 0.

What is *collective* here must be called by all processes, at the same place.
"""

import hashlib
import os
import pickle
import sys
import threading
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from optsde.types import PyTree

PATIENCE = 30  # seconds without a sign after which a process is taken for lost

Value = TypeVar("Value")


def connect(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the processes of a run; call it before anything touches a device.

    On a TPU pod, under SLURM and Open MPI no argument is needed, nor under another MPI
    where mpi4py is installed. A process that none of them launched remains alone.

    Args:
      coordinator: HOST:PORT of process 0, any free port.
      num_processes: how many there are; 1 leaves this one alone, whatever launched it.
      process_id: which of them this one is, from 0.
    """
    given = coordinator, num_processes, process_id
    if num_processes is not None and not 0 <= (process_id or 0) < num_processes:
        raise ValueError(
            f"process_id={process_id}: must be from 0 to {num_processes - 1}"
        )
    if num_processes == 1 or jax.distributed.is_initialized():
        return
    limits: dict[str, Any] = dict(
        heartbeat_timeout_seconds=PATIENCE, shutdown_timeout_seconds=PATIENCE
    )
    if given != (None, None, None):
        if coordinator is None or num_processes is None or process_id is None:
            raise ValueError(
                "coordinator, num_processes and process_id: give all three, or none "
                "where a TPU pod, SLURM or MPI tells them"
            )
        host, _, port = coordinator.rpartition(":")
        if not (host and port.isdecimal()):
            raise ValueError(f"coordinator={coordinator}: must be HOST:PORT")
        method = "deactivate"
    else:
        mpi = int(os.environ.get("PMI_SIZE", "1")) > 1 and find_spec("mpi4py")
        method = "mpi4py" if mpi and "SLURM_PROCID" not in os.environ else None
    words = "note: waiting for the other processes; num_processes=1 runs alone"
    patience = threading.Timer(5, partial(print, words, file=sys.stderr, flush=True))
    patience.start()
    try:
        jax.distributed.initialize(*given, cluster_detection_method=method, **limits)
    except (ValueError, RuntimeError) as error:
        alone = "should be defined", "must be called before any JAX calls"
        if given != (None, None, None) or not any(x in str(error) for x in alone):
            raise ValueError(f"the processes did not meet: {error}") from None
    finally:
        patience.cancel()


def first() -> bool:
    """Tells whether this is process 0, which decides, writes and prints."""
    return index() == 0


def index() -> int:
    """Returns which of the processes this is, from 0."""
    return jax.process_index()


def several() -> bool:
    """Tells whether there are other processes."""
    return jax.process_count() > 1


def devices() -> str:
    """Returns how many devices all processes have, and of which kind, in words."""
    every = jax.devices()
    shared = f" of {jax.process_count()} processes" if several() else ""
    return f"{len(every)} × {every[0].device_kind}{shared}"


def all_gather(numbers: Any) -> np.ndarray:
    """Returns the numbers that each process gives, [processes, …]: collective."""
    if not several():
        return np.asarray(numbers)[None]
    return multihost_utils.process_allgather(np.asarray(numbers))


def check_alike(what: str, value: Any) -> None:
    """Refuses to go on where processes differ in what they were given: collective."""
    digest = hashlib.sha256(repr(value).encode()).digest()[:4]
    numbers = all_gather(np.frombuffer(digest, np.int32)).ravel()
    if others := np.flatnonzero(numbers != numbers[0]).tolist():
        raise ValueError(
            f"process {others[0]} has other {what} than process 0: run the same "
            "command, code and files everywhere"
        )


def broadcast(make: Callable[[], Value]) -> Value:
    """Returns what `make` returns at process 0, which alone calls it: collective.

    An error that it raises there is raised everywhere.
    """
    if not several():
        return make()
    message, error = b"", None
    if first():
        try:
            message = pickle.dumps((make(), None))
        except Exception as caught:
            error, message = caught, pickle.dumps((None, _sendable(caught)))
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(message))))
    room = np.zeros(1 << size.bit_length(), np.uint8)  # few shapes to compile
    room[: len(message)] = np.frombuffer(message, np.uint8)
    received = multihost_utils.broadcast_one_to_all(room)[:size].tobytes()
    if error is not None:
        raise error
    value, raised = pickle.loads(received)
    if raised is not None:
        raise raised
    return value


def _sendable(error: Exception) -> Exception:
    """Returns an error that can be sent: itself, or its kind and text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def placed(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Returns arrays placed on devices, also of other processes.

    Every process gives the whole of each array, the same as the others.
    """
    if not several():
        return jax.device_put(tree, sharding)

    def place(x):
        if isinstance(x, jax.Array) and _is_far(x):
            return jax.device_put(x, sharding)
        whole = np.asarray(key_numbers(x))
        made = jax.make_array_from_callback(
            whole.shape, sharding, lambda index: whole[index]
        )
        return with_keys(made, x)

    return jax.tree.map(place, tree)


def everywhere(tree: PyTree) -> PyTree:
    """Returns arrays of which each process has all, on a device of its own: collective.

    So numpy can read them, and what is done with them is not collective. Those that lie
    within this process stay as they are.
    """
    leaves, structure = jax.tree.flatten(tree)
    far = [i for i, x in enumerate(leaves) if _is_far(x)]
    if far:
        mesh = leaves[far[0]].sharding.mesh
        copied = _copied(NamedSharding(mesh, PartitionSpec()))
        for i, x in zip(
            far, copied([key_numbers(leaves[i]) for i in far]), strict=True
        ):
            leaves[i] = with_keys(x.addressable_data(0), leaves[i])
    return structure.unflatten(leaves)


def gathered(tree: PyTree) -> PyTree:
    """Returns arrays as numpy's, also those that span processes: collective."""
    return jax.device_get(everywhere(tree))


def _is_far(x: Any) -> bool:
    return isinstance(x, jax.Array) and not x.is_fully_addressable


def _is_key(x: jax.Array) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def key_numbers(x: jax.Array) -> jax.Array:
    """Returns keys as numbers, and any other array as it is."""
    return jax.random.key_data(x) if _is_key(x) else x


def with_keys(x: jax.Array, given: jax.Array) -> jax.Array:
    """Returns numbers as keys of the kind of `given`, where these are keys."""
    if not _is_key(given):
        return x
    return jax.random.wrap_key_data(x, impl=jax.random.key_impl(given))


@cache
def _copied(sharding: NamedSharding) -> Callable[[list[jax.Array]], list[jax.Array]]:
    return jax.jit(lambda arrays: arrays, out_shardings=sharding)


def leave(code: int) -> NoReturn:
    """Ends this process at once, without the others, who notice that it is gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
