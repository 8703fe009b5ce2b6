"""Progress on a terminal: where a run is, and how long it still takes."""

import sys
import time
from typing import TextIO


class Progress:
    """Prints `label  t = 120/400  30%  2.1 s, 4.9 s left`, on one line of a terminal.

    On anything else than a terminal it prints a line at most every ten seconds, so that
    logs stay short.
    """

    def __init__(self, label: str, stream: TextIO | None = None):
        self.label = label
        self.stream = stream or sys.stderr
        self.start = time.monotonic()
        self.began = 0.0
        self.shown = self.start

    def begin(self, at: float) -> None:
        """Counts the time left from here, after compiling."""
        self.start = self.shown = time.monotonic()
        self.began = at

    def update(self, now: float, end: float) -> None:
        """Shows that the clock stands at `now` of `end`."""
        terminal = self.stream.isatty()
        instant = time.monotonic()
        done = now >= end
        if not done and instant - self.shown < (0.1 if terminal else 10):
            return
        self.shown = instant
        elapsed = instant - self.start
        share = (now - self.began) / max(end - self.began, 1e-12)
        left = f", {elapsed * (1 / share - 1):.0f} s left" if 0 < share < 1 else ""
        text = f"{self.label}  t = {now:g}/{end:g}  {share:4.0%}  {elapsed:.1f} s{left}"
        if terminal:
            self.stream.write(f"\r{text:<78}" + ("\n" if done else ""))
        else:
            self.stream.write(text + "\n")
        self.stream.flush()
