"""Two runs of one study: settings that differ, their verdicts, and their numbers.

    python -m experiments.compare DIR DIR

Numbers of the second run less the first are paired where both have the same seeds.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from optsde.analysis import Estimate, Verdict, estimate, interval, paired, table
from optsde.analysis.tables import number, plus_minus
from optsde.study import provenance
from optsde.study.integrity import read_object, refuse_foreign
from optsde.study.parts import Parts
from optsde.study.values import shown

METRICS = ("loss", "train_loss", "test_loss", "test_accuracy")
ABSENT = "—"


class Finished(NamedTuple):
    """A finished run, as its directory has it: settings, summary, last numbers."""

    path: Path
    settings: dict[str, Any]  # by dotted names
    summary: dict[str, Any]
    numbers: dict[str, "Ending"]  # by arm/metric

    @property
    def origin(self) -> str:
        """The revisions that the numbers were made at, and that judged them."""
        made = provenance.recorded(self.path).values()
        found = [provenance.name_of(stamp) for stamps in made for stamp in stamps]
        names = ", ".join(dict.fromkeys(found)) or "a revision that is not recorded"
        judge = self.summary.get("judged")
        judged = f", judged at {provenance.name_of(judge)}" if judge else ""
        return f"{self.summary['status']}, made at {names}{judged}"


class Ending(NamedTuple):
    """A metric at the end of a run."""

    at: float  # its time or step, or the number of measurements
    values: np.ndarray  # [seeds]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise ValueError(f"{message}; {self.format_usage().strip()}")


def main(argv: Sequence[str]) -> int:
    """Prints the comparison of two run directories; returns the exit code."""
    parser = _Parser("python -m experiments.compare", description=__doc__)
    parser.add_argument("first", metavar="DIR", type=Path)
    parser.add_argument("second", metavar="DIR", type=Path)
    try:
        asked = parser.parse_args(argv)
        runs = read(asked.first), read(asked.second)
        refuse_other_studies(*runs)
        lines = [*report(*runs)]
    except (ValueError, OSError) as error:
        print(f"experiments.compare: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


def read(folder: Path) -> Finished:
    """Returns what a run directory has; refuses one that has no summary."""
    found = {}
    if folder.is_dir():
        refuse_foreign(folder, writing=False)
    for name in ("config.json", "summary.json"):
        file = folder / name
        if not file.is_file():
            raise ValueError(
                f"{folder} has no {name}: needs the directory of a run that has ended, "
                "such as runs/svag/digits-1a2b3c"
            )
        found[name] = read_object(file)
    _refuse_unfinished(folder, found["summary.json"])
    settings = dict(_leaves(found["config.json"]))
    numbers = dict(_numbers(folder, settings.get("seeds", 1)))
    return Finished(folder, settings, found["summary.json"], numbers)


def _refuse_unfinished(folder: Path, summary: dict[str, Any]) -> None:
    """Refuses a summary of a run that has not ended, or one that no run has written."""
    if summary.get("status") == "running":
        raise ValueError(
            f"{folder} is of a run that has not ended, or was killed: run its command"
        )
    try:
        _ = [summary["experiment"] + summary["status"], *summary.get("judged", {})]
        _ = [(v["claim"], *_verdict(v)) for v in summary["verdicts"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / 'summary.json'} is damaged ({type(error).__name__}: {error})"
        ) from None


def refuse_other_studies(a: Finished, b: Finished) -> None:
    """Refuses runs of two studies, whose claims have nothing in common."""
    one, other = (
        f"{run.summary['experiment']}.{run.settings.get('study', '')}".rstrip(".")
        for run in (a, b)
    )
    if one != other:
        raise ValueError(
            f"{a.path} is a run of {one}, {b.path} of {other}: needs two runs of one "
            "study"
        )


def report(a: Finished, b: Finished) -> Iterator[str]:
    """Yields the lines that compare two runs."""
    yield f"A  {a.path}: {a.origin}"
    yield f"B  {b.path}: {b.origin}"
    yield ""
    yield from _settings(a, b)
    yield from _verdicts(a, b)
    yield from _differences(a, b)


def _settings(a: Finished, b: Finished) -> Iterator[str]:
    names = list({**a.settings, **b.settings})
    rows = [
        [name, *(_shown(run.settings, name) for run in (a, b))]
        for name in names
        if a.settings.get(name) != b.settings.get(name)
    ]
    if rows:
        yield table(["settings that differ", "A", "B"], rows, "lll")
    else:
        yield f"all {len(names)} settings are the same"
    yield ""


def _verdicts(a: Finished, b: Finished) -> Iterator[str]:
    found = [{v["claim"]: v for v in run.summary["verdicts"]} for run in (a, b)]
    claims = list({**found[0], **found[1]})
    if not claims:
        yield "neither run has verdicts"
        return
    rows = []
    for claim in claims:
        cells = [cell for each in found for cell in _verdict(each.get(claim))]
        words = cells[1], cells[3]
        mark = "" if words[0] == words[1] or ABSENT in words else "differs"
        rows.append([claim, *cells, mark])
    yield table(["claim", "A", "", "B", "", ""], rows, "lrlrll")


def _verdict(stored: Mapping[str, Any] | None) -> tuple[str, str]:
    """Returns a verdict's value with its interval, and its outcome."""
    if stored is None:
        return ABSENT, ABSENT
    ends = [number(stored[x], missing="nan") for x in ("value", "low", "high")]
    text = f"{ends[0]} [{ends[1]}, {ends[2]}]"
    if "fails" not in stored:  # of a version that did not tell open from failing
        return text, "holds" if stored["holds"] else "does not hold"
    return text, Verdict(**stored).words


def _differences(a: Finished, b: Finished) -> Iterator[str]:
    same = all(a.settings.get(x) == b.settings.get(x) for x in ("seed", "seeds"))
    rows, identical, elsewhere = [], [], []
    for name in a.numbers.keys() & b.numbers.keys():
        (here, mine), (there, theirs) = a.numbers[name], b.numbers[name]
        if here != there:
            elsewhere.append(name)
        elif np.array_equal(mine, theirs, equal_nan=True):
            identical.append(name)
        else:
            rows.append(_row(name, mine, theirs, same))
    if rows:
        how = "paired by seed" if same else "seeds not paired"
        header = ["at the end of the run", "A", "B", "B − A", f"95%, {how}"]
        yield "\n" + table(header, sorted(rows), "lrrrr")
    if identical:
        yield f"\nthe same, bit for bit: {', '.join(sorted(identical))}"
    if elsewhere:
        yield f"\nnot compared, they end at other times: {', '.join(sorted(elsewhere))}"


def _row(name: str, mine: np.ndarray, theirs: np.ndarray, same: bool) -> list[str]:
    each = [_estimate(x) for x in (mine, theirs)]
    texts = [plus_minus(x, beyond=2) for x in each]
    if len(mine) < 2 or len(theirs) < 2:
        return [name, *texts, number(float(theirs[0] - mine[0])), ABSENT]
    gap = paired(theirs, mine) if same else each[1] - each[0]
    value, low, high = interval(gap)
    return [name, *texts, number(value), f"[{number(low)}, {number(high)}]"]


def _estimate(values: np.ndarray) -> Estimate:
    if len(values) > 1:
        return estimate(values)
    return Estimate(values[0], np.array(np.nan), 1)


def _numbers(folder: Path, seeds: int) -> Iterator[tuple[str, Ending]]:
    """Yields arm/metric and its end.

    Arrays of another number of replicas are left out: they hold several arms, or
    something else than seeds.
    """
    stored = Parts(folder / "curves").flat()
    for name, values in stored.items():
        if name.rpartition("/")[2] in METRICS and len(values) == seeds:
            columns = values.reshape(seeds, -1)
            times = stored.get(f"{name}@times")
            end = columns.shape[1] if times is None else float(times[-1])
            yield name, Ending(end, columns[:, -1])


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _shown(settings: Mapping[str, Any], name: str) -> str:
    if name not in settings:
        return ABSENT
    value = settings[name]
    return shown(tuple(value) if isinstance(value, list) else value)
