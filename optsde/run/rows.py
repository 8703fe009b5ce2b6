"""Rows of metrics on their way from the devices to the writers, and kept as series."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from optsde.dynamics.discrete import Info
from optsde.hosts import first, gathered
from optsde.run.engine import Engine
from optsde.run.writers import Writer
from optsde.types import PyTree

PENDING = 64  # rows that may wait on the devices where no writer reads them


class DivergedError(ArithmeticError):
    """A run left the finite numbers; the message names the steps."""


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


class Rows:
    """Takes rows as they come, and reads each from the devices one row late."""

    def __init__(
        self, writers: Sequence[Writer], engine: Engine, begin: float, strict: bool
    ):
        self.last: dict[str, Any] = {}
        self._writers, self._engine = writers, engine
        self._begin, self._strict = begin, strict
        self._waiting: list[tuple] = []
        self._owners: dict[str, Any] = {"step": None}
        if engine.with_info:
            self._owners |= dict.fromkeys(Info._fields)
        self._steps: dict[str, list[int]] = {}
        self._values: dict[str, list] = {}

    def add(
        self, step: int, since: int, total: PyTree, metrics: Mapping[Any, dict]
    ) -> None:
        """Takes the sums of the steps since the last row, and what probes measured."""
        if self._writers or self._strict or len(self._waiting) >= PENDING:
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
            for name, value in values.items():
                self._steps.setdefault(name, []).append(step)
                self._values.setdefault(name, []).append(value)
            self.last = {"step": step, **_numbers(values)}
            for writer in self._writers if first() else ():
                writer.write(self.last)
            judged = [np.isfinite(values[name]).all() for name in (*means, *strict)]
            if self._strict and not all(judged):
                raise DivergedError(f"between step {since} and {step}")

    def series(self) -> dict[str, Series]:
        """Returns what was read so far, by name."""
        self.flush()
        dt = self._engine.dt
        return {
            name: Series(
                self._begin + dt * np.array(self._steps[name]),
                jax.tree.map(lambda *x: np.stack(x, axis=1), *values),
            )
            for name, values in self._values.items()
        }


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metrics that are a number for each replica, for a line of a file."""
    row = {}
    for name, value in values.items():
        leaf = jax.tree_util.treedef_is_leaf(jax.tree.structure(value))
        if leaf and np.ndim(value) == 1:
            numbers = np.asarray(value, np.float64)
            row[name] = numbers.item() if numbers.size == 1 else numbers.tolist()
    return row
