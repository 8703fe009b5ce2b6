"""Verdicts: a claim turned into a number, with an interval and a bound stated before.

`holds` is computed. False is a result, not an error; `expected` says what is known of
the setting.
"""

import dataclasses

from optsde.analysis.statistics import Estimate, equivalence, interval
from optsde.analysis.tables import table


@dataclasses.dataclass(frozen=True)
class Verdict:
    claim: str
    value: float
    low: float
    high: float
    bound: float
    unit: str
    holds: bool
    expected: bool = True

    def to_json(self) -> dict:
        return dataclasses.asdict(self)


def agrees(claim: str, x: Estimate, bound: float, unit: str, expected=True) -> Verdict:
    """|x| < bound, by two one-sided tests at 5% (the interval is the 90% one)."""
    e = equivalence(x, bound)
    return Verdict(claim, e.value, e.low, e.high, bound, unit, e.holds, expected)


def above(claim: str, x: Estimate, bound: float, unit: str, expected=True) -> Verdict:
    """x > bound, where the whole 95% interval is."""
    i = interval(x)
    holds = i.low > bound
    return Verdict(claim, i.value, i.low, i.high, bound, unit, holds, expected)


def within(claim: str, i, low: float, high: float, unit: str, expected=True) -> Verdict:
    """low < x < high, where its whole interval is; `bound` is half of that width."""
    holds = low < i.low and i.high < high
    bound = (high - low) / 2
    return Verdict(claim, i.value, i.low, i.high, bound, unit, holds, expected)


def verdict_table(verdicts: list[Verdict]) -> str:
    """As printed at the end of a study; an unexpected outcome is marked."""
    rows = []
    for v in verdicts:
        word = ("holds" if v.holds else "FALSE") + (
            "" if v.holds == v.expected else " !"
        )
        span = f"[{v.low:.3g}, {v.high:.3g}]"
        rows.append([v.claim, f"{v.value:.3g}", span, f"{v.bound:g}", v.unit, word])
    header = ["claim", "value", "interval", "bound", "unit", "verdict"]
    return table(header, rows, "lrrrll")
