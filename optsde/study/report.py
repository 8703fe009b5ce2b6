"""report.html: a finished run on one page that needs no other file.

Verdicts, figures, tables, settings, those that differ from their defaults first, the
command that makes it again, and what the numbers were made with.
"""

import base64
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from optsde.analysis import Verdict
from optsde.run import files
from optsde.study import provenance
from optsde.study.rundir import RunDir
from optsde.study.settings import Settings
from optsde.study.values import shown

FILE = "report.html"
IMAGES = {".png": "png", ".gif": "gif", ".svg": "svg+xml"}
ASIDE = ("--fresh", "--nofresh")  # of a command, which make no other numbers
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .8rem .25rem 0;
  text-align: left; vertical-align: top; }
td.number { text-align: right; white-space: nowrap; }
th.number { text-align: right; }
td.unit { min-width: 8rem; }
td.value { max-width: 24rem; overflow-wrap: break-word; }
td.part { max-width: 20rem; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { background: var(--soft); overflow-x: auto; padding: .7rem; }
img { background: white; display: block; height: auto; margin: .5rem 0 1.5rem;
  max-width: 100%; }
.outcome { border-radius: .3rem; color: white; padding: .05rem .5rem;
  white-space: nowrap; }
.holds { background: #1a7f37; } .open { background: #6e7781; }
.fails { background: #b35900; }
.note { border-left: .3rem solid #b35900; padding-left: .7rem; }
summary { cursor: pointer; margin: .5rem 0; }
"""


def write(
    rundir: RunDir,
    question: str,
    settings: Settings,
    verdicts: Sequence[Verdict],
    texts: Iterable[str],
) -> Path:
    """Writes report.html of a run that is done; returns its place.

    Args:
      rundir: with summary.json and figures.
      question: the text on top.
      settings: of the run.
      verdicts: of its claims.
      texts: tables and answers, as they are printed.
    """
    summary = json.loads((rundir.path / "summary.json").read_text())
    meta = json.loads((rundir.path / "meta.json").read_text())
    parts = [
        f"<h1>{escape(rundir.study)}: {escape(rundir.path.absolute().name)}</h1>",
        f"<p>{escape(question)}</p>",
        f"<p>{_ended(summary)}</p>",
        *_notes(rundir),
        *_verdicts(verdicts),
        *_figures(rundir.path / "figures"),
        *_texts(texts),
        *_settings(settings),
        *_again(rundir.study, meta["argv"]),
        *_made(rundir, summary),
    ]
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(rundir.study)}: {escape(rundir.path.absolute().name)}</title>"
        f"\n<style>{STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts)
    )
    file = rundir.path / FILE
    files.write(file, page + "\n</body>\n</html>\n")
    return file


def _ended(summary: Mapping[str, Any]) -> str:
    judged = summary["judged"]
    return (
        f"{summary['status'].capitalize()} on {judged['time']}, after "
        f"{summary['seconds']:g} s, at {escape(provenance.name_of(judged))}."
    )


def _notes(rundir: RunDir) -> Iterable[str]:
    for note in rundir.notes():
        yield f'<p class="note">{escape(note)}</p>'


def _verdicts(verdicts: Sequence[Verdict]) -> Iterable[str]:
    if not verdicts:
        return
    yield "<h2>Verdicts</h2>"
    in_family = any(v.family for v in verdicts)
    header = ["claim", "verdict", ">value", ">interval", ">bound", "unit"]
    header += [">p (Holm)"] if in_family else []
    rows = []
    for v in verdicts:
        numbers = [f"{v.value:.3g}", f"[{v.low:.3g}, {v.high:.3g}]", f"{v.bound:g}"]
        p = "" if v.corrected is None else f"{v.corrected:.2g}"
        words = v.words.removeprefix(v.outcome)
        chip = f'<span class="outcome {v.outcome}">{v.outcome}</span>'
        row = [f"<td><code>{escape(v.claim)}</code></td>", f"<td>{chip}{words}</td>"]
        row += [f'<td class="number">{x}</td>' for x in numbers]
        row += [f'<td class="unit">{escape(v.unit)}</td>']
        row += [f'<td class="number">{p}</td>'] if in_family else []
        rows.append(row)
    yield _table(header, rows)
    yield (
        "<p>A claim holds where its whole interval lies where it says, fails where "
        "none of it does, and is open where the interval does not decide.</p>"
    )


def _figures(folder: Path) -> Iterable[str]:
    files = sorted(x for x in folder.rglob("*") if x.suffix in IMAGES)
    if files:
        yield "<h2>Figures</h2>"
    for file in files:
        data = base64.b64encode(file.read_bytes()).decode()
        kind = f"image/{IMAGES[file.suffix]}"
        name = escape(str(file.relative_to(folder)))
        yield f'<img alt="{name}" src="data:{kind};base64,{data}">'


def _texts(texts: Iterable[str]) -> Iterable[str]:
    found = [text.strip("\n") for text in texts if text.strip()]
    if found:
        yield "<h2>Tables</h2>"
    for text in found:
        yield f"<pre>{escape(text)}</pre>"


def _settings(settings: Settings) -> Iterable[str]:
    defaults = {leaf.name: leaf.value for leaf in type(settings)().leaves()}
    changed, others = [], []
    for leaf in settings.leaves():
        default = defaults.get(leaf.name)
        cells = [f"<td><code>{escape(leaf.name)}</code></td>"]
        cells += [_value(leaf.value)]
        cells += [_value(default) if leaf.name in defaults else "<td></td>"]
        cells += [f"<td>{escape(leaf.help)}</td>"]
        (others if leaf.value == default else changed).append(cells)
    header = ["setting", "value", "default", "meaning"]
    yield "<h2>Settings</h2>"
    if changed:
        yield "<p>Those that differ from the default:</p>" + _table(header, changed)
    yield f"<details><summary>The other {len(others)}</summary>"
    yield _table(header, others) + "</details>"


def _value(value: Any) -> str:
    """Returns the cell of a setting's value, whose lists are broken after commas."""
    text = escape(shown(value)).replace(",", ",<wbr>")
    return f'<td class="value">{text}</td>'


def _again(study: str, argv: Sequence[str]) -> Iterable[str]:
    if not argv or not argv[0].endswith("__main__.py"):
        return  # it was not made by a command
    command = ["python", "-m", f"experiments.{study}"]
    command += [argument for argument in argv[1:] if argument not in ASIDE]
    yield "<h2>To make it again</h2>"
    lines = [" ".join(command[:3]), *map(shlex.quote, command[3:])]
    text = " \\\n    ".join(lines)
    yield f"<pre>{escape(text)}</pre>"


def _made(rundir: RunDir, summary: Mapping[str, Any]) -> Iterable[str]:
    yield "<h2>Provenance</h2>"
    origins: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for part, stamps in rundir.made().items():
        for stamp in stamps:
            origins.setdefault(_origin(stamp), []).append((part, stamp["time"]))
    judge = summary["judged"]
    rows = []
    for origin, made in origins.items():
        names, times = zip(*made, strict=True)
        span = dict.fromkeys((min(times), max(times)))
        rows.append([", ".join(dict.fromkeys(names)), *origin, " to ".join(span)])
    rows.append(["judged", *_origin(judge), judge["time"]])
    header = ["part", "revision", "code", "packages", "devices", "time"]
    yield _table(header, ([_cell(x) for x in row] for row in rows))


def _cell(text: str) -> str:
    return f'<td class="part">{escape(text)}</td>'


def _origin(stamp: provenance.Stamp) -> tuple[str, ...]:
    packages = ", ".join(f"{n} {v}" for n, v in stamp["versions"].items())
    packages += f", Python {stamp['python']}" + (", float64" if stamp["x64"] else "")
    devices = ", ".join(stamp["devices"])
    return provenance.name_of(stamp), stamp["code"], packages, devices


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table; cells are <td> elements, and titles with > are of numbers."""
    head = "".join(
        f'<th class="number">{escape(title[1:])}</th>'
        if title.startswith(">")
        else f"<th>{escape(title)}</th>"
        for title in header
    )
    body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )
