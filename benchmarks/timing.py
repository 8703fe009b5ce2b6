"""Races: contenders take turns, and the ratio of two times has an interval.

A round calls each contender once, every second round in the opposite order, so that a
busy machine hits all alike. The ratio of two contenders is the geometric mean of its
rounds' ratios; its interval is Student's of their logarithms, at 95%. A race ends when
each ratio that is asked for has an interval narrower than 3%, or when its time is over,
but not before five rounds.
"""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from optsde.analysis import Interval, estimate, interval

WIDTH = 0.03  # of an interval, against its value
ROUNDS: tuple[int, int] = 5, 200  # at least and at most, whatever the time
Pair = tuple[str, str]


class Race:
    """The seconds of contenders, round by round."""

    def __init__(self, rounds: Sequence[Mapping[str, float]]):
        self.rounds = len(rounds)
        self._logs = {
            name: np.log([found[name] for found in rounds]) for name in rounds[0]
        }

    def seconds(self, name: str, scale: float = 1.0) -> Interval:
        """Returns `scale` times the seconds of a contender, their geometric mean."""
        return _exponential(self._logs[name] + np.log(scale))

    def rate(self, name: str, count: float) -> Interval:
        """Returns how many a second a contender did, of `count` in a call."""
        return _exponential(np.log(count) - self._logs[name])

    def ratio(self, one: str, other: str, scale: float = 1.0) -> Interval:
        """Returns `scale` times the ratio of two contenders' seconds."""
        return _exponential(self._logs[one] - self._logs[other] + np.log(scale))


def race(
    contenders: Mapping[str, Callable[[], float]],
    pairs: Sequence[Pair],
    seconds: float,
) -> Race:
    """Runs rounds until the ratios of the pairs are known, or the time is over.

    Args:
        contenders: each returns the seconds that it took.
        pairs: the names of contenders whose ratios are asked for.
        seconds: for all rounds; the first call of each contender is not counted.
    """
    for run in contenders.values():
        run()
    least, most = ROUNDS
    start, rounds = time.monotonic(), []
    while len(rounds) < most:
        order = list(contenders)[:: -1 if len(rounds) % 2 else 1]
        rounds.append({name: contenders[name]() for name in order})
        spent = time.monotonic() - start
        if len(rounds) < least:
            continue
        found = Race(rounds)
        if spent > seconds or all(width(found.ratio(*x)) < WIDTH for x in pairs):
            break
    return Race(rounds)


def width(found: Interval) -> float:
    """Returns the width of an interval against its value."""
    return (found.high - found.low) / found.value


def clocked(run: Callable[[], object]) -> Callable[[], float]:
    """Returns the function that calls `run` and returns the seconds it took."""

    def timed() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return timed


def _exponential(logs: np.ndarray) -> Interval:
    return Interval(*map(float, np.exp(interval(estimate(logs)))))
