"""The loop of a run: chunks of steps, probes at their times, rows, checkpoints.

The host is one chunk behind the devices: chunk n + 1 is under way while the numbers of
chunk n are read. The lengths of chunks only set how often the host reads; no number
depends on them. A run that resumes is bit for bit the run that never stopped.
"""

import bisect
import contextlib
import dataclasses
import functools
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optsde.dynamics.discrete import Dynamics
from optsde.hosts import everyones, everywhere, first, gathered, several
from optsde.measure.probe import Probe, Times
from optsde.mesh import replicated
from optsde.run.checkpoints import Checkpoints
from optsde.run.engine import Engine
from optsde.run.progress import Progress
from optsde.run.rows import DivergedError, Rows, Series
from optsde.run.writers import Writer
from optsde.types import PyTree

CHUNK_SECONDS = 1.0  # between two reads of the devices
LONGEST_CHUNK = 10_000

Probes = Sequence[Probe] | Callable[[Any], Sequence[Probe]]
__all__ = ["DivergedError", "Probes", "Result", "Run", "Series", "fit"]


class Result(NamedTuple):
    """The outcome of a run; metrics, steps and seconds are those of one call."""

    metrics: dict[str, Series]
    state: PyTree  # leaves [replicas, …]
    row: dict[str, Any]  # the last one
    steps: int
    seconds: float  # without compiling
    compile_seconds: float


class Run:
    """A run that goes on when it is told to: replicas of a dynamics, and their probes.

    Args:
      dynamics: such as `discrete(plan, sampler, params)`; with `members`, a function of
        one of them.
      keys: one for each replica.
      every: base steps from one row of mean loss and gradient norm to the next; they
        are not computed where it is None.
      probes: measurements, each at its times; or a function of a member for them.
      members: hyperparameters or data of each replica, stacked.
      state: a stacked state to go on from, in place of the initial ones.
      shards: devices that share the gradient of each replica.
    """

    def __init__(
        self,
        dynamics: Dynamics | Callable[[Any], Dynamics],
        keys: jax.Array,
        *,
        every: float | None = None,
        probes: Probes = (),
        members: PyTree = None,
        state: PyTree = None,
        shards: int = 1,
    ):
        self._launch = time.monotonic()
        self.engine = engine = Engine(
            dynamics,
            len(keys),
            members=members,
            shards=shards,
            with_info=every is not None,
        )
        self.begin = 0.0
        if state is None:
            self.state = engine.init(keys)
        else:
            self.begin = _begin_of(engine, state)
            # The caller's own is not donated.
            self.state = engine.spread(jax.tree.map(jnp.copy, state))
        self.step = self._since = 0
        self._zeros = self._total = engine.zeros(self.state)
        self._begun = False
        self._every = every
        self._probes = _probing(engine, self.state, probes)

    @property
    def time(self) -> float:
        """The time reached, in base steps."""
        return self.begin + self.step * self.engine.dt

    def set_members(self, members: PyTree) -> None:
        """Goes on with other members of the same shapes; compiles nothing."""
        self.engine.set_members(members)

    def to(
        self,
        horizon: float,
        *,
        changes: Mapping[float, PyTree] | None = None,
        writers: Sequence[Writer] = (),
        checkpoints: Checkpoints | None = None,
        checkpoint_every: float | None = None,
        progress: Progress | None = None,
        stop_at_divergence: bool = True,
    ) -> Result:
        """Runs on to the horizon, from the newest checkpoint where there is one.

        SIGTERM or Ctrl-C saves a checkpoint and raises KeyboardInterrupt.

        Args:
          horizon: the time of the end, in base steps.
          changes: members from given times on, of the same shapes.
          writers: where rows of metrics go.
          checkpoints: where the run is saved, and resumed from.
          checkpoint_every: base steps from one to the next; there is one at the end.
          progress: the line that tells how far the run is.
          stop_at_divergence: raise DivergedError at the first row with a loss that is
            not finite; else go on, where the other replicas are of interest.
        """
        engine, end = self.engine, self._step_of(horizon, up=True)
        if end < self.step:
            raise ValueError(
                f"the horizon {horizon:g} lies before the time reached, {self.time:g}"
            )
        writers = [*writers, *(progress.writers() if progress else ())]
        rows = Rows(writers, engine, self.begin, stop_at_divergence)
        if checkpoints is not None and not self._begun:
            self._resume(checkpoints)
        agenda = self._agenda(end, changes or {}, checkpoint_every)
        if engine.waits_for_compiling:
            sample = engine.arguments(self.state, self._total, 0)
            engine.compile(engine.chunk.lower(*sample))
            for probe in self._probes:
                probe.compile(self.state)
        written = writers if first() else []
        for writer in written:
            writer.begin(self.step)
        stopping = False
        with _polite_stop() as asked:
            try:
                begun, start, pace = time.monotonic(), self.step, _Pace(self.step)
                if progress:
                    progress.begin(self.time, self.step)
                if not self._begun:
                    self._begun = True
                    self._arrive(agenda, rows)
                while self.step < end:
                    if self.step >= pace.until or not several():
                        stopping = pace.agree(self.step, bool(asked))
                    if stopping:
                        break
                    count = min(pace.until, agenda.after(self.step)) - self.step
                    self.state, self._total = engine.advance(
                        self.state, self._total, count
                    )
                    self.step += count
                    pace.follow(count, engine.reached)
                    self._arrive(agenda, rows)
                    if self.step in agenda.saves:
                        self._save(rows, checkpoints)
                    if progress:
                        if self.step == end:
                            rows.flush()
                        end_time = self.begin + end * engine.dt
                        progress.update(self.time, end_time, rows.last)
                self._save(rows, checkpoints)
                jax.block_until_ready(self.state)
                seconds = time.monotonic() - begun
            finally:
                for writer in written:
                    writer.close()
                if checkpoints is not None:
                    checkpoints.close()
        if stopping:
            raise KeyboardInterrupt
        waited, self._launch = begun - self._launch, time.monotonic()
        return Result(
            rows.series(),
            # A copy, since what is next gives the state away.
            everywhere(jax.tree.map(jnp.copy, engine.kept(self.state))),
            rows.last,
            self.step - start,
            seconds,
            waited,
        )

    def _agenda(
        self, end: int, changes: Mapping[float, PyTree], save_every: float | None
    ) -> "_Agenda":
        """Returns what is due up to the end; sets members that are due by now."""
        probes: dict[int, list[_Probing]] = {}
        for probe in self._probes:
            times = self._every if probe.times is None else probe.times
            if times is None:
                raise ValueError(
                    "a probe has no times: give them by probe.at(…), or `every` of the "
                    "run, whose rows it then joins"
                )
            for step in self._due(times, end, first=True):
                probes.setdefault(step, []).append(probe)
        members = {self._step_of(at): each for at, each in changes.items()}
        if late := sorted(at for at in changes if self._step_of(at) >= end):
            raise ValueError(f"a change at time {late[0]:g} comes after the run's end")
        for at, each in sorted(members.items()):
            if at < self.step or (at == self.step and self._begun):  # else on arrival
                self.engine.set_members(each)
        row_ends = set(self._due(self._every, end))
        return _Agenda(probes, row_ends, set(self._due(save_every, end)), members, end)

    def _arrive(self, agenda: "_Agenda", rows: Rows) -> None:
        """Does what is due at the step that is reached."""
        due = agenda.probes.get(self.step, ())
        metrics = {probe: probe.measure(self.state) for probe in due}
        ended = self.step in agenda.row_ends and self.step > self._since
        if metrics or ended:
            rows.add(self.step, self._since, self._total if ended else (), metrics)
        if ended:
            self._since, self._total = self.step, self._zeros
        if self.step in agenda.members:
            self.engine.set_members(agenda.members[self.step])

    def _save(self, rows: Rows, checkpoints: Checkpoints | None) -> None:
        rows.flush()
        if checkpoints is not None and checkpoints.latest() != self.step:
            checkpoints.save(self.step, self._whole())

    def _step_of(self, at: float, up: bool = False) -> int:
        """Returns the step of a time, the next one if `up`; else it must be one."""
        exact = (at - self.begin) / self.engine.dt
        # The beginning is read from a state in float32.
        slack = 1e-6 + (2e-7 * abs(self.begin) + 1e-9 * abs(at)) / self.engine.dt
        step = math.ceil(exact - slack) if up else round(exact)
        if not up and abs(exact - step) > slack:
            near = self.begin + step * self.engine.dt
            raise ValueError(
                f"time {at:g} lies between steps of {self.engine.dt:g} base steps; "
                f"the nearest that can be observed is {near:g}"
            )
        return step

    def _due(self, times: Times, end: int, first: bool = False) -> list[int]:
        """Returns the steps of times: those given, or every so many and the end.

        A stride is counted from the beginning of the run. A time that is given twice is
        one measurement. Times after the end are those of the next `to`.
        """
        if times is None:
            return []
        if np.ndim(times):
            steps = [self._step_of(at) for at in np.asarray(times).tolist()]
            if sorted(steps) != steps or (steps and steps[0] < 0):
                raise ValueError(
                    f"times must rise from {self.begin:g} on, and were {times}"
                )
            return sorted({step for step in steps if step <= end})
        stride = self._step_of(self.begin + float(np.asarray(times)))
        if stride < 1:
            raise ValueError(f"every {times:g} base steps: must be a positive time")
        return sorted({*range(0 if first else stride, end + 1, stride), end})

    def _whole(self) -> PyTree:
        since = replicated(jnp.int32(self._since), self.engine.mesh)
        begin = replicated(jnp.float32(self.begin), self.engine.mesh)
        whole = {"state": self.state, "total": self._total, "since": since}
        whole["begin"] = begin
        memory = [probe.memory for probe in self._probes]
        return whole | ({"memory": memory} if jax.tree.leaves(memory) else {})

    def _resume(self, checkpoints: Checkpoints) -> None:
        """Goes on from the newest checkpoint, where there is one."""
        step = checkpoints.latest()
        if not step:
            return
        saved = checkpoints.restore(step, self._whole())
        if (begin := float(saved["begin"])) != np.float32(self.begin):
            raise ValueError(
                f"the checkpoints are of a run that begins at {begin:g}, and this one "
                f"begins at {self.begin:g}: name another folder"
            )
        self._begun = True
        self.step, self.state, self._total = step, saved["state"], saved["total"]
        self._since = int(saved["since"])
        if "memory" in saved:
            for probe, memory in zip(self._probes, saved["memory"], strict=True):
                probe.memory = memory


def fit(
    dynamics: Dynamics | Callable[[Any], Dynamics],
    keys: jax.Array,
    horizon: float,
    *,
    every: float | None = None,
    probes: Probes = (),
    members: PyTree = None,
    state: PyTree = None,
    changes: Mapping[float, PyTree] | None = None,
    shards: int = 1,
    writers: Sequence[Writer] = (),
    checkpoints: Checkpoints | None = None,
    checkpoint_every: float | None = None,
    progress: Progress | None = None,
    stop_at_divergence: bool = True,
) -> Result:
    """Runs one replica per key to the horizon; a `Run` and its `to` in one call."""
    if progress:
        progress.compiling()
    run = Run(
        dynamics,
        keys,
        every=every,
        probes=probes,
        members=members,
        state=state,
        shards=shards,
    )
    return run.to(
        horizon,
        changes=changes,
        writers=writers,
        checkpoints=checkpoints,
        checkpoint_every=checkpoint_every,
        progress=progress,
        stop_at_divergence=stop_at_divergence,
    )


def _begin_of(engine: Engine, state: PyTree) -> float:
    """Returns the time of a stacked state; refuses one of another kind of run."""
    count = {x.shape[0] for x in jax.tree.leaves(state)}
    if count != {engine.replicas}:
        raise ValueError(
            f"the state has {min(count)} replicas, and there are {engine.replicas} keys"
        )
    times, lengths = gathered((state.time, state.clock.dt))
    dt = float(lengths[0])
    if (times != times[0]).any():
        raise ValueError(f"the state's replicas are at different times: {times}")
    if not (engine.paces or math.isclose(dt, engine.dt, rel_tol=1e-5)):
        raise ValueError(
            f"the state is of a run with steps of {dt:g} base steps, and this one has "
            f"steps of {engine.dt:g}: take optsde.switch(state.optimizer, old, new)"
        )
    return float(times[0])


@dataclasses.dataclass(frozen=True)
class _Agenda:
    """The agenda of a run: what is due at which step, up to its end."""

    probes: dict[int, list["_Probing"]]
    row_ends: set[int]
    saves: set[int]
    members: dict[int, PyTree]  # that the run goes on with
    end: int

    @functools.cached_property
    def _stops(self) -> list[int]:
        return sorted(
            {*self.probes, *self.row_ends, *self.saves, *self.members, self.end}
        )

    def after(self, step: int) -> int:
        """Returns the next step at which anything is due."""
        return self._stops[bisect.bisect_right(self._stops, step)]


class _Pace:
    """The length of chunks: at most twice the last, and about CHUNK_SECONDS.

    The clock of process 0 decides, and any process may ask to stop. They agree on how
    far to go before they meet again.
    """

    def __init__(self, step: int):
        self.until = step  # where they meet
        self._steps = 1
        self._under_way, self._length, self._tick = (), 1, time.monotonic()

    def agree(self, step: int, stop: bool) -> bool:
        """Sets how far to go from a step; returns whether to stop there."""
        steps, stops = everyones([self._steps, stop]).T
        self.until = step + int(steps[0])
        return bool(stops.any())

    def follow(self, steps: int, reached: PyTree) -> None:
        """Waits for the chunk before this one, and takes its time."""
        jax.block_until_ready(self._under_way)
        tick = time.monotonic()
        each = max(tick - self._tick, 1e-6) / self._length
        longest = min(int(CHUNK_SECONDS / each), LONGEST_CHUNK)
        self._steps = max(1, min(2 * self._steps, longest))
        self._under_way, self._length, self._tick = reached, steps, tick


class _Probing:
    """A probe at work: compiled, with its memory."""

    def __init__(self, engine: Engine, state: PyTree, make: Callable[[Any], Probe]):
        def observe(member):
            probe = make(member)
            return probe.observe, probe.source

        def init(member):
            return (lambda _, state: make(member).init(state)), ()

        first = make(jax.tree.map(lambda x: x[0], engine.members))
        self.times, self.finite = first.times, first.finite
        self.memory = engine.each(init)(state)
        self._observe = engine.each(observe)

    def compile(self, state: PyTree) -> None:
        self._observe.compile(state, self.memory)

    def measure(self, state: PyTree) -> dict[str, Any]:
        metrics, self.memory = self._observe(state, self.memory)
        return metrics


def _probing(engine: Engine, state: PyTree, probes: Probes) -> list[_Probing]:
    make: Any = probes if callable(probes) else lambda member: probes
    count = len(make(jax.tree.map(lambda x: x[0], engine.members)))
    return [
        _Probing(engine, state, lambda member, i=i: make(member)[i])
        for i in range(count)
    ]


@contextlib.contextmanager
def _polite_stop() -> Iterator[list[int]]:
    """Yields a list that the first SIGTERM or Ctrl-C fills; the next one raises."""
    stopping: list[int] = []

    def note(number, frame):
        if stopping:
            raise KeyboardInterrupt
        stopping.append(number)

    try:
        before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread, where no signal arrives
        before = {}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
