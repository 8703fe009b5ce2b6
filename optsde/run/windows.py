"""Batches of data that do not fit on the device, read while earlier ones are in use.

The oracle itself says which examples its next steps take, so a streamed run is bit for
bit the run with all data on the device.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from optsde.data.stream import Stream
from optsde.dynamics.discrete import Dynamics, State
from optsde.gradients import Draw, ExampleOracle
from optsde.hosts import gathered, placed
from optsde.mesh import DATA, REPLICA
from optsde.types import PyTree

WINDOW_BYTES = 2**26  # on the device; two more wait on the host
LONGEST_WINDOW = 64  # steps


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["examples", "first"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Window:
    """The batches of some steps to come: leaves [steps, batch, …].

    A device has the examples of its own groups alone, in their order.
    """

    examples: PyTree
    first: Any  # the step of the first of them
    stream = None  # nothing is read ahead: this was
    own = True

    def at(self, step: jax.Array, index: jax.Array) -> tuple[PyTree, jax.Array]:
        """Returns the batch of a step; where in it examples lie follows from `own`."""
        return jax.tree.map(lambda x: x[step - self.first], self.examples), index


class Feed:
    """Windows of a stream for the steps of a run.

    Of each batch a process reads the examples that its own devices take, once each.
    """

    specs = Window(PartitionSpec(REPLICA, None, DATA), PartitionSpec(REPLICA))

    def __init__(self, dynamics: Dynamics, replicas: int, mesh: Mesh):
        self.oracle: ExampleOracle = dynamics.source
        self.stream: Stream = self.oracle.source
        self._example = self.stream.fetch(np.zeros(1, int))
        size = sum(x.nbytes for x in jax.tree.leaves(self._example))
        fitting = WINDOW_BYTES // (size * self.oracle.examples * replicas)
        self.length = max(1, min(LONGEST_WINDOW, fitting))
        rows, shards = mesh.shape[REPLICA], mesh.shape[DATA]
        self._places = self.oracle.places(shards).reshape(-1)
        # Copies of the last replica make them even, as those of states do.
        self._replicas = np.minimum(
            np.arange(-(-replicas // rows) * rows), replicas - 1
        )
        self._sharding = jax.tree.map(partial(NamedSharding, mesh), self.specs)
        wanted = np.zeros((replicas, self.oracle.examples), bool)
        shape = len(self._replicas), self.length, len(self._places)
        blocks = self._sharding.examples.addressable_devices_indices_map(shape)
        for block in blocks.values():
            wanted[self._named(block)] = True
        self._read = np.nonzero(wanted)  # replicas, places: what this process reads
        self._column = np.cumsum(wanted).reshape(wanted.shape) - 1  # where it then is
        # On the host's own device, where the work of the others delays nothing.
        self._chosen = jax.jit(self._indices)
        self._follows: tuple = None, None
        self._windows: Iterator[Window] = iter(())
        self._window: Any = None
        self._step = self._first = 0

    def blank(self) -> Window:
        """Returns a window of the right shapes, to compile with."""
        lead = self.length, len(self._read[0])
        zeros = jax.tree.map(
            lambda x: np.zeros((*lead, *x.shape[1:]), x.dtype), self._example
        )
        return self._placed(zeros, 0)

    def _named(self, block: tuple[slice, ...]) -> tuple[np.ndarray, ...]:
        """Returns the replicas and places of a device's block [replicas, _, places]."""
        replicas, _, places, *_ = block
        return np.ix_(self._replicas[replicas], self._places[places])

    def _placed(self, read: PyTree, first: int) -> Window:
        """Returns the window, on the devices, of leaves [steps, what is read, …]."""
        replicas, steps, places = len(self._replicas), self.length, len(self._places)

        def spread(x):
            def of_device(block):
                columns = self._column[self._named(block)]
                return np.stack([x[:, mine] for mine in columns])

            shape = replicas, steps, places, *x.shape[2:]
            sharding = self._sharding.examples
            return jax.make_array_from_callback(shape, sharding, of_device)

        firsts = np.full(replicas, first, np.int32)
        examples = jax.tree.map(spread, read)
        return Window(examples, placed(firsts, self._sharding.first))

    def parts(self, state: State, steps: int) -> Iterator[tuple[Window, int]]:
        """Yields the windows for the next steps, and how many steps each serves."""
        if not (state.step is self._follows[0] and state.key is self._follows[1]):
            self._begin(state)
        end = self._step + steps
        while self._step < end:
            if self._window is None or self._step == self._first + self.length:
                self._first = self._step - self._step % self.length
                self._window = next(self._windows)
            count = min(end, self._first + self.length) - self._step
            yield self._window, count
            self._step += count

    def follow(self, state: State) -> None:
        """Notes the state that the parts led to; going on from it rereads nothing."""
        self._follows = state.step, state.key

    def _begin(self, state: State) -> None:
        """Goes to the step of a state that this feed has not led to."""
        steps = np.unique(gathered(state.step))
        if len(steps) > 1:
            raise ValueError(
                f"a stream needs replicas at one step; these are at {steps.tolist()}"
            )
        self._step, self._window = int(steps[0]), None
        firsts = range(self._step - self._step % self.length, 2**31, self.length)
        host = jax.local_devices(backend="cpu")[0]
        key_data = gathered(jax.random.key_data(state.key))
        keys = jax.random.wrap_key_data(
            jax.device_put(key_data, host), impl=jax.random.key_impl(state.key)
        )

        replicas, places = self._read

        def batches():
            chosen = (np.asarray(self._chosen(keys, first)) for first in firsts)
            indices = (index[replicas, :, places].T for index in chosen)
            for first, read in zip(firsts, self.stream.batches(indices), strict=False):
                yield self._placed(read, first)

        self._windows = batches()

    def _indices(self, keys: jax.Array, first: jax.Array) -> jax.Array:
        """Returns the examples of steps from `first` on, [replicas, length, batch]."""

        def of_step(key, step):
            return self.oracle.index(Draw(key, step)).reshape(-1)

        def of_run(key):
            steps = first + jnp.arange(self.length, dtype=jnp.int32)
            return jax.lax.map(partial(of_step, key), steps)

        return jax.vmap(of_run)(keys)
