"""Spikes of a loss: where each begins, peaks and ends, and whether it comes back.

A catapult is a spike that returns, at a flatter place; what ‖K‖ does meanwhile is
`optsde.measure.ntk`'s to say. All of this runs on the host, on any series of losses.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Spike(NamedTuple):
    start: int  # the step of its first loss
    peak: int  # of its largest
    height: float  # the largest loss, over the level that it rose from
    end: int | None = None  # of the first loss that is back; None: not returned
    diverged: bool = False


class SpikeDetector:
    """Takes one loss at a time, and holds the spikes so far.

    A spike begins where a loss is above `rise` times the median of the `window` losses
    before it, and ends below `fall` times that same median, which is held while the
    spike lasts. Losses below `floor` times the first one are never part of a spike:
    near interpolation everything is large beside the median. Nothing begins before
    `window` losses are seen. A loss that is not finite ends the series: the last spike,
    or one that begins there, is marked as diverged.
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
        """Take the next loss; whether it is part of a spike."""
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
    """The spikes of a whole series; `options` are those of the detector.

    >>> series = [1.0] * 30 + [3.0, 9.0, 4.0] + [1.1] * 10
    >>> find_spikes(series)
    [Spike(start=30, peak=31, height=9.0, end=33, diverged=False)]
    """
    detector = SpikeDetector(**options)
    for number, loss in enumerate(losses):
        detector.update(number if steps is None else int(steps[number]), loss)
    return detector.spikes


def phases(spikes: Sequence[Spike], last: int) -> list[tuple[int, int]]:
    """From and to which step each spike lasts; to `last` where it has not returned."""
    return [(s.start, last if s.end is None else s.end) for s in spikes]


def _ratio(loss: float, level: float) -> float:
    return loss / level if level > 0 else math.inf


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return 0.5 * (ordered[middle - 1] + ordered[middle])
