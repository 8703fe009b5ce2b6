"""Runs: the numbers of a study by arm, seed and time, paired by seed."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from optsde.run.rows import Series

TIMES = "@times"


@dataclasses.dataclass(frozen=True)
class ArmRuns:
    """The metrics of one arm; `runs.train_loss` is the series [seeds, times]."""

    arm: Any
    metrics: Mapping[str, Series]

    def __getattr__(self, name: str) -> Series:
        metrics = object.__getattribute__(self, "metrics")
        if name in metrics:
            return metrics[name]
        raise AttributeError(f"no metric {name!r}; there are {', '.join(metrics)}")

    def __getitem__(self, name: str) -> Series:
        return self.metrics[name]

    def __contains__(self, name: str) -> bool:
        return name in self.metrics

    @classmethod
    def of_arrays(cls, arm: Any, arrays: Mapping[str, np.ndarray]) -> "ArmRuns":
        """Returns the runs of an arm from what `stored` made of them, in float64."""
        series = {}
        for key in (key for key in arrays if not key.endswith(TIMES)):
            values = arrays[key]
            if np.issubdtype(values.dtype, np.floating):
                values = values.astype(np.float64)
            series[key.replace("|", "/")] = Series(arrays[key + TIMES], values)
        if taken := sorted({"arm", "metrics", "finite", "of_arrays"} & series.keys()):
            raise ValueError(f"metric {taken[0]!r}: runs have that name themselves")
        return cls(arm, series)

    def finite(self) -> bool:
        """Tells whether every number of every seed is finite."""
        return all(np.isfinite(x.values).all() for x in self.metrics.values())


@dataclasses.dataclass(frozen=True)
class Runs(Mapping[str, ArmRuns]):
    """The runs of a study by the name of the arm, in the order of the arms."""

    by_name: dict[str, ArmRuns]

    def __getitem__(self, name: str) -> ArmRuns:
        return self.by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def __len__(self) -> int:
        return len(self.by_name)

    def __or__(self, other: "Runs") -> "Runs":
        if twice := sorted(self.by_name.keys() & other.by_name.keys()):
            raise ValueError(f"two arms are called {twice[0]!r}")
        return Runs(self.by_name | other.by_name)

    def derived(self, **functions: Callable[[ArmRuns], Series]) -> "Runs":
        """Returns the runs with more metrics, each a function of an arm's runs.

        >>> times, norm = np.array([0, 10]), np.array([[1.0, 2.0], [1.0, 4.0]])
        >>> runs = Runs({"sgd": ArmRuns("an arm", {"norm": Series(times, norm)})})
        >>> runs = runs.derived(square=lambda run: Series(times, run.norm.values**2))
        >>> runs["sgd"].square.between(5)
        array([ 4., 16.])
        """
        more = {
            name: {**run.metrics, **{n: make(run) for n, make in functions.items()}}
            for name, run in self.by_name.items()
        }
        return Runs({n: ArmRuns(self.by_name[n].arm, x) for n, x in more.items()})


def stored(metrics: Mapping[str, Series]) -> dict[str, np.ndarray]:
    """Returns metrics as arrays: NAME [seeds, times] and NAME@times, with | for /."""
    arrays = {}
    for name, (times, values) in metrics.items():
        if "|" in name or "@" in name:
            raise ValueError(f"metric {name!r}: needs no | and no @")
        key, array = name.replace("/", "|"), np.asarray(values)
        if array.dtype.kind == "V":  # bfloat16
            array = array.astype(np.float32)
        arrays[key], arrays[key + TIMES] = array, np.asarray(times)
    return arrays
