"""Spikes of a series of losses: where each begins, peaks and ends.

A catapult is a spike that returns, at a flatter place. The detector runs on the host
and takes any series, all at once or one loss at a time.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Spike(NamedTuple):
    """A spike of a series, by the steps of the series."""

    start: int  # step of the first loss that is up
    peak: int  # step of the largest loss
    height: float  # the largest loss over the level that it rose from
    end: int | None = None  # step of the first loss that is back; None: it never is
    diverged: bool = False  # whether a loss that is not finite ended the series


class SpikeDetector:
    """Finds the spikes of a series that arrives one loss at a time.

    A spike begins where a loss is above `rise` times the median of the `window` losses
    before it, and ends below `fall` times that same median, which stays fixed while the
    spike lasts. No spike begins in the first `window` losses. A loss that is not finite
    ends the series: the last spike, or one that begins there, is marked as diverged.

    Args:
        rise: how far above the median a spike begins.
        fall: how far above that median it ends; from 1 to `rise`.
        floor: losses below `floor` times the first are never part of a spike, since
            near interpolation every loss is large beside the median.
        window: how many losses the median is of.

    Attributes:
        spikes: all that have begun so far.

    >>> detector = SpikeDetector(window=3)
    >>> [detector.update(step, x) for step, x in enumerate([1, 1, 1, 5, 1])]
    [False, False, False, True, False]
    >>> detector.spikes
    [Spike(start=3, peak=3, height=5.0, end=4, diverged=False)]
    """

    def __init__(
        self,
        rise: float = 2.0,
        fall: float = 1.2,
        floor: float = 1e-2,
        window: int = 20,
    ):
        if not (1 <= fall <= rise and floor >= 0 and window >= 1):
            raise ValueError(
                f"rise={rise}, fall={fall}, floor={floor}, window={window}: needs "
                "1 ≤ fall ≤ rise, floor ≥ 0 and window ≥ 1"
            )
        self.rise, self.fall, self.floor = rise, fall, floor
        self.spikes: list[Spike] = []
        self._recent: deque[float] = deque(maxlen=window)
        self._first: float | None = None
        self._level = 0.0  # the median that the open spike rose from
        self._open = False

    def update(self, step: int, loss: float) -> bool:
        """Takes the next loss, and returns whether it is part of a spike."""
        loss = float(loss)
        if self.spikes and self.spikes[-1].diverged:
            return True
        if not math.isfinite(loss):
            self._diverge(step)
            return True
        if self._first is None:
            self._first = loss
        quiet = self.floor * self._first
        if self._open:
            return self._go_on(step, loss, quiet)
        if len(self._recent) == self._recent.maxlen:
            level = _median(self._recent)
            if loss > self.rise * level and loss >= quiet:
                self._open, self._level = True, level
                self.spikes.append(Spike(step, step, _ratio(loss, level)))
                return True
        self._recent.append(loss)
        return False

    def _go_on(self, step: int, loss: float, quiet: float) -> bool:
        last = self.spikes[-1]
        if loss < max(self.fall * self._level, quiet):
            self.spikes[-1] = last._replace(end=step)
            self._open = False
            self._recent.append(loss)
            return False
        height = _ratio(loss, self._level)
        if height > last.height:
            self.spikes[-1] = last._replace(peak=step, height=height)
        return True

    def _diverge(self, step: int) -> None:
        if not self._open:
            self.spikes.append(Spike(step, step, math.inf))
        last = self.spikes[-1]
        self.spikes[-1] = last._replace(peak=step, height=math.inf, diverged=True)


def find_spikes(
    losses: Iterable[float], steps: Sequence[int] | None = None, **options
) -> list[Spike]:
    """Returns the spikes of a whole series.

    Args:
        losses: the series.
        steps: the step of each loss; None: 0, 1, 2, …
        **options: those of `SpikeDetector`.

    >>> series = [1.0] * 30 + [3.0, 9.0, 4.0] + [1.1] * 10
    >>> find_spikes(series)
    [Spike(start=30, peak=31, height=9.0, end=33, diverged=False)]
    """
    losses = list(losses)
    if steps is not None and len(steps) != len(losses):
        raise ValueError(
            f"{len(losses)} losses at {len(steps)} steps: give one for each"
        )
    detector = SpikeDetector(**options)
    for number, loss in enumerate(losses):
        detector.update(number if steps is None else int(steps[number]), loss)
    return detector.spikes


def phases(spikes: Sequence[Spike], last: float) -> list[tuple[float, float]]:
    """Returns the (first, last) step of each spike; `last` where it never returned.

    >>> phases([Spike(start=30, peak=31, height=9.0)], last=50)
    [(30, 50)]
    """
    return [(s.start, last if s.end is None else s.end) for s in spikes]


def _ratio(loss: float, level: float) -> float:
    return loss / level if level > 0 else math.inf


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return 0.5 * (ordered[middle - 1] + ordered[middle])
