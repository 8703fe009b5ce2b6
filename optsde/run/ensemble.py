"""Ensembles: every run is many replicas at once, observed on the common clock.

A replica is a seed, or a seed with its own hyperparameters.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from optsde.checks import check_function
from optsde.dynamics.discrete import Dynamics
from optsde.measure.probe import probe
from optsde.run.given import check_distinct, check_times
from optsde.run.loop import Run
from optsde.run.progress import Progress
from optsde.run.rows import Series
from optsde.types import PyTree


class Trajectory(NamedTuple):
    """The observations of an ensemble, and its last state."""

    times: np.ndarray  # [times], in base steps
    values: Any  # what was observed, leaves [replicas, times, ...]
    state: PyTree  # at the last time, leaves [replicas, ...]
    seconds: float  # of running
    compile_seconds: float

    def diverged(self) -> tuple[float, float] | None:
        """Returns the interval of time in which a replica first left finite numbers."""
        return Series(self.times, self.values).diverged()

    def lost(self) -> tuple[list[int], int]:
        """Returns the replicas that left finite numbers, and how many there are."""
        return Series(self.times, self.values).lost()


def ensemble(
    dynamics: Dynamics | Callable[[Any], Dynamics],
    keys: jax.Array,
    times: Sequence[float],
    observe: Callable[[PyTree], PyTree],
    *,
    members: PyTree = None,
    state: PyTree = None,
    shards: int = 1,
    journal: str | Path | None = None,
    progress: Progress | None = None,
) -> Trajectory:
    """Runs one replica per key and observes each at the given times.

    Args:
      dynamics: such as `discrete(plan, sampler, params)` or `sde(plan, law, params)`.
      keys: [replicas]; a replica is a seed, or a seed with hyperparameters of its own.
      times: rising, in base steps; 0 is the initial state.
      observe: a function of one replica's state.
      members: hyperparameters with a leading replica axis; `dynamics` is then a
        function of one, say `lambda adam: discrete(replace(plan, optimizer=adam), …)`.
      state: a stacked state to go on from, which carries its own time and keys.
      shards: devices that share the gradients of each replica, for oracles of examples.
      journal: a folder of this ensemble alone, from which the same call goes on.
      progress: the line that tells how far the run is.
    """
    if state is None:  # which carries its own keys
        check_distinct(keys, members)
    check_times("times", times)
    check_function("observe", observe, "of one replica's state")
    if np.ndim(times) != 1 or not len(times):
        raise ValueError(f"times={times}: must rise, one or more of them")
    observed = probe(lambda _, state: {"observed": observe(state)}, times=times)
    if progress:
        progress.compiling()
    run = Run(
        dynamics,
        keys,
        probes=[observed],
        members=members,
        state=state,
        shards=shards,
        journal=journal,
    )
    result = run.to(times[-1], progress=progress, stop_at_divergence=False)
    series = result.metrics["observed"]
    _, at = np.unique(np.asarray(times), return_inverse=True)  # times given twice
    return Trajectory(
        np.array(times),
        jax.tree.map(lambda x: x[:, at], series.values),
        result.state,
        result.seconds,
        result.compile_seconds,
    )
