"""Batches of data that do not fit on the device, read while earlier ones are in use.

The oracle itself says which examples its next steps take, so a streamed run is bit for
bit the run with all data on the device.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optsde.data.stream import Stream
from optsde.dynamics.discrete import Dynamics, State
from optsde.gradients import Draw, ExampleOracle
from optsde.hosts import gathered
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
    """The batches of some steps to come, on the device: leaves [steps, batch, …]."""

    examples: PyTree
    first: jax.Array | np.ndarray  # the step of the first of them
    stream = None  # nothing is read ahead: this was

    def at(self, step: jax.Array, index: jax.Array) -> tuple[PyTree, jax.Array]:
        """Returns the batch of a step, and where in it the examples lie: in order."""
        batch = jax.tree.map(lambda x: x[step - self.first], self.examples)
        return batch, jnp.arange(index.size).reshape(index.shape)


class Feed:
    """Windows of a stream for the steps of a run."""

    def __init__(
        self, dynamics: Dynamics, replicas: int, spread: Callable[[PyTree], PyTree]
    ):
        self.oracle: ExampleOracle = dynamics.source
        self.stream: Stream = self.oracle.source
        self._spread = spread
        self._example = self.stream.fetch(np.zeros(1, int))
        self._batch = self.oracle.examples
        size = sum(x.nbytes for x in jax.tree.leaves(self._example))
        fitting = WINDOW_BYTES // (size * self._batch * replicas)
        self.length = max(1, min(LONGEST_WINDOW, fitting))
        # On the host's own device, where the work of the others delays nothing.
        self._chosen = jax.jit(self._indices)
        self._follows: tuple = None, None
        self._windows: Iterator[Window] = iter(())
        self._window: Any = None
        self._step = self._first = 0

    def blank(self, replicas: int) -> Window:
        """Returns a window of the right shapes, to compile with."""
        lead = replicas, self.length, self._batch
        zeros = jax.tree.map(
            lambda x: np.zeros((*lead, *x.shape[1:]), x.dtype), self._example
        )
        return Window(zeros, np.zeros(replicas, np.int32))

    def parts(self, state: State, steps: int) -> Iterator[tuple[Window, int]]:
        """Yields the windows for the next steps, and how many steps each serves."""
        if not (state.step is self._follows[0] and state.key is self._follows[1]):
            self._begin(state)
        end = self._step + steps
        while self._step < end:
            if self._window is None or self._step == self._first + self.length:
                self._first = self._step - self._step % self.length
                self._window = self._spread(next(self._windows))
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

        def batches():
            indices = (np.asarray(self._chosen(keys, first)) for first in firsts)
            for first, read in zip(firsts, self.stream.batches(indices), strict=False):
                yield Window(read, np.full(len(keys), first, np.int32))

        self._windows = batches()

    def _indices(self, keys: jax.Array, first: jax.Array) -> jax.Array:
        """Returns the examples of steps from `first` on, [replicas, length, batch]."""

        def of_step(key, step):
            return self.oracle.index(Draw(key, step)).reshape(-1)

        def of_run(key):
            steps = first + jnp.arange(self.length, dtype=jnp.int32)
            return jax.lax.map(partial(of_step, key), steps)

        return jax.vmap(of_run)(keys)
