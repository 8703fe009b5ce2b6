"""The loop of a run: chunks of steps, probes at their times, rows, a journal.

The host is one chunk behind the devices: chunk n + 1 is under way while the numbers of
chunk n are read. The lengths of chunks only set how often the host reads; no number
depends on them. A run that resumes is bit for bit the run that never stopped.
"""

import bisect
import contextlib
import dataclasses
import functools
import math
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from optsde.checks import shown
from optsde.dynamics.discrete import Dynamics
from optsde.hosts import all_gather, broadcast, everywhere, first, gathered, several
from optsde.measure.probe import Probe, Times
from optsde.mesh import SplitRule
from optsde.run.engine import Engine
from optsde.run.given import (
    check_distinct,
    check_end,
    check_keys,
    check_state,
    check_times,
)
from optsde.run.journal import Journal, Saved, digest, next_journal
from optsde.run.progress import Progress
from optsde.run.rows import DivergedError, Rows, Series, line
from optsde.run.writers import Writer
from optsde.types import PyTree

CHUNK_SECONDS = 1.0  # between two reads of the devices
LONGEST_CHUNK = 10_000

Probes = Sequence[Probe] | Callable[[Any], Sequence[Probe]]
__all__ = ["DivergedError", "Probes", "Result", "Run", "Series", "fit"]


class Result(NamedTuple):
    """The outcome of a run; metrics and seconds are those of one call.

    Where the journal of the run goes further than that call, metrics are read from it,
    and asking for the state is refused.
    """

    metrics: dict[str, Series]
    state: PyTree  # leaves [replicas, …]
    row: dict[str, Any]  # the last one
    steps: int
    seconds: float  # without compiling
    compile_seconds: float
    memory: list[PyTree]  # of the probes, leaves [replicas, …]


class Replayed(Result):
    """The rows of a call of `to` that the journal goes beyond: it has no state there.

    Asking for one is refused.
    """

    @property
    def state(self) -> PyTree:  # pyrefly: ignore[bad-override]
        """Refuses: the journal keeps the last states alone."""
        self._refuse("state")

    @property
    def memory(self) -> list[PyTree]:  # pyrefly: ignore[bad-override]
        """Refuses: the journal keeps the last memories alone."""
        self._refuse("memory")

    def _refuse(self, what: str) -> NoReturn:
        raise ValueError(
            f"the run's journal goes on beyond the end of this call and has no {what} "
            "there, only metrics: measure by a probe what is needed of it, or name "
            "another folder"
        )


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
      sharded: how parameters, moments and averages are split over these devices, such
        as `mesh.largest_axis`; None: each has all of them. Probes gather what they
        read.
      journal: a folder of this run alone, in which it is saved. The same program then
        goes on where it stopped, bit for bit, and has the rows of the whole run.
        Another run is refused by its plan, schedule, data, keys, members, start or
        changes. The code of functions is not compared, nor what they close over, a
        start that is a function, the data of an SDE's law or of a stream that no
        arrays are behind, or members of `set_members`: with those changed, name
        another folder.
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
        sharded: SplitRule | None = None,
        journal: str | Path | None = None,
    ):
        self._launch = time.monotonic()
        check_keys(keys)
        self.engine = engine = Engine(
            dynamics,
            len(keys),
            members=members,
            shards=shards,
            sharded=sharded,
            with_info=every is not None,
        )
        self.begin = 0.0
        if state is None:
            self.state = engine.init(keys)
        else:
            check_state(state, engine.shape_of_one(keys))
            self.begin = _begin_of(engine, state)
            # The caller's own is not donated.
            self.state = engine.placed(jax.tree.map(jnp.copy, state))
        self.step = self._since = 0
        self._zeros = self._total = engine.zeros(self.state)
        self._begun = False
        self._every = every
        self._probes = _probing(engine, self.state, probes)
        self._rows = Rows(engine, self.begin)
        self._journal = Journal(Path(journal)) if journal else next_journal()
        # Until the journal is open.
        self._given = (keys, members, state) if self._journal is not None else None
        self._saved: Saved | None = None  # from where the run goes on
        self._reported = -1  # the step up to which rows were asked for
        self._ends: list[int] = []  # of the calls of `to`
        self._changed: dict[str, str] = {}  # digests of members by their first step

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
        checkpoint_every: float | None = None,
        progress: Progress | None = None,
        stop_at_divergence: bool = True,
    ) -> Result:
        """Runs on to the horizon, from where its journal ends if it has one.

        SIGTERM or Ctrl-C saves the run and raises KeyboardInterrupt.

        Args:
          horizon: the time of the end, in base steps.
          changes: members from given times on, of the same shapes.
          writers: where rows of metrics go.
          checkpoint_every: base steps from one save in the journal to the next, besides
            those by the clock, of which `Journal` tells.
          progress: the line that tells how far the run is.
          stop_at_divergence: raise DivergedError at the first row with a loss that is
            not finite; else go on, where the other replicas are of interest.
        """
        check_times("horizon", horizon)
        engine, end = self.engine, self._step_of(horizon, up=True)
        check_end(horizon, end)
        if end < self.step:
            raise ValueError(
                f"the horizon {horizon:g} lies before the time reached, {self.time:g}"
            )
        journal, changes, resumed = self._journal, changes or {}, ""
        if journal is None and checkpoint_every is not None:
            raise ValueError(
                f"checkpoint_every={shown(checkpoint_every)}: this run has no journal "
                "to save in; give journal=, a folder of this run alone"
            )
        if journal is not None and self._given is not None:
            self._open(journal, self._given)
        if journal is not None:
            self._note(journal, changes, end)
        if journal is not None and self._saved is not None:
            if end < self._saved.step:
                return self._replayed(journal, self._saved, end, changes)
            resumed = self._resume(journal, self._saved, end)
        agenda = self._agenda(end, changes, checkpoint_every)
        if engine.waits_for_compiling and not (self._begun and self.step == end):
            sample = engine.arguments(self.state, self._total, 0)
            engine.compile(engine.chunk.lower(*sample))
            for probe in self._probes:
                probe.compile(self.state)
            if journal is not None:
                journal.start()
        rows = self._rows
        writers = [*writers, *(progress.writers() if progress else ())]
        rows.open(writers, self.step, stop_at_divergence)
        stopping = False
        with _polite_stop() as asked:
            try:
                begun, start, pace = time.monotonic(), self.step, _Pace(self.step)
                if progress:
                    progress.begin(self.time, resumed)
                elif resumed and first():
                    print(f"note: {resumed}", file=sys.stderr, flush=True)
                if not self._begun:
                    self._begun = True
                    self._arrive(agenda)
                while self.step < end:
                    if self.step >= pace.until or not several():
                        due = journal is not None and journal.is_due()
                        stopping, due = pace.agree(self.step, bool(asked), due)
                        if due:
                            self._save()
                    if stopping:
                        break
                    count = min(pace.until, agenda.after(self.step)) - self.step
                    self.state, self._total = engine.advance(
                        self.state, self._total, count
                    )
                    self.step += count
                    pace.follow(count, engine.reached)
                    self._arrive(agenda)
                    if self.step in agenda.saves:
                        self._save()
                    if progress:
                        if self.step == end:
                            rows.flush()
                        end_time = self.begin + end * engine.dt
                        progress.update(self.time, end_time, rows.last)
                rows.flush()
                jax.block_until_ready(self.state)
                if journal is not None and (
                    stopping or journal.lasting or broadcast(journal.is_worth_it)
                ):
                    self._save()
                seconds = time.monotonic() - begun
            finally:
                rows.close()
        if stopping:
            raise KeyboardInterrupt
        waited, self._launch = begun - self._launch, time.monotonic()
        state = engine.result(self.state)  # a copy, since what is next gives it away
        memory = everywhere(engine.kept([probe.memory for probe in self._probes]))
        return self._result(end, state, self.step - start, seconds, waited, memory)

    def _result(self, end: int, state: PyTree, *costs: Any) -> Result:
        """Returns what was measured since the last call of `to`."""
        series = self._rows.series(self._reported, end)
        self._reported = end
        if end not in self._ends:
            self._ends.append(end)
        rows = self._rows.until(end)
        return Result(series, state, line(rows[-1]) if rows else {}, *costs)

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
            for step in self._due("times", times, end, first=True):
                probes.setdefault(step, []).append(probe)
        check_times("changes", list(changes))
        members = {self._step_of(at): each for at, each in changes.items()}
        if early := [at for at in changes if self._step_of(at) < 0]:
            raise ValueError(
                f"a change at time {min(early):g} comes before the run, which begins "
                f"at {self.begin:g}"
            )
        if late := sorted(at for at in changes if self._step_of(at) >= end):
            raise ValueError(f"a change at time {late[0]:g} comes after the run's end")
        for at, each in sorted(members.items()):
            if at < self.step or (at == self.step and self._begun):  # else on arrival
                self.engine.set_members(each)
        row_ends = set(self._due("every", self._every, end))
        saves = set(self._due("checkpoint_every", save_every, end))
        return _Agenda(probes, row_ends, saves, members, end)

    def _arrive(self, agenda: "_Agenda") -> None:
        """Does what is due at the step that is reached."""
        due = agenda.probes.get(self.step, ())
        metrics = {probe: probe.measure(self.state) for probe in due}
        ended = self.step in agenda.row_ends and self.step > self._since
        if metrics or ended:
            total = self._total if ended else ()
            self._rows.add(self.step, self._since, total, metrics)
        if ended:
            self._since, self._total = self.step, self._zeros
        if self.step in agenda.members:
            self.engine.set_members(agenda.members[self.step])

    def _save(self) -> None:
        """Saves the run in its journal, where it has one."""
        self._rows.flush()
        if self._journal is None:
            return
        notes = {
            "since": self._since,
            "ends": self._ends,
            "changes": self._changed,
            "time": self.time,
            "rows": len(jax.tree.leaves(self.state)[0]),
            "devices": jax.device_count(),
        }
        self._journal.save(self.step, self._whole(), self._rows.all, notes)

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

    def _due(self, name: str, times: Times, end: int, first: bool = False) -> list[int]:
        """Returns the steps of times: those given, or every so many and the end.

        A stride is counted from the beginning of the run. A time that is given twice is
        one measurement. Times after the end are those of the next `to`.
        """
        if times is None:
            return []
        check_times(name, times)
        if np.ndim(times):
            steps = [self._step_of(at) for at in np.asarray(times).tolist()]
            if sorted(steps) != steps or (steps and steps[0] < 0):
                raise ValueError(
                    f"{name} must rise from {self.begin:g} on, and were {times}"
                )
            return sorted({step for step in steps if step <= end})
        stride = self._step_of(self.begin + float(np.asarray(times)))
        if stride < 1:
            raise ValueError(f"{name}={times:g}: needs a positive time in base steps")
        return sorted({*range(0 if first else stride, end + 1, stride), end})

    def _whole(self) -> PyTree:
        memory = [probe.memory for probe in self._probes]
        whole = {"state": self.state, "total": self._total}
        return whole | ({"memory": memory} if jax.tree.leaves(memory) else {})

    def _open(self, journal: Journal, given: tuple) -> None:
        """Finds where the run goes on, and has the rows until there."""
        self._given = None
        metrics = [probe.shapes(self.state) for probe in self._probes]
        identity = self._identity(given, metrics)
        shapes = dict(self._total._asdict()) if self._total else {}
        for of_probe in metrics:
            shapes |= of_probe
        self._saved = journal.open(identity, shapes)
        if self._saved is not None:
            self._rows.all = [*self._saved.rows]
            self._ends = [*self._saved.notes["ends"]]

    def _identity(self, given: tuple, metrics: Sequence[PyTree]) -> dict[str, Any]:
        """Returns what makes this run another than any other, in words and JSON.

        The number of devices is no part of it, nor the code of functions.
        """
        keys, members, state = given
        engine = self.engine

        def shapes(tree):
            leaves, structure = jax.tree.flatten(tree)
            return f"{structure} {[(x.shape[1:], str(x.dtype)) for x in leaves]}"

        return {
            "replicas": engine.replicas,
            "keys": digest(keys),
            "beginning": self.begin,
            "dt": engine.dt,
            "every": self._every,
            **{name: _mark(x) for name, x in engine.about.items()},
            "members": digest(members),
            "initial state": digest(state),
            "shapes of the state": shapes(self._whole()),
            "metrics": [shapes(each) for each in metrics],
            "times of probes": [
                None if x.times is None else digest(np.asarray(x.times, float))
                for x in self._probes
            ],
        }

    def _note(
        self, journal: Journal, changes: Mapping[float, PyTree], end: int
    ) -> None:
        """Notes changes for the journal; refuses one of a run that had others."""
        check_times("changes", list(changes))
        steps = {at: max(self._step_of(at), self.step) for at in sorted(changes)}
        given = {str(step): digest(changes[at]) for at, step in steps.items()}
        self._changed |= given
        if self._saved is None:
            return
        due = range(self.step, min(end, self._saved.step))
        before = self._saved.notes["changes"].items()
        if {at: x for at, x in before if int(at) in due} != {
            at: x for at, x in given.items() if int(at) in due
        }:
            raise ValueError(
                f"the journal {journal.folder} is of another run: changes differ; name "
                "another folder, or remove it"
            )

    def _replayed(
        self, journal: Journal, saved: Saved, end: int, changes: Mapping[float, PyTree]
    ) -> Result:
        """Returns the rows of a call of `to` that ended before the journal does."""
        self.step = end
        if end not in saved.notes["ends"]:
            raise ValueError(
                f"the horizon {self.time:g} lies before the end of the journal "
                f"{journal.folder}; name another folder, or remove it"
            )
        for _, members in sorted(changes.items()):
            self.engine.set_members(members)
        return Replayed._make(self._result(end, None, 0, 0.0, 0.0, []))

    def _resume(self, journal: Journal, saved: Saved, end: int) -> str:
        """Goes on from what was saved; returns the words for that."""
        engine, self._saved = self.engine, None
        notes, like = saved.notes, self._whole()
        found = journal.restore(saved.step, like, notes["rows"], engine.everywhere)
        if notes["rows"] != len(jax.tree.leaves(self.state)[0]):
            found = engine.kept(found)
            state = engine.placed(found.pop("state"))
            found = engine.spread(found) | {"state": state}
        self._begun = True
        self.step, self.state, self._total = saved.step, found["state"], found["total"]
        self._since = notes["since"]
        for probe, memory in zip(self._probes, found.get("memory", ()), strict=False):
            probe.memory = memory
        words = f"resumed at step {self.step} (t = {self.time:g}) of {end}"
        if (before := notes["devices"]) != (now := jax.device_count()):
            words += f", saved on {before} device{'s' * (before != 1)}"
            words += f", going on with {now}"
        return words


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
    sharded: SplitRule | None = None,
    writers: Sequence[Writer] = (),
    journal: str | Path | None = None,
    checkpoint_every: float | None = None,
    progress: Progress | None = None,
    stop_at_divergence: bool = True,
) -> Result:
    """Runs one replica per key to the horizon; a `Run` and its `to` in one call.

    What a journal is, and what it cannot compare, is told at `Run`.
    """
    if state is None:
        check_distinct(keys, members, *(changes or {}).values())
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
        sharded=sharded,
        journal=journal,
    )
    return run.to(
        horizon,
        changes=changes,
        writers=writers,
        checkpoint_every=checkpoint_every,
        progress=progress,
        stop_at_divergence=stop_at_divergence,
    )


def _mark(x: PyTree) -> Any:
    """Returns words without addresses, lists of numbers, or a digest of arrays."""
    if isinstance(x, str):
        return re.sub(r" at 0x[0-9a-f]+", "", x)
    return x if _is_numbers(x) else digest(x)


def _is_numbers(x: Any) -> bool:
    return isinstance(x, list | float) and (
        isinstance(x, float) or all(map(_is_numbers, x))
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

    def agree(self, step: int, stop: bool, save: bool) -> tuple[bool, bool]:
        """Sets how far to go from a step; returns whether to stop and to save."""
        steps, stops, saves = all_gather([self._steps, stop, save]).T
        self.until = step + int(steps[0])
        return bool(stops.any()), bool(saves[0])

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

        first = make(engine.first_member)
        self.times, self.finite = first.times, first.finite
        begun = engine.each(init)
        memory = begun.shapes(state)
        self.memory = begun(state) if jax.tree.leaves(memory) else memory
        self._observe = engine.each(observe)

    def shapes(self, state: PyTree) -> dict[str, PyTree]:
        """Returns the shapes of its metrics, by name."""
        return self._observe.shapes(state, self.memory)[0]

    def compile(self, state: PyTree) -> None:
        self._observe.compile(state, self.memory)

    def measure(self, state: PyTree) -> dict[str, Any]:
        metrics, self.memory = self._observe(state, self.memory)
        return metrics


def _probing(engine: Engine, state: PyTree, probes: Probes) -> list[_Probing]:
    if isinstance(probes, Probe):
        raise ValueError("probes is one Probe: needs a list of them, as [probe]")
    make: Any = probes if callable(probes) else lambda member: probes
    count = len(make(engine.first_member))
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
