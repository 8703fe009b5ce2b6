"""Progress of a run, for whoever watches: a terminal, a log, TensorBoard, wandb."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TextIO, TypeVar

from optsde.hosts import devices, first
from optsde.run.writers import Writer, means

LOSSES = ("loss", "train_loss", "test_loss")  # the first that a row has is shown
MakeWriters = Callable[[str, Sequence[str]], Sequence[Writer]]
"""(label of a run, names of its blocks of replicas) -> writers for its rows."""

Thing = TypeVar("Thing")

_writers: ContextVar[MakeWriters] = ContextVar("writers", default=lambda *_: ())
_part: ContextVar[tuple[int, int] | None] = ContextVar("part", default=None)


@contextlib.contextmanager
def writing_to(make: MakeWriters) -> Iterator[None]:
    """Within it, the rows of every run that has a `Progress` go to these writers too.

    It is for a program's outermost function, which alone knows who watches.
    """
    token = _writers.set(make)
    try:
        yield
    finally:
        _writers.reset(token)


def parts(things: Collection[Thing]) -> Iterator[Thing]:
    """Yields each of some things, while a `Progress` made inside says *part 3 of 8*.

    >>> [thing for thing in parts(["base", "svag"])]
    ['base', 'svag']
    """
    if len(things) == 1:  # nothing to count
        yield from things
        return
    before = _part.get()
    try:
        for number, thing in enumerate(things, 1):
            _part.set((number, len(things)))
            yield thing
    finally:
        _part.set(before)


class Progress:
    """Prints `label  t = 120/400  30%  loss 0.31 at step 110  2.1 s, 4.9 s left`.

    A terminal has that on one line. A log has a line at most every ten seconds, and
    every minute after the first, each with the time of day in front.

    Args:
      label: the name of the run.
      stream: where it is printed; stderr, where none is given.
      names: of blocks of replicas of equal size, such as arms, for the writers.
    """

    def __init__(
        self,
        label: str,
        stream: TextIO | None = None,
        *,
        names: Sequence[str] = (),
    ):
        self.label = label
        self.stream = stream or sys.stderr
        self.start = time.monotonic()
        self.began = 0.0
        self.shown = self.start
        self._names = names
        part = _part.get()
        self._part = f"part {part[0]} of {part[1]}: " if part else ""

    def writers(self) -> Sequence[Writer]:
        """Returns the writers of those who watch, by `writing_to`."""
        return _writers.get()(self.label.strip(), self._names)

    def compiling(self) -> None:
        """Says that the run is compiled, and what for."""
        self._print(f"{self.label}  compiling, for {devices()}")

    def say(self, words: str) -> None:
        """Says in a line of its own what is waited for, such as *drawing figures*."""
        self._print(f"{self.label}  {words}", last=True)

    def begin(self, at: float, resumed: str = "") -> None:
        """Counts the time left from here, after compiling; says where a run resumes."""
        self.start = self.shown = time.monotonic()
        self.began = at
        if resumed:
            self._print(f"{self.label}  {resumed}", last=True)

    def update(
        self, now: float, end: float, row: Mapping[str, Any] | None = None
    ) -> None:
        """Shows that the clock stands at `now` of `end`, and the loss of the last row.

        That may be of an earlier step, since numbers are read late from the devices.
        """
        instant = time.monotonic()
        elapsed = instant - self.start
        often = 0.1 if self.stream.isatty() else 10 if elapsed < 60 else 60
        done = now >= end
        if not done and instant - self.shown < often:
            return
        self.shown = instant
        share = (now - self.began) / max(end - self.began, 1e-12)
        left = f", {elapsed * (1 / share - 1):.0f} s left" if 0 < share < 1 else ""
        parts = [self.label, f"t = {now:g}/{end:g}", f"{share:4.0%}"]
        parts += [*_loss_of(row or {}), f"{elapsed:.1f} s{left}"]
        self._print("  ".join(parts), last=done)

    def _print(self, text: str, last: bool = False) -> None:
        if not first():
            return
        text = self._part + text
        if self.stream.isatty():
            self.stream.write(f"\r{text:<78}" + ("\n" if last else ""))
        else:
            self.stream.write(f"{time.strftime('%H:%M:%S')}  {text}\n")
        self.stream.flush()


def _loss_of(row: Mapping[str, Any]) -> Iterator[str]:
    """Yields the mean loss of a row over its replicas, if the row has one."""
    for name in LOSSES:
        if name in row:
            (loss,) = means({name: row[name]}).values()
            number = f"{loss:.4g}" if math.isfinite(loss) else "not finite"
            yield f"{name.replace('_', ' ')} {number} at step {row['step']}"
            return
