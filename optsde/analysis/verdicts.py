"""Verdicts: a claim turned into a number, with an interval and a bound stated before.

`holds` is computed. False is a result, not an error; `expected` tells what is known of
the setting: it is False where the claim is known to fail.
"""

import dataclasses
import difflib
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np

from optsde.analysis.statistics import Estimate, Interval, equivalence, interval
from optsde.analysis.tables import table


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The outcome of a claim; the functions of this module make it."""

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


# ---- one estimate


def agrees(
    claim: str, x: Estimate, bound: float, unit: str, expected: bool = True
) -> Verdict:
    """Claims |x| < bound, by two one-sided tests at 5%; the interval is the 90% one.

    >>> agrees("same loss", Estimate(0.5, 0.2, 30), 1.0, "%").holds
    True
    """
    e = equivalence(x, bound)
    return Verdict(claim, e.value, e.low, e.high, bound, unit, e.holds, expected)


def above(
    claim: str,
    x: Estimate,
    bound: float,
    unit: str,
    expected: bool = True,
    *,
    errors: float | None = None,
) -> Verdict:
    """Claims x > bound, of the whole 95% interval, or of x ± `errors` standard errors.

    >>> above("better", Estimate(0.5, 0.2, 30), 0.0, "points").holds
    True
    """
    if errors is None:
        i = interval(x)
    else:
        mean, half = float(x.mean), errors * float(x.se)
        i = Interval(mean, mean - half, mean + half)
        unit = f"{unit}, ± {errors:g} s.e."
    return Verdict(claim, *i, bound, unit, i.low > bound, expected)


def below(
    claim: str, x: Estimate, bound: float, unit: str, expected: bool = True
) -> Verdict:
    """Claims x < bound, of the whole 95% interval."""
    i = interval(x)
    return Verdict(claim, *i, bound, unit, i.high < bound, expected)


def within(
    claim: str, i: Interval, low: float, high: float, unit: str, expected: bool = True
) -> Verdict:
    """Claims low < x < high, of a whole interval; the bound is half of that width.

    >>> within("order 1", Interval(1.0, 0.9, 1.1), 0.75, 1.25, "slope").holds
    True
    """
    holds = low < i.low and i.high < high
    return Verdict(claim, *i, (high - low) / 2, unit, holds, expected)


def within_factor(
    claim: str,
    i: Interval,
    low: float,
    high: float,
    unit: str,
    expected: bool = True,
    *,
    factor: float = 2.0,
) -> Verdict:
    """Claims low/factor ≤ value ≤ factor · high, of a value that was predicted.

    Args:
        claim: its name.
        i: the prediction with its interval, which is shown but not tested.
        low: the least that the measured number may be; it is shown as the bound.
        high: the most that it may be; infinite where the measurement found no end.
        unit: of all these.
        expected: False where the claim is known to fail.
        factor: how far off a prediction may be.
    """
    holds = bool(low / factor <= i.value <= factor * high)
    return Verdict(claim, *i, low, unit, holds, expected)


# ---- several estimates at once


def all_agree(
    claim: str,
    estimates: Iterable[Estimate],
    bound: float,
    unit: str,
    expected: bool = True,
) -> Verdict:
    """Claims |x| < bound of every estimate; shows the one that reaches furthest.

    An estimate that is not a number reaches furthest of all.

    >>> narrow, wide = Estimate(0.5, 0.1, 30), Estimate(0.0, 2.0, 30)
    >>> all_agree("at all times", [narrow, wide], 1.0, "%").value
    0.0
    """
    each = [agrees(claim, x, bound, unit, expected) for x in estimates]

    def reach(v: Verdict) -> float:
        return float(np.nan_to_num(max(-v.low, v.high), nan=np.inf))

    return max(each, key=reach)


def all_above(
    claim: str,
    estimates: Iterable[Estimate],
    bound: float,
    unit: str,
    expected: bool = True,
) -> Verdict:
    """Claims x > bound of every estimate; shows the one whose interval reaches lowest.

    An estimate that is not a number reaches lowest of all.
    """
    each = [above(claim, x, bound, unit, expected) for x in estimates]
    return min(each, key=lambda v: float(np.nan_to_num(v.low, nan=-np.inf)))


# ---- numbers without sampling error


def least_above(
    claim: str,
    values: Sequence[float] | np.ndarray,
    bound: float,
    unit: str,
    expected: bool = True,
    *,
    centre: Callable = np.mean,
) -> Verdict:
    """Claims v > bound of every one of some numbers; the interval is least and most.

    Without any number the claim fails.

    >>> v = least_above("falls", [0.1, 0.3], 0.0, "of ‖K‖")
    >>> v.low, v.high, v.unit, v.holds
    (0.1, 0.3, 'of ‖K‖; least and most of 2', True)
    """
    values = np.asarray(values, np.float64)
    unit = f"{unit}; least and most of {values.size}"
    if not values.size:
        return Verdict(claim, np.nan, np.nan, np.nan, bound, unit, False, expected)
    i = Interval(*(float(f(values)) for f in (centre, np.min, np.max)))
    return Verdict(claim, *i, bound, unit, i.low > bound, expected)


def none(claim: str, events, of: str = "runs", expected: bool = True) -> Verdict:
    """Claims that nothing happened in any of some runs, and counts where it did.

    Args:
        claim: its name.
        events: for each run, whether it happened; any shape.
        of: what is counted.
        expected: False where the claim is known to fail.

    >>> v = none("no_run_diverged", [False, False, True])
    >>> v.value, v.unit, v.holds
    (1, 'of 3 runs', False)
    """
    events = np.asarray(events, bool)
    count = int(events.sum())
    unit = f"of {events.size} {of}"
    return Verdict(claim, count, count, count, 0, unit, count == 0, expected)


def share(
    claim: str, events, bound: float, of: str = "runs", expected: bool = True
) -> Verdict:
    """Claims that something happened in exactly `bound` percent of some runs.

    >>> v = share("all_spike", [True, True, True, False], 100.0)
    >>> v.value, v.unit, v.holds
    (75.0, '% of 4 runs', False)
    """
    events = np.asarray(events, bool)
    found = 100 * float(events.mean())
    unit = f"% of {events.size} {of}"
    return Verdict(claim, found, found, found, bound, unit, found == bound, expected)


# ---- lists of verdicts


def mark_known_false(
    verdicts: Iterable[Verdict], names: Collection[str], complete: bool = True
) -> list[Verdict]:
    """Returns the verdicts, those of these names as not expected to hold.

    Args:
        verdicts: of a study.
        names: claims that are known to be false in its setting.
        complete: whether the verdicts are all that the setting can have, so that a
            name which none of them has is a mistake, and is refused. A study whose
            claims depend on settings that were changed has not all of them.

    >>> x = Estimate(-1.0, 0.1, 9)
    >>> (v,) = mark_known_false([above("rises", x, 0.0, "%")], ["rises"])
    >>> v.holds, v.expected
    (False, False)
    """
    verdicts = list(verdicts)
    claims = [verdict.claim for verdict in verdicts]
    for name in names if complete else ():
        if name not in claims:
            near = difflib.get_close_matches(name, claims) or claims
            raise ValueError(
                f"known_false has {name!r}, which is no claim; use one of: "
                f"{', '.join(near)}"
            )
    return [
        dataclasses.replace(v, expected=v.expected and v.claim not in names)
        for v in verdicts
    ]


def verdict_table(verdicts: Iterable[Verdict]) -> str:
    """Returns the table at the end of a study; an unexpected outcome is marked."""
    rows = []
    for v in verdicts:
        word = ("holds" if v.holds else "FALSE") + (
            "" if v.holds == v.expected else " !"
        )
        span = f"[{v.low:.3g}, {v.high:.3g}]"
        rows.append([v.claim, f"{v.value:.3g}", span, f"{v.bound:g}", v.unit, word])
    header = ["claim", "value", "interval", "bound", "unit", "verdict"]
    return table(header, rows, "lrrrll")
