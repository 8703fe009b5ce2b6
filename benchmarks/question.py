"""A question about speed, and its answer: rows of figures, curves, notes.

A question is a script of this folder: the first line of its docstring is the question,
and `ask(seconds)` measures for about as long, besides compiling, and returns an
`Answer`. By itself it prints it:

    python -m benchmarks.ensemble --seconds=30
"""

import argparse
import dataclasses
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optsde.analysis import Interval, number, table


@dataclasses.dataclass(frozen=True)
class Row:
    """A figure with its interval: a ratio where it has no unit. Less is better."""

    name: str
    found: Interval
    unit: str = ""
    aim: float | None = None  # at most

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
    """Answers a question by itself: `--seconds`, and `--json` for the file to write."""
    module: Any = inspect.getmodule(ask)
    question = module.__doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--seconds", type=float, default=60, help="for the rounds")
    parser.add_argument("--json", type=Path, help="a file for the answer")
    options = parser.parse_args(argv)
    if not options.seconds > 0:
        parser.error(f"--seconds={options.seconds:g}: needs a positive number")
    answer = ask(options.seconds)
    print(printed(question, answer))
    if options.json:
        content = {"question": question, **dataclasses.asdict(answer)}
        options.json.write_text(json.dumps(content, ensure_ascii=False))


def read(content: Mapping[str, Any]) -> Answer:
    """Returns the answer that JSON holds."""
    rows = [Row(**{**row, "found": Interval(*row["found"])}) for row in content["rows"]]
    drawn = content["picture"]
    if drawn is not None:
        curves = {
            name: [Interval(*x) for x in curve]
            for name, curve in drawn["curves"].items()
        }
        drawn = Picture(**{**drawn, "curves": curves})
    return Answer(rows, content["notes"], drawn)


def _text(value: float, unit: str) -> str:
    """Returns a number with its unit; a small ratio as 1/n."""
    if not unit and 0 < value < 0.1:
        return f"1/{_text(1 / value, '')}"
    big = abs(value) >= 1000
    return " ".join(filter(None, [f"{value:,.0f}" if big else number(value), unit]))
