"""The best timescale of each case, its power law, and what another's best costs.

Losses are arrays [seeds, timescales]; runs are those of the cases, in their order.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from optsde.analysis import Estimate, exact, jackknife, stack, valley


class Case(NamedTuple):
    """An lr, and the number of examples that each replica draws from."""

    size: int
    lr: float

    @property
    def pace(self) -> float:
        """Returns what the best λ is expected to be inverse to."""
        return self.lr * self.size

    def __str__(self) -> str:
        return f"{self.size} examples, lr {self.lr:g}"


def lowest(timescales: Sequence[float], losses: np.ndarray) -> float:
    """Returns log2 of the timescale at which the mean loss is lowest.

    It is where a parabola through the lowest point and its neighbours, in logs, is
    lowest; NaN where the lowest point is at an end of the timescales.
    """
    return valley(np.log2(timescales), np.log(losses.mean(axis=0)))


def best_timescales(
    timescales: Sequence[float], runs: dict[Case, np.ndarray]
) -> Estimate:
    """Returns log2 of the best timescale of each case, in epochs."""
    return stack(
        jackknife(partial(lowest, timescales), losses) for losses in runs.values()
    )


def exponent(timescales: Sequence[float], runs: dict[Case, np.ndarray]) -> Estimate:
    """Returns p in best λ ∝ (lr·examples)^p, by least squares in logs."""
    paces = np.log2([case.pace for case in runs])

    def slope(*losses):
        return np.polyfit(paces, [lowest(timescales, x) for x in losses], 1)[0]

    # λ = batch/(lr·examples·timescale)
    return exact(-1.0) - jackknife(slope, *runs.values())


def carried(
    timescales: Sequence[float], runs: dict[Case, np.ndarray], power: float, first, last
) -> float:
    """Returns the last case's mean loss at the first's best λ · (ratio of paces)^power.

    Power −1 keeps the timescale in epochs, 0 keeps λ. Between the timescales that ran
    it is interpolated over their logs; NaN beyond them.
    """
    one, *_, other = runs
    place = lowest(timescales, first) - (1 + power) * np.log2(other.pace / one.pace)
    ends = dict(left=np.nan, right=np.nan)
    return float(np.interp(place, np.log2(timescales), last.mean(axis=0), **ends))


def costs(
    timescales: Sequence[float], runs: dict[Case, np.ndarray]
) -> tuple[Estimate, Estimate]:
    """Returns the loss of the last case at what is best for the first, in %.

    That at the first's timescale above the lowest, and that at its λ above that.
    """
    first, *_, last = runs.values()

    def more(first, last):
        kept = carried(timescales, runs, -1.0, first, last)
        same = carried(timescales, runs, 0.0, first, last)
        ratios = [kept / last.mean(axis=0).min(), same / kept]
        return 100 * (np.array(ratios) - 1)

    found = jackknife(more, first, last)
    return found.at(0), found.at(1)
