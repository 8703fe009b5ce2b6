"""What was measured, on disk: results.json, RESULTS.md, figures, the README's table.

A question's record is its answer with the stamp of when it was asked: the machine, its
load, versions, revision and date. Asking some questions again leaves the others' records.
"""

import json
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.question import Answer, Row, read, written
from optsde.analysis import plots
from optsde.study.provenance import present, version

HERE = Path(__file__).parent
FILE = HERE / "results.json"
FIGURES = HERE.parent / "docs" / "figures"
PACKAGES = ("jax", "jaxlib", "torch", "hessian-eigenthings", "curvlinops-for-pytorch")
MARKS = "<!-- bench -->", "<!-- /bench -->"
SAME = ("processor", "cores")  # of machines whose times can be compared
Records = Mapping[str, Mapping[str, Any]]


def stamp() -> dict[str, Any]:
    """Returns the machine, its load, the versions, the revision and the date of now."""
    made = present()
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(_pages("SC_PHYS_PAGES") * _pages("SC_PAGE_SIZE") / 2**30),
        "load": round(os.getloadavg()[0], 1),
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "revision": made["revision"],
        "date": time.strftime("%Y-%m-%d"),
    }


def load(file: Path = FILE) -> dict[str, dict[str, Any]]:
    """Returns the records by question; none where there is no file."""
    return json.loads(file.read_text()) if file.exists() else {}


def markdown(records: Records) -> str:
    """Returns RESULTS.md: a table for each question, with its machine."""
    parts = [
        "# Speed\n\n`python -m benchmarks` writes this page. Intervals are at 95%: a "
        "ratio is the geometric mean over rounds in which contenders take turns. An aim "
        "is met where the whole interval is below it, missed where it is above, and "
        "open where it is inside. *Load*: how many programs wanted the machine as it "
        "began, where an idle one has 0.\n"
    ]
    for name, record in records.items():
        answer = read(record)
        parts.append(f"## {record['question']}\n")
        parts.append(f"{_lines(answer)}\n")
        if answer.picture:
            parts.append(f"![{record['question']}](../docs/figures/bench_{name}.png)\n")
        notes = [*answer.notes, _words(record["stamp"]), f"{record['seconds']:.0f} s"]
        parts.append(f"`python -m benchmarks {name}`: {'; '.join(notes)}.\n")
    return "\n".join(parts)


def readme_table(records: Records) -> str:
    """Returns the README's table: the figures that have an aim."""
    rows = [row for record in records.values() for row in read(record).rows]
    lines = ["| | measured | 95% interval | aim |", "|---|---|---|---|"]
    for row in rows:
        if row.aim is not None:
            value, interval, aim = written(row)
            missed = " (missed)" if row.verdict == "missed" else ""
            lines.append(f"| {row.name} | {value} | {interval} | {aim}{missed} |")
    stamps = {_words(record["stamp"]) for record in records.values()}
    return "\n".join([*lines, "", *sorted(stamps)])


def inserted(text: str, records: Records) -> str:
    """Returns a page with the table between its marks, if it has them."""
    first, last = MARKS
    pattern = re.escape(first) + ".*?" + re.escape(last)
    table = f"{first}\n{readme_table(records)}\n{last}"
    return re.sub(pattern, lambda _: table, text, flags=re.DOTALL)


def slower(before: Records, now: Records) -> Iterator[str]:
    """Yields what rose beyond both intervals, on the same machine, in words.

    Where the machine is another one, only what is exact is compared.
    """
    for name, record in now.items():
        if name not in before:
            continue
        old = {row.name: row for row in read(before[name]).rows}
        same = all(before[name]["stamp"][x] == record["stamp"][x] for x in SAME)
        for row in read(record).rows:
            was = old.get(row.name)
            if was is None or row.found.low <= was.found.high:
                continue
            if same or (_is_exact(row) and _is_exact(was)):
                yield f"{name}: {row.name}: {written(was)[0]} → {written(row)[0]}"


def draw(name: str, record: Mapping[str, Any], folder: Path = FIGURES) -> Path | None:
    """Draws the curves of a question, if it has any; returns the file."""
    picture = read(record).picture
    if picture is None:
        return None
    figure, (ax,) = plots.new_figure(1, width=plots.HALF_SLIDE, height=4.0)
    for (label, curve), colour in zip(
        picture.curves.items(), plots.COLOURS, strict=False
    ):
        values, lows, highs = zip(*curve, strict=True)
        ax.plot(picture.x, values, "o-", color=colour, label=label)
        ax.fill_between(picture.x, lows, highs, color=colour, alpha=0.22, lw=0)
    ax.set_xscale("log", base=2)
    ax.set_xticks(picture.x, [f"{x:,}" for x in picture.x])
    ax.minorticks_off()
    plots.plain_log_axis(ax, "y")
    lows, highs = zip(*(x[1:] for curve in picture.curves.values() for x in curve))
    ax.set_ylim(min(*lows, min(highs)) / 1.5, max(highs) * 1.5)
    plots.label(ax, x=picture.x_label, y=picture.y_label, legend="best")
    with plots.style():
        figure.savefig(folder / f"bench_{name}.png", dpi=100)
    return folder / f"bench_{name}.png"


def _lines(answer: Answer) -> str:
    """Returns the rows as a table of Markdown."""
    lines = ["| | found | 95% interval | aim | |", "|---|---|---|---|---|"]
    for row in answer.rows:
        lines.append(f"| {' | '.join([row.name, *written(row), row.verdict])} |")
    return "\n".join(lines)


def _words(stamp: Mapping[str, Any]) -> str:
    """Returns the stamp in a line."""
    versions = ", ".join(
        f"{name} {x}" for name, x in stamp["versions"].items() if x != "not installed"
    )
    return (
        f"{stamp['cores']} cores of {stamp['processor']}, {stamp['memory_gb']} GB, load "
        f"{stamp['load']}; Python {stamp['python']}, {versions}; "
        f"{stamp['revision']}, {stamp['date']}"
    )


def _is_exact(row: Row) -> bool:
    return row.found.low == row.found.high


def _processor() -> str:
    """Returns the processor's name, as Linux has it."""
    file = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", file.read_text() if file.exists() else "")
    return found[1].strip() if found else platform.processor() or platform.machine()


def _pages(name: str) -> int:
    return os.sysconf(name)
