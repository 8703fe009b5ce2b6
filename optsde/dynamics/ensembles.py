"""Ensembles: every run is many replicas at once, observed on the common clock.

A replica is a seed, or a seed with its own hyperparameters.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optsde.dynamics.algorithm import Dynamics
from optsde.dynamics.engine import Engine
from optsde.dynamics.progress import Progress
from optsde.types import PyTree

CHUNK_SECONDS = 0.5  # between two updates of the progress line


class Trajectory(NamedTuple):
    times: np.ndarray  # [times], in base steps
    values: Any  # what was observed, leaves [replicas, times, ...]
    state: PyTree  # at the last time, leaves [replicas, ...]
    seconds: float  # of running
    compile_seconds: float

    def diverged(self) -> tuple[float, float] | None:
        """The interval of time in which some replica first became non-finite."""
        finite = [
            np.isfinite(x).all(axis=tuple(i for i in range(x.ndim) if i != 1))
            for x in map(np.asarray, jax.tree.leaves(self.values))
        ]
        bad = ~np.logical_and.reduce(finite)
        if not bad.any():
            return None
        first = int(bad.argmax())
        return float(self.times[max(first - 1, 0)]), float(self.times[first])


def ensemble(
    dynamics: Dynamics | Callable[[Any], Dynamics],
    keys: jax.Array,
    times: Sequence[float],
    observe: Callable[[PyTree], PyTree],
    *,
    members: PyTree = None,
    state: PyTree = None,
    start: float | None = None,
    shards: int = 1,
    progress: Progress | None = None,
) -> Trajectory:
    """Run one replica per key and observe each at the given times (in base steps).

    observe: a function of the state, evaluated at every time; 0 is the initial state.
    members: hyperparameters with a leading replica axis; `dynamics` is then a function
    of one member, say `lambda adam: discrete(replace(plan, optimizer=adam), ...)`.
    state, start: go on from this stacked state, which stands at time `start`. It
    carries its own keys; `keys` then says how many replicas there are.
    shards: devices that share the gradients of each replica, for oracles of examples.
    """
    if members is not None and isinstance(dynamics, Dynamics):
        raise ValueError(
            "members need dynamics as a function of one member, such as lambda adam: "
            "discrete(replace(plan, optimizer=adam), sampler, params)"
        )
    if (state is None) != (start is None):
        raise ValueError("state and start go together: the state stands at that time")
    start = start or 0.0
    for leaf in jax.tree.leaves(members):
        if np.shape(leaf)[:1] != keys.shape[:1]:
            raise ValueError(
                f"members has a leaf of shape {np.shape(leaf)}, and there are "
                f"{keys.shape[0]} keys: stack every hyperparameter, as in "
                "jax.vmap(lambda lr: Adam(lr=lr))(lrs)"
            )

    engine = Engine(dynamics, keys.shape[0], members=members, shards=shards)
    stops = _steps(times, start, engine.dt)
    launch = time.monotonic()
    if state is None:
        state = engine.init(keys)
    else:
        # The caller's own is not donated.
        state = engine.spread(jax.tree.map(jnp.copy, state))
    engine.compile(state)
    look = engine.each(observe)
    jax.block_until_ready(look(state))

    seen, at, chunk = [], 0, 16
    begun = time.monotonic()
    if progress:
        progress.begin(start)
    for stop in stops:
        while at < stop:
            count = min(chunk, stop - at) if progress else stop - at
            tick = time.monotonic()
            state, _ = engine.advance(state, (), count)
            at += count
            if progress:
                jax.block_until_ready(state)
                pace = (time.monotonic() - tick) / count
                chunk = max(1, min(2 * chunk, int(CHUNK_SECONDS / pace)))
                progress.update(start + at * engine.dt, times[-1])
        seen.append(look(state))
    jax.block_until_ready((state, seen))
    ended = time.monotonic()

    values = jax.tree.map(
        lambda *leaves: np.stack([np.asarray(x) for x in leaves], axis=1),
        *(engine.kept(x) for x in seen),
    )
    state = engine.kept(state)
    return Trajectory(np.array(times), values, state, ended - begun, begun - launch)


def _steps(times: Sequence[float], start: float, dt: float) -> list[int]:
    """The step count of each time; refuses times between steps, or out of order."""
    stops = [round((t - start) / dt) for t in times]
    for t, stop in zip(times, stops, strict=True):
        if abs(start + stop * dt - t) > 1e-6 * max(1.0, abs(t)):
            raise ValueError(
                f"time {t:g} lies between steps of {dt:g} base steps; "
                f"the nearest that can be observed is {start + stop * dt:g}"
            )
    if not stops or stops[0] < 0 or sorted(stops) != stops:
        raise ValueError(f"times must rise from {start:g} on, and were {list(times)}")
    return stops
