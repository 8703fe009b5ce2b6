"""Probes: measurements that a run takes of itself as it goes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from optsde.types import PyTree

Times = float | Sequence[float] | None


class Probe(NamedTuple):
    """A measurement of one replica's state, taken at given times of a run.

    Attributes:
      observe: (source, state, memory) -> (metrics, memory for the next time). A run
        maps it over replicas and devices, and compiles it. Metrics are named arrays, or
        named pytrees of them.
      init: state -> the first memory, such as a vector to begin a search with. The
        memory is part of the run's journal.
      source: what it reads besides the state, such as data, which is then an argument
        of the compiled function and no constant in it.
      times: base steps from one measurement to the next, with both ends of the run, or
        the times themselves. None: those at which the run writes its rows.
      finite: whether a run must stop where a metric is not finite. A threshold may be
        infinite, a loss may not.
    """

    observe: Callable[[Any, Any, PyTree], tuple[dict[str, Any], PyTree]]
    init: Callable[[Any], PyTree] = lambda state: ()
    source: PyTree = ()
    times: Times = None
    finite: bool = False

    def at(self, times: Times) -> "Probe":
        """Returns the same probe at other times."""
        return self._replace(times=times)

    def named(self, name: Callable[[str], str]) -> "Probe":
        """Returns the same probe with its metrics' names changed."""

        def observe(source, state, memory):
            metrics, memory = self.observe(source, state, memory)
            return {name(key): value for key, value in metrics.items()}, memory

        return self._replace(observe=observe)


def probe(
    function: Callable[..., dict[str, Any]],
    source: PyTree = (),
    times: Times = None,
) -> Probe:
    """Returns the probe of function(source, state) -> metrics, which keeps no memory.

    >>> import jax.numpy as jnp
    >>> size = probe(lambda _, state: {"norm": jnp.linalg.norm(state.params)}, times=10)
    """

    def observe(source, state, memory):
        return function(source, state), memory

    return Probe(observe, source=source, times=times)
