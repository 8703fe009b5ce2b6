"""Ensembles: every run is many replicas at once, observed on the common clock.

A replica is a seed, or a seed with its own hyperparameters. Replicas are one vmapped
leading axis, sharded over all local devices; steps run in chunks of one compiled loop
whose length is an argument, with donated state, so nothing is compiled twice.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from optsde.dynamics.algorithm import Dynamics
from optsde.dynamics.progress import Progress
from optsde.mesh import REPLICA, replica_mesh
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
    progress: Progress | None = None,
) -> Trajectory:
    """Run one replica per key and observe each at the given times (in base steps).

    observe: a function of the state, evaluated at every time; 0 is the initial state.
    members: hyperparameters with a leading replica axis; `dynamics` is then a function
    of one member, say `lambda adam: discrete(replace(plan, optimizer=adam), ...)`.
    state, start: go on from this stacked state, which stands at time `start`. It
    carries its own keys; `keys` then says how many replicas there are.
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

    def make(member) -> Dynamics:
        return dynamics if isinstance(dynamics, Dynamics) else dynamics(member)

    dt = make(jax.tree.map(lambda x: x[0], members)).dt
    stops = _steps(times, start, dt)
    replicas = keys.shape[0]
    mesh = replica_mesh(replicas)
    state = jax.tree.map(jnp.copy, state)  # the caller's own is not donated
    keys, members, state = _spread((keys, members, state), replicas, mesh)

    def step(member, state):
        return make(member).step(state)

    def advance(members, state, count):
        many = jax.vmap(step)
        return jax.lax.fori_loop(0, count, lambda _, s: many(members, s), state)

    over = PartitionSpec(REPLICA)
    launch = time.monotonic()
    if state is None:
        begin = jax.vmap(lambda member, key: make(member).init(key))
        state = _sharded(begin, mesh, (over, over))(members, keys)
    look = _sharded(jax.vmap(observe), mesh, (over,))
    specs = (over, over, PartitionSpec())
    run = _sharded(advance, mesh, specs, donate_argnums=1)
    run = run.lower(members, state, jnp.int32(0)).compile()
    jax.block_until_ready(look(state))

    seen, at, chunk = [], 0, 16
    begun = time.monotonic()
    if progress:
        progress.begin(start)
    for stop in stops:
        while at < stop:
            count = min(chunk, stop - at) if progress else stop - at
            tick = time.monotonic()
            state = run(members, state, jnp.int32(count))
            at += count
            if progress:
                jax.block_until_ready(state)
                pace = (time.monotonic() - tick) / count
                chunk = max(1, min(2 * chunk, int(CHUNK_SECONDS / pace)))
                progress.update(start + at * dt, times[-1])
        seen.append(look(state))
    jax.block_until_ready((state, seen))
    ended = time.monotonic()

    state = jax.tree.map(lambda x: x[:replicas], state)
    values = jax.tree.map(
        lambda *leaves: np.stack([np.asarray(x)[:replicas] for x in leaves], axis=1),
        *seen,
    )
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


def _spread(tree: PyTree, replicas: int, mesh: Mesh) -> PyTree:
    """Place replicas on the mesh; the last is repeated until they divide evenly."""
    missing = -replicas % mesh.size

    def fill(x):
        return jnp.concatenate([x, jnp.repeat(x[-1:], missing, axis=0)])

    if missing:
        tree = jax.tree.map(fill, tree)
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(REPLICA)))


def _sharded(function: Callable, mesh: Mesh, in_specs: tuple, **jit_options):
    """Each device runs its own replicas; nothing is exchanged."""
    mapped = jax.shard_map(
        function,
        mesh=mesh,
        in_specs=in_specs,
        out_specs=PartitionSpec(REPLICA),
        check_vma=False,
    )
    return jax.jit(mapped, **jit_options)
