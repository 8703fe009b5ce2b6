"""Examples that lie on the device, as a source of batches."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from optsde.checks import check_rows
from optsde.data.stream import Arrays, Stream
from optsde.types import PyTree


@partial(jax.tree_util.register_dataclass, data_fields=["arrays"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Resident:
    """A source of examples on the device: example i is row i of arrays [n, …]."""

    arrays: PyTree
    stream = None  # nothing is read ahead
    own = False  # a device has all examples, and not those of its own groups alone

    def __len__(self) -> int:
        return jax.tree.leaves(self.arrays)[0].shape[0]

    def at(self, step: jax.Array, index: jax.Array) -> tuple[PyTree, jax.Array]:
        """Returns arrays, and where in them the examples of this index lie."""
        del step
        return self.arrays, index


def source_of(data: Any) -> Resident | Stream:
    """Returns a source of batches: itself, or arrays placed on the device.

    A `Resident` may hold shapes in place of arrays, for steps that are only traced.
    """
    if isinstance(data, Resident | Stream):
        return data
    check_rows("data", data)
    return Resident(on_device(data))


def arrays_of(source: Resident | Stream) -> list[Any]:
    """Returns the arrays that examples are rows of; none where a stream makes them."""
    if isinstance(source, Resident):
        return jax.tree.leaves(source.arrays)
    known = isinstance(source.source, Arrays) and source.example is None
    return list(source.source.parts) if known else []


def on_device(data: PyTree) -> PyTree:
    """Places arrays on the device, also where a function that uses them is traced.

    There `jnp.asarray` of a numpy array would be a constant of the compiled program.
    """
    with jax.ensure_compile_time_eval():
        return jax.tree.map(jnp.asarray, data)
