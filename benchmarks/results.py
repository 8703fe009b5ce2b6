"""What was measured, on disk: records in a JSON file, a page, figures, README's table.

A question's record is its answer with the stamp of when it was asked. Asking some
questions again leaves the records of the others.
"""

import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import SAME, words
from benchmarks.question import Answer, Picture, Row, read, written
from optsde.analysis import plots

HERE = Path(__file__).parent
ROOT = HERE.parent
MARKS = "<!-- bench -->", "<!-- /bench -->"
Records = Mapping[str, Mapping[str, Any]]


class Place(NamedTuple):
    """Where records are, and what is made of them."""

    file: Path
    page: Path
    figures: str  # which the names of questions are put in

    def load(self) -> dict[str, dict[str, Any]]:
        """Returns the records by question; none where there is no file."""
        return json.loads(self.file.read_text()) if self.file.exists() else {}

    def keep(self, records: Records, order: Sequence[str]) -> None:
        """Writes the records in the order of their questions."""
        ordered = {name: records[name] for name in order if name in records}
        text = json.dumps(ordered, indent=1, ensure_ascii=False)
        self.file.write_text(f"{text}\n")

    def text(self) -> str:
        """Returns the page: a table for each question, with its machine."""
        parts = [ABOUT]
        for name, record in self.load().items():
            answer = read(record)
            parts += [f"## {record['question']}\n", f"{lines(answer)}\n"]
            if answer.picture:
                figure = self.figures.format(name)
                parts.append(f"![{record['question']}](../{figure})\n")
            notes = [*answer.notes, words(record["stamp"]), f"{record['seconds']} s"]
            parts.append(f"{name}: {'; '.join(notes)}.\n")
        return "\n".join(parts)

    def write_pages(self) -> None:
        """Writes the page and the figures."""
        self.page.write_text(self.text())
        for name, record in self.load().items():
            if picture := read(record).picture:
                draw(picture, ROOT / self.figures.format(name))


PLACE = Place(HERE / "results.json", HERE / "RESULTS.md", "docs/figures/bench_{}.png")
ABOUT = """# Speed

`python -m benchmarks` writes this page. Intervals are at 95%: a ratio is the geometric
mean over rounds in which contenders take turns. An aim is met where the whole interval
is below it, missed where it is above, and open where it is inside. *Load*: how many
programs ran as it began; an idle machine has 0.
"""


def renew(
    place: Place, names: Sequence[str], order: Sequence[str], seconds: float
) -> int:
    """Asks questions and renews records and pages; says what got slower, and failed.

    Returns the exit code.
    """
    before, now = place.load(), place.load()
    try:
        failed = ask_each(names, [f"--seconds={seconds}"], now.__setitem__)
    finally:  # at the end, since a file that has changed is another revision
        place.keep(now, order)
        place.write_pages()
    for line in slower(before, now):
        print(f"slower than the last time: {line}")
    if failed:
        print(f"failed: {', '.join(failed)}; their last figures stay", file=sys.stderr)
    return 3 if failed else 0


def ask_each(
    names: Sequence[str],
    options: Sequence[str],
    take: Callable[[str, dict[str, Any]], object],
) -> list[str]:
    """Asks questions, each in a process of its own; returns those that failed.

    `take` gets the name and the record of each of the others, as soon as it is there.
    """
    failed = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "record.json"
            script = [sys.executable, "-m", f"benchmarks.{name}"]
            command = [*script, *options, f"--json={file}"]
            if subprocess.run(command, cwd=ROOT).returncode:
                failed.append(name)
            else:
                take(name, json.loads(file.read_text()))
        print(flush=True)
    return failed


def slower(before: Records, now: Records) -> Iterator[str]:
    """Yields what got worse beyond both intervals, on the same machine, in words.

    Where the machine is another one, only what is counted is compared. What is exact
    and no count, such as an error, is worse from a twentieth on.
    """
    for name, record in now.items():
        if name not in before:
            continue
        old = {row.name: row for row in read(before[name]).rows}
        same = all(before[name]["stamp"][x] == record["stamp"][x] for x in SAME)
        for row in read(record).rows:
            was = old.get(row.name)
            if was is None or not (same or (is_counted(row) and is_counted(was))):
                continue
            worse, better = (was, row) if row.more else (row, was)
            margin = 1.05 if is_exact(row) and not is_counted(row) else 1.0
            if worse.found.low > margin * better.found.high:
                yield f"{name}: {row.name}: {written(was)[0]} → {written(row)[0]}"


def is_exact(row: Row) -> bool:
    return row.found.low == row.found.high


def is_counted(row: Row) -> bool:
    return is_exact(row) and row.found.value.is_integer()


# ---- pages


def lines(answer: Answer) -> str:
    """Returns the rows as a table of Markdown."""
    rows = [[row.name, *written(row), row.verdict] for row in answer.rows]
    rows[:0] = [["", "found", "95% interval", "aim", ""], ["---"] * 5]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def readme_table(records: Records) -> str:
    """Returns the README's table: measured ratios that have an aim, and the machine."""
    rows = [["", "measured", "95% interval", "aim"], ["---"] * 4]
    for record in records.values():
        for row in read(record).rows:
            if row.aim is not None and not row.unit and not is_exact(row):
                value, interval, aim = written(row)
                missed = ", missed" if row.verdict == "missed" else ""
                rows.append([row.name, value, interval, aim + missed])
    stamps = dict.fromkeys(
        words(record["stamp"], load=False) for record in records.values()
    )
    table = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*table, "", *(f"{stamp}." for stamp in stamps)])


def inserted(text: str, records: Records) -> str:
    """Returns a page with the table between its marks, if it has them."""
    first, last = MARKS
    pattern = re.escape(first) + ".*?" + re.escape(last)
    table = f"{first}\n{readme_table(records)}\n{last}"
    return re.sub(pattern, lambda _: table, text, flags=re.DOTALL)


def draw(picture: Picture, file: Path) -> None:
    """Draws the curves with their intervals."""
    figure, (ax,) = plots.new_figure(1, width=plots.HALF_SLIDE, height=4.0)
    colours = plots.colours(picture.curves)
    dashes = itertools.cycle(["-", "--", ":"])  # curves may lie on each other
    for (label, curve), dash in zip(picture.curves.items(), dashes, strict=False):
        values, lows, highs = zip(*curve, strict=True)
        ax.plot(picture.x, values, "o", ls=dash, color=colours[label], label=label)
        ax.fill_between(picture.x, lows, highs, color=colours[label], alpha=0.22, lw=0)
    ax.set_xscale("log", base=2)
    ax.set_xticks(picture.x, [f"{x:,}" for x in picture.x])
    ax.minorticks_off()
    plots.plain_log_axis(ax, "y")
    drawn = [x for curve in picture.curves.values() for x in curve]
    ax.set_ylim(min(x.low for x in drawn) / 1.5, max(x.high for x in drawn) * 1.5)
    plots.label(ax, x=picture.x_label, y=picture.y_label, legend="best")
    with plots.style():
        figure.savefig(file, dpi=100)
