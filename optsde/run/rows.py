"""Rows of metrics on their way from the devices to the writers, and kept as series."""

import bisect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from optsde.dynamics.discrete import Info
from optsde.hosts import first, gathered
from optsde.run.diagnosis import diagnosis, lost
from optsde.run.engine import Engine
from optsde.run.writers import Writer
from optsde.types import PyTree

PENDING = 64  # rows that may wait on the devices where no writer reads them


class DivergedError(ArithmeticError):
    """A run left the finite numbers; the message says where, and why.

    `replicas` are those that did.
    """

    def __init__(self, message: str, replicas: Sequence[int] = ()):
        super().__init__(message)
        self.replicas = tuple(replicas)


class Series(NamedTuple):
    """A metric along a run."""

    times: np.ndarray  # [times], in base steps
    values: Any  # leaves [replicas, times, …]

    @property
    def last(self) -> np.ndarray:
        """The values at the last time, [replicas, …]."""
        return np.asarray(self.values)[:, -1]

    def between(self, first: float, last: float = np.inf) -> np.ndarray:
        """Returns each replica's mean from time `first` to `last`, both included."""
        inside = (first <= self.times) & (self.times <= last)
        if not inside.any():
            raise ValueError(f"no measurement from time {first:g} to {last:g}")
        return np.mean(np.asarray(self.values)[:, inside], axis=1)

    def diverged(self) -> tuple[float, float] | None:
        """Returns the interval of time in which a replica first left finite numbers."""
        finite = [
            np.isfinite(x).all(axis=tuple(i for i in range(x.ndim) if i != 1))
            for x in map(np.asarray, jax.tree.leaves(self.values))
        ]
        bad = ~np.logical_and.reduce(finite)
        if not bad.any():
            return None
        first = int(bad.argmax())
        return float(self.times[first - 1]) if first else 0.0, float(self.times[first])

    def lost(self) -> tuple[list[int], int]:
        """Returns the replicas that left finite numbers, and how many there are."""
        leaves = [np.asarray(x) for x in jax.tree.leaves(self.values)]
        found = lost(dict(enumerate(leaves)))
        return sorted(set().union(*found.values())), len(leaves[0])


class Row(NamedTuple):
    """What was measured at a step: metrics by name, leaves [replicas, …]."""

    step: int
    values: dict[str, Any]


class Rows:
    """The rows of a run; each is read from the devices one row late."""

    def __init__(self, engine: Engine, begin: float):
        self.all: list[Row] = []
        self._engine, self._begin = engine, begin
        self._writers: Sequence[Writer] = ()
        self._prompt = self._strict = False
        self._waiting: list[tuple] = []
        self._owners: dict[str, Any] = {"step": None}
        if engine.with_info:
            self._owners |= dict.fromkeys(Info._fields)

    def open(self, writers: Sequence[Writer], step: int, strict: bool) -> None:
        """Goes on at a step, with writers that have all rows until there.

        `strict`: refuse to go on from a row that is not finite.
        """
        self._writers, self._strict = writers if first() else (), strict
        self._prompt = strict or bool(writers)  # in every process, as reading is
        lines = [line(row) for row in self.all]
        for writer in self._writers:
            writer.begin(step, lines)

    def close(self) -> None:
        """Closes the writers."""
        for writer in self._writers:
            writer.close()

    @property
    def last(self) -> dict[str, Any]:
        """The last row, as writers have it; empty before there is one."""
        return line(self.all[-1]) if self.all else {}

    def add(
        self, step: int, since: int, total: PyTree, metrics: Mapping[Any, dict]
    ) -> None:
        """Takes the sums of the steps since the last row, and what probes measured."""
        if self._prompt or len(self._waiting) >= PENDING:
            self.flush()
        strict = [name for p, found in metrics.items() if p.finite for name in found]
        found = {}
        for probe, more in metrics.items():
            for name in more:
                if self._owners.setdefault(name, probe) is not probe:
                    raise ValueError(
                        f"a probe gives {name!r}, which is another metric's name: "
                        "rename it by probe.named(…)"
                    )
            found |= more
        sums = total._asdict() if total else {}
        # In lists, since a pytree would sort the names.
        row = list(sums.values()), list(found.values())
        self._waiting.append((step, since, list(sums), [*found], strict, row))

    def flush(self) -> None:
        """Reads and writes what waits; refuses to go on from what is not finite."""
        waiting, self._waiting = self._waiting, []
        rows = self._engine.kept(gathered([row for *_, row in waiting]))
        for (step, since, means, found, strict, _), (sums, metrics) in zip(
            waiting, rows, strict=True
        ):
            values = {n: x / (step - since) for n, x in zip(means, sums, strict=True)}
            values |= dict(zip(found, metrics, strict=True))
            self.all.append(Row(step, values))
            for writer in self._writers:
                writer.write(self.last)
            bad = lost({name: values[name] for name in (*means, *strict)})
            if self._strict and bad:
                losses = [x.values["loss"] for x in self.all[:-1] if "loss" in x.values]
                why = diagnosis(self._engine, (since, step), bad, losses)
                raise DivergedError(why, sorted(set().union(*bad.values())))

    def until(self, end: int) -> list[Row]:
        """Returns the rows up to a step."""
        self.flush()
        return self.all[: bisect.bisect_right(self.all, end, key=lambda row: row.step)]

    def series(self, after: int, end: int) -> dict[str, Series]:
        """Returns the rows after a step, up to another one, by name."""
        steps: dict[str, list[int]] = {}
        values: dict[str, list] = {}
        for row in self.until(end)[len(self.until(after)) :]:
            for name, value in row.values.items():
                steps.setdefault(name, []).append(row.step)
                values.setdefault(name, []).append(value)
        dt = self._engine.dt
        return {
            name: Series(
                self._begin + dt * np.array(steps[name]),
                jax.tree.map(lambda *x: np.stack(x, axis=1), *of_name),
            )
            for name, of_name in values.items()
        }


def line(row: Row) -> dict[str, Any]:
    """Returns a row as writers have it: the step, and one number for each replica."""
    found: dict[str, Any] = {"step": row.step}
    for name, value in row.values.items():
        leaf = jax.tree_util.treedef_is_leaf(jax.tree.structure(value))
        if leaf and np.ndim(value) == 1:
            numbers = np.asarray(value, np.float64)
            found[name] = numbers.item() if numbers.size == 1 else numbers.tolist()
    return found
