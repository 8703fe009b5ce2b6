"""Were the predictions any good? Finished runs, scored beside guesses that know less.

    python -m experiments.scaling.score RUNDIR …

The κ up to which a rule holds is seen as an interval: from the largest at which it held
to the first at which it did not. Forecasts of it are scored by −log of the probability
that they gave to that interval (`optsde.analysis.scores`), each by widths, and factors
c, that fit all other runs best: a constant, c/(G/N), and what was predicted, as it
stands and times c. Then the loss at each κ, predicted and seen.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.scaling.verification import largest
from optsde.analysis import (
    Interval,
    Verdict,
    estimate,
    interval,
    out_of_sample,
    paired,
    table,
    with_interval,
)


class Gap(NamedTuple):
    """The loss at one κ less the base run's, in %; the intervals are 90% ones."""

    kappa: float
    predicted: float
    seen: Interval
    missed: Interval  # seen less predicted, of both errors


class Case(NamedTuple):
    """One finished run: what was seen, and what was predicted."""

    name: str
    held: float
    failed: float
    kappa: float
    limit: float
    ratio: float
    gaps: tuple[Gap, ...]

    @property
    def scored(self) -> bool:
        """Returns whether every forecast has a positive, finite number for it."""
        numbers = self.kappa, self.limit, self.ratio
        return all(math.isfinite(x) and x > 0 for x in numbers)


FORECASTS = {
    "a constant c": (lambda case: 1.0, True),
    "c/(G/N)": (lambda case: 1 / case.ratio, True),
    "predicted κ": (lambda case: case.kappa, False),
    "c · predicted κ": (lambda case: case.kappa, True),
    "κ at which the predicted loss is off": (lambda case: case.limit, False),
    "c · that": (lambda case: case.limit, True),
}
"""What is forecast of a case, and whether a factor c is fitted to the others."""


def read(folder: Path) -> Case:
    """Returns what a finished run directory of `experiments.scaling` has."""
    file = folder / "summary.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    if found.get("status") != "done" or "limit" not in found.get("prediction", {}):
        raise ValueError(
            f"{folder}: no finished run of experiments.scaling that predicted how much "
            "the loss differs (probe_until=1, two probe_seeds or more)"
        )
    predicted = found["prediction"]
    verdicts = {v["claim"]: Verdict(**v) for v in found["verdicts"]}
    total, gaps = predicted["difference"]["total"]["mean"], []

    def found_at(claim: str, kappa: float) -> Interval:
        verdict = verdicts[f"{claim}_at_{kappa:g}"]
        return Interval(verdict.value, verdict.low, verdict.high)

    for kappa, value in zip(predicted["difference"]["kappas"], total, strict=True):
        ends = found_at("rule_holds", kappa), found_at("foreseen", kappa)
        gaps.append(Gap(kappa, value, *ends))
    held, failed = largest(verdicts.values())
    return Case(
        name=folder.name,
        held=held,
        failed=failed,
        kappa=_number(predicted["kappa"]),
        limit=_number(predicted["limit"]["value"]),
        ratio=_number(predicted["ratio"]),
        gaps=tuple(gaps),
    )


def _number(stored: float | None) -> float:
    """Returns a number of a JSON file, which has null for infinity."""
    return math.inf if stored is None else stored


def report(cases: Sequence[Case]) -> Iterator[str]:
    """Yields the tables: of the forecasts of κ, their scores, and the losses."""
    scored = [case for case in cases if case.scored]
    if left := [case.name for case in cases if not case.scored]:
        yield f"not scored, as a forecast is infinite or negative: {', '.join(left)}"
    low, high = (np.array([case[i] for case in scored]) for i in (1, 2))
    scores = {
        name: out_of_sample([of(case) for case in scored], low, high, fitted)
        for name, (of, fitted) in FORECASTS.items()
    }
    rows = []
    for i, case in enumerate(scored):
        numbers = case.kappa, case.limit, 1 / case.ratio
        cells = [f"{case.held:g} to {case.failed:g}", *(f"{x:.3g}" for x in numbers)]
        rows.append([case.name, *cells, *(f"{x[i]:.2f}" for x in scores.values())])
    header = ["run", "held to", "predicted", "loss off", "N/G"]
    numbered = [f"({i + 1})" for i in range(len(FORECASTS))]
    yield table([*header, *numbered], rows, "lrrrr" + "r" * len(FORECASTS))
    rows = []
    constant = scores["a constant c"]
    for number, (name, found) in zip(numbered, scores.items(), strict=True):
        cells = [estimate(found), paired(constant, found)]
        rows.append([number, name, *(with_interval(interval(x), 2) for x in cells)])
    yield table(["", "forecast", "mean score", "better than (1) by"], rows, "llrr")
    yield _losses(cases)


def _losses(cases: Sequence[Case]) -> str:
    rows, gaps = [], [gap for case in cases for gap in case.gaps]
    for case in cases:
        for gap in case.gaps:
            spans = [with_interval(x, 1, sign="+") for x in (gap.seen, gap.missed)]
            predicted = f"{gap.predicted:+.1f}"
            rows.append([case.name, f"{gap.kappa:g}", predicted, *spans])
    header = ["run", "κ", "predicted, %", "seen, %", "not foreseen, % [90%]"]
    covered = sum(gap.missed.low <= 0 <= gap.missed.high for gap in gaps)
    missed = np.mean([abs(gap.missed.value) for gap in gaps])
    nothing = np.mean([abs(gap.seen.value) for gap in gaps])
    return (
        f"{table(header, rows, 'lrrrr')}\n\n"
        f"nothing is left unforeseen, at 90%, in {covered} of {len(gaps)}; the mean "
        f"size of what is left is {missed:.1f} points, and {nothing:.1f} if no "
        "difference is foreseen at all"
    )


def main() -> None:
    """Prints the report of the run directories named on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.scaling.score", description=__doc__.splitlines()[0]
    )
    parser.add_argument("rundir", type=Path, nargs="+", help="a finished run directory")
    try:
        texts = list(report([read(folder) for folder in parser.parse_args().rundir]))
    except (ValueError, OSError) as error:
        sys.exit(f"experiments.scaling.score: {error}")
    print("\n\n".join(texts))


if __name__ == "__main__":
    main()
