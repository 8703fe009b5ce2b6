"""A question about speed, and its answer: rows of figures, curves, notes.

A question is a script of this folder: the first line of its docstring is the question,
and `ask(seconds)` measures for about as long, besides compiling, and returns an
`Answer`. By itself it prints it:

    python -m benchmarks.ensemble --seconds=30

`--tiny` sets the names in the script's `TINY`, and so tries all of its code in small.
"""

import argparse
import dataclasses
import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import timing
from benchmarks.machine import stamp
from optsde.analysis import Interval, number, table


@dataclasses.dataclass(frozen=True)
class Row:
    """A figure with its interval: a ratio where it has no unit."""

    name: str
    found: Interval
    unit: str = ""
    aim: float | None = None  # at most
    more: bool = False  # is better

    @property
    def verdict(self) -> str:
        """Returns whether the aim is met, by the interval."""
        if self.aim is None:
            return ""
        if self.found.high <= self.aim:
            return "met"
        return "missed" if self.found.low > self.aim else "open"


@dataclasses.dataclass(frozen=True)
class Picture:
    """Curves of what grows, on logarithmic axes: for each name its values over x."""

    x_label: str
    y_label: str
    x: Sequence[float]
    curves: Mapping[str, Sequence[Interval]]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a question found; notes say what is missing, or what a figure means."""

    rows: Sequence[Row]
    notes: Sequence[str] = ()
    picture: Picture | None = None


def exactly(count: float) -> Interval:
    """Returns the interval of what is counted."""
    return Interval(float(count), float(count), float(count))


def missing(package: str) -> str:
    """Returns the note that a peer is not installed."""
    return f"{package} is not installed: pip install {package}"


def written(row: Row) -> tuple[str, str, str]:
    """Returns the figure, its interval and its aim as text.

    >>> written(Row("a", Interval(0.0105, 0.0104, 0.0106), aim=0.0125))
    ('1/95.2', '1/96.2 to 1/94.3', '≤ 1/80')
    """
    value, low, high = (_text(x, row.unit) for x in row.found)
    aim = "" if row.aim is None else f"≤ {_text(row.aim, row.unit)}"
    return value, "exact" if low == high else f"{low} to {high}", aim


def printed(question: str, answer: Answer) -> str:
    """Returns the answer as text for a terminal."""
    header = "", "found", "95% interval", "aim", ""
    rows = [(row.name, *written(row), row.verdict) for row in answer.rows]
    return "\n".join([question, table(header, rows, "lrrrl"), *answer.notes])


def asked(ask: Callable[[float], Answer], argv: Sequence[str] | None = None) -> None:
    """Answers a question by itself, prints it, and writes its record where told to."""
    module: Any = inspect.getmodule(ask)
    question = module.__doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--seconds", type=float, default=60, help="for the rounds")
    parser.add_argument("--tiny", action="store_true", help="all the code in small")
    parser.add_argument("--json", type=Path, help="a file for the record")
    options = parser.parse_args(argv)
    if not options.seconds > 0:
        parser.error(f"--seconds={options.seconds:g}: needs a positive number")
    if options.tiny:
        vars(module).update(module.TINY)
        timing.ROUNDS = 2, 2
    now, start = stamp(), time.monotonic()
    answer = ask(options.seconds)
    taken = round(time.monotonic() - start)
    print(printed(question, answer), flush=True)
    if options.json:
        record = {"question": question, "stamp": now, "seconds": taken}
        record |= dataclasses.asdict(answer)
        options.json.write_text(json.dumps(record, ensure_ascii=False))


def read(content: Mapping[str, Any]) -> Answer:
    """Returns the answer that JSON holds."""

    def row(found: Sequence[float], **others: Any) -> Row:
        return Row(found=Interval(*found), **others)

    def picture(curves: Mapping[str, Sequence], **others: Any) -> Picture:
        read = {name: [Interval(*x) for x in curve] for name, curve in curves.items()}
        return Picture(curves=read, **others)

    drawn = content["picture"]
    return Answer(
        [row(**x) for x in content["rows"]],
        content["notes"],
        None if drawn is None else picture(**drawn),
    )


def _text(value: float, unit: str) -> str:
    """Returns a number with its unit; a small ratio as 1/n."""
    if not unit and 1e-4 < value < 0.1:
        return f"1/{_text(1 / value, '')}"
    big = abs(value) >= 1000
    return " ".join(filter(None, [f"{value:,.0f}" if big else number(value), unit]))
