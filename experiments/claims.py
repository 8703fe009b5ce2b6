"""The ledger: what each source says, and what the runs of this project answer.

    python -m experiments.claims                  # renews docs/claims.md
    python -m experiments.claims runs/svag/*      # and takes up the verdicts of runs

A run is taken up if it has ended and has the settings of a preset; its verdicts are
kept in docs/claims.json. What is asked of it is in `experiments.sources`.
"""

import argparse
import json
import re
import runpy
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from experiments.sources import SOURCES, Question, Source
from optsde.analysis import Verdict
from optsde.analysis.tables import number
from optsde.run import files
from optsde.study.compare import Finished, read
from optsde.study.rundir import JUDGING

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "docs" / "claims.json"
PAGE = ROOT / "docs" / "claims.md"
Records = Mapping[str, Mapping[str, Any]]  # by preset, as "svag:digits"

HEAD = """\
# Claims

What the sources say, and what runs of this project answer, each with its command. A
claim *holds* or *fails* where its interval lies on one side of its bound: 95% over
seeds, or 90% where two runs shall agree, by two one-sided tests at 5%. Otherwise it is
*open*. A question is *known* if an answer was published before, by the source or by
others, and *new* if none was found; the answer here may be another. The data are those
that the presets name, seldom the source's.

Made by `python -m experiments.claims` of finished runs; the questions are in
`experiments/sources.py`.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Takes up runs and renews the page; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.claims",
        description="Takes up verdicts of finished runs, and renews docs/claims.md.",
    )
    parser.add_argument("run", nargs="*", type=Path, help="directory of a run")
    places = parser.parse_args(argv).run
    try:
        records = json.loads(RECORDS.read_text()) if RECORDS.exists() else {}
        taken = dict(map(taken_up, places))
        records = dict(sorted({**records, **taken}.items()))
        text = page(SOURCES, records)
    except (ValueError, OSError) as error:
        print(f"experiments.claims: {error}", file=sys.stderr)
        return 2
    files.write(RECORDS, written(records))
    files.write(PAGE, text)
    for preset, record in taken.items():
        print(f"{preset}: {len(record['verdicts'])} verdicts")
    print(f"{PAGE.relative_to(ROOT)}: {total(SOURCES, records)}")
    return 0


def taken_up(place: Path) -> tuple[str, dict[str, Any]]:
    """Returns the preset that a finished run is of, and what is kept of it."""
    run = read(place)
    if run.summary["status"] != "done":
        raise ValueError(
            f"{place} is {run.summary['status']}: needs a run that is done"
        )
    return preset_of(run), {
        "made": run.origin,
        "verdicts": run.summary["verdicts"],
    }


def written(records: Records) -> str:
    """Returns the records as JSON, with a line for each verdict."""
    parts = []
    for preset, record in records.items():
        made, *verdicts = (
            json.dumps(x, ensure_ascii=False)
            for x in (record["made"], *record["verdicts"])
        )
        lines = ",\n  ".join(verdicts)
        parts.append(f'"{preset}": {{"made": {made}, "verdicts": [\n  {lines}]}}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def preset_of(run: Finished) -> str:
    """Returns the preset whose settings a run has, as "svag:digits"."""
    study = run.summary["experiment"]
    config = runpy.run_path(str(ROOT / "configs" / f"{study}.py"))
    given = json.loads((run.path / "config.json").read_text())
    for name, preset in config["PRESETS"].items():
        settings = json.loads(preset.settings.config().to_json())
        if all(settings.get(x) == given.get(x) for x in {*settings, *given} - JUDGING):
            return f"{study}:{name}"
    raise ValueError(
        f"{run.path} has the settings of no preset in configs/{study}.py: needs a run "
        "of one, without --config.KEY=VALUE"
    )


def command(preset: str) -> str:
    """Returns the command line of a preset."""
    study, _, name = preset.partition(":")
    return f"python -m experiments.{study} --config=configs/{study}.py:{name}"


def answers(question: Question, records: Records) -> list[Verdict]:
    """Returns the recorded verdicts that answer a question; none if it was not run."""
    if question.preset not in records:
        return []
    verdicts = [Verdict(**v) for v in records[question.preset]["verdicts"]]
    patterns = question.claims.split()
    found = [v for v in verdicts if any(fnmatchcase(v.claim, p) for p in patterns)]
    if not found:
        raise ValueError(
            f"experiments/sources.py: {question.preset} has no claim like "
            f"{question.claims!r}; it has {', '.join(v.claim for v in verdicts)}"
        )
    return found


def tally(verdicts: Iterable[Verdict]) -> str:
    """Returns how many claims hold, are open, fail, in words.

    >>> tally([])
    'not run yet'
    """
    counts = Counter(verdict.outcome for verdict in verdicts)
    words = {"holds": ("holds", "hold"), "open": ("is open", "are open")}
    words["fails"] = ("fails", "fail")
    parts = [f"{counts[x]} {words[x][counts[x] > 1]}" for x in words if counts[x]]
    return ", ".join(parts) or "not run yet"


def total(sources: Iterable[Source], records: Records) -> str:
    """Returns the tally of all claims of some sources, each counted once."""
    found = {
        (question.preset, verdict.claim): verdict
        for source in sources
        for question in source.questions
        for verdict in answers(question, records)
    }
    return tally(found.values())


def page(sources: Sequence[Source], records: Records) -> str:
    """Returns the page: a table of all questions, then each with its verdicts."""
    lines = [HEAD, f"In all: {total(sources, records)}.", ""]
    lines += ["| source | says | here | |", "|---|---|---|---|"]
    for source in sources:
        name = f"[{source.name}](#{slug(source.name)})"
        for question in source.questions:
            found = tally(answers(question, records))
            lines.append(f"| {name} | {question.says} | {found} | {_new(question)} |")
            name = ""
    for source in sources:
        lines += ["", f"## {source.name}", "", source.where]
        for question in source.questions:
            lines += ["", *_answered(question, records)]
    return "\n".join(lines) + "\n"


def slug(heading: str) -> str:
    """Returns a heading's anchor, as Markdown has it.

    >>> slug("Li, Lyu, Arora 2020")
    'li-lyu-arora-2020'
    """
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


def _new(question: Question) -> str:
    return "known" if question.known else "new"


def _answered(question: Question, records: Records) -> Iterator[str]:
    """Yields what is said, its command and a table of the verdicts."""
    yield f"**{question.says}** ({_new(question)})"
    yield ""
    yield f"`{command(question.preset)}`"
    yield ""
    verdicts = answers(question, records)
    if not verdicts:
        yield "Not run yet."
        return
    yield "| claim | value [interval] | bound | unit | |"
    yield "|---|---:|---:|---|---|"
    for v in verdicts:
        value, low, high = (number(x, missing="—") for x in (v.value, v.low, v.high))
        cells = f"`{v.claim}`", f"{value} [{low}, {high}]", number(v.bound), v.unit
        yield f"| {' | '.join(cells)} | {v.words} |"


if __name__ == "__main__":
    sys.exit(main())
