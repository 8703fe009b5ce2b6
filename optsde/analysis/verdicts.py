"""Verdicts: a claim turned into a number, with an interval and a bound.

A claim holds, is open, or fails, and which is computed. It holds where its whole
interval lies where the claim says, fails where none of it does, and is open where the
interval does not decide. To fail is a result, not an error; `expected` is False where
the claim is known, or was predicted, to fail in the setting. Claims that are read
together are a `family`, and hold there after a correction for their number.
"""

import dataclasses
import difflib
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np

from optsde.analysis.statistics import (
    Estimate,
    Interval,
    check_bound,
    equivalence,
    interval,
    p_above,
)
from optsde.analysis.tables import table
from optsde.checks import ABOVE_0, check_number, shown

ALPHA = 0.05


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The outcome of a claim; the functions of this module make it.

    holds, fails: whether the interval decides for the claim, or against it.
    expected: False where the claim is known, or was predicted, to fail.
    p: the α at which the interval would just reach the bound, .05 for the interval that
      is shown; None where the claim is no test of estimates.
    family: the name of the claims that it is read with, see `family`; "" for none.
    corrected: p after the correction for their number; None outside of a family.
    """

    claim: str
    value: float
    low: float
    high: float
    bound: float
    unit: str
    holds: bool
    expected: bool = True
    p: float | None = None
    family: str = ""
    corrected: float | None = None
    fails: bool = False

    @property
    def outcome(self) -> str:
        """The outcome in a word: holds, open or fails.

        >>> above("better", Estimate(0.1, 0.2, 30), 0.0, "points").outcome
        'open'
        """
        return "holds" if self.holds else "fails" if self.fails else "open"

    @property
    def words(self) -> str:
        """The outcome, and whether it was expected where the claim should fail."""
        if self.expected:
            return self.outcome
        fails = self.outcome == "fails"
        return f"{self.outcome}, {'as expected' if fails else 'expected to fail'}"

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
    _check_estimate(claim, x)
    e = equivalence(x, bound, ALPHA)
    p = max(p_above(x, -bound), p_above(-x, -bound))
    fails = bool(e.low >= bound or e.high <= -bound)
    ends = e.value, e.low, e.high
    return Verdict(claim, *ends, bound, unit, e.holds, expected, p, fails=fails)


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
    _check_estimate(claim, x)
    check_bound(bound, "a finite number")
    if errors is None:
        i, p = interval(x, 1 - ALPHA), _two_sided(x, bound)
    else:
        check_number("errors", errors, "a positive number", ABOVE_0)
        mean, half = float(x.mean), errors * float(x.se)
        i, p = Interval(mean, mean - half, mean + half), None
        unit = f"{unit}, ± {errors:g} s.e."
    fails = bool(i.high <= bound)
    return Verdict(claim, *i, bound, unit, i.low > bound, expected, p, fails=fails)


def below(
    claim: str, x: Estimate, bound: float, unit: str, expected: bool = True
) -> Verdict:
    """Claims x < bound, of the whole 95% interval."""
    _check_estimate(claim, x)
    check_bound(bound, "a finite number")
    i, p = interval(x, 1 - ALPHA), _two_sided(-x, -bound)
    fails = bool(i.low >= bound)
    return Verdict(claim, *i, bound, unit, i.high < bound, expected, p, fails=fails)


def _check_estimate(claim: str, x: Estimate) -> None:
    if not isinstance(x, Estimate):
        raise ValueError(
            f"{claim!r} is of a {type(x).__name__}: needs an Estimate, as "
            "estimate(values) and exact(value) return"
        )


def _two_sided(x: Estimate, bound: float) -> float:
    """Returns the α of the two-sided interval that just reaches down to the bound."""
    return min(1.0, 2 * p_above(x, bound))


def within(
    claim: str, i: Interval, low: float, high: float, unit: str, expected: bool = True
) -> Verdict:
    """Claims low < x < high, of a whole interval; the bound is half of that width.

    >>> within("order 1", Interval(1.0, 0.9, 1.1), 0.75, 1.25, "slope").holds
    True
    """
    for name, end in (("low", low), ("high", high)):
        check_number(name, end, "a finite number")
    if not low < high:
        raise ValueError(f"low={low:g}, high={high:g}: needs low below high")
    holds, fails = low < i.low and i.high < high, bool(i.high <= low or i.low >= high)
    bound = (high - low) / 2
    return Verdict(claim, *i, bound, unit, holds, expected, fails=fails)


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
    _check_some(claim, each)

    def reach(v: Verdict) -> float:
        return float(np.nan_to_num(max(-v.low, v.high), nan=np.inf))

    return _least_likely(max(each, key=reach), each)


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
    _check_some(claim, each)
    lowest = min(each, key=lambda v: float(np.nan_to_num(v.low, nan=-np.inf)))
    return _least_likely(lowest, each)


def _check_some(claim: str, verdicts: Sequence[Verdict]) -> None:
    if not verdicts:
        raise ValueError(f"{claim!r} is of no estimates: needs one or more")


def _least_likely(shown: Verdict, each: Sequence[Verdict]) -> Verdict:
    """Returns the verdict that is shown for all: the largest p; one failure fails."""
    p = max(v.p for v in each if v.p is not None)
    return dataclasses.replace(shown, p=p, fails=any(v.fails for v in each))


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

    Without any number the claim is open; one that is not a number decides nothing.

    >>> v = least_above("falls", [0.1, 0.3], 0.0, "of ‖K‖")
    >>> v.low, v.high, v.unit, v.holds
    (0.1, 0.3, 'of ‖K‖; least and most of 2', True)
    """
    check_bound(bound, "a finite number")
    values = np.asarray(values, np.float64)
    unit = f"{unit}; least and most of {values.size}"
    if not values.size:
        return Verdict(claim, np.nan, np.nan, np.nan, bound, unit, False, expected)
    i = Interval(*(float(f(values)) for f in (centre, np.min, np.max)))
    fails = bool((values <= bound).any())
    return Verdict(claim, *i, bound, unit, i.low > bound, expected, fails=fails)


def none(claim: str, events, of: str = "runs", expected: bool = True) -> Verdict:
    """Claims that nothing happened in any of some runs, and counts where it did.

    Args:
        claim: its name.
        events: for each run, whether it happened; any shape.
        of: what is counted.
        expected: False where the claim is known, or was predicted, to fail.

    >>> v = none("no_run_diverged", [False, False, True])
    >>> v.value, v.unit, v.holds
    (1, 'of 3 runs', False)
    """
    events = _events(claim, events)
    count = int(events.sum())
    ends, unit = (count, count, count), f"of {events.size} {of}"
    holds = events.size > 0 and count == 0  # of no runs it is open
    return Verdict(claim, *ends, 0, unit, holds, expected, fails=count > 0)


def share(
    claim: str, events, bound: float, of: str = "runs", expected: bool = True
) -> Verdict:
    """Claims that something happened in exactly `bound` percent of some runs.

    >>> v = share("all_spike", [True, True, True, False], 100.0)
    >>> v.value, v.unit, v.holds
    (75.0, '% of 4 runs', False)
    """
    check_number("bound", bound, "a percentage from 0 to 100", 0, 100)
    events = _events(claim, events)
    found = 100 * float(events.mean()) if events.size else np.nan
    ends, unit = (found, found, found), f"% of {events.size} {of}"
    fails = bool(events.size) and found != bound
    return Verdict(claim, *ends, bound, unit, found == bound, expected, fails=fails)


def _events(claim: str, events) -> np.ndarray:
    events = np.asarray(events)
    if events.size and not np.isin(events, (False, True)).all():
        raise ValueError(
            f"{claim!r} is of {shown(events)}: needs True or False of each"
        )
    return events.astype(bool)


# ---- lists of verdicts


def family(name: str, verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Returns claims that are read together, judged after Holm's correction (1979).

    The smallest p of n is multiplied by n, the next by n − 1, and so on, and none is
    smaller than the one before it. So the chance that any claim holds which is not true
    is at most 5%, whatever their dependence. The intervals stay those of one claim, and
    by them a claim fails; one that would hold alone and not after correction is open.

    >>> x = [Estimate(mean, 1.0, np.inf) for mean in (3.0, 2.1, 2.2)]
    >>> alone = [above("rises", each, 0.0, "%") for each in x]
    >>> together = family("rising", alone)
    >>> [v.holds for v in alone], [v.holds for v in together]
    ([True, True, True], [True, False, False])
    >>> [round(v.corrected, 3) for v in together]
    [0.008, 0.056, 0.056]
    """
    members, found = list(verdicts), []
    for verdict in members:
        if verdict.p is None or verdict.family:
            reason = f"is in {verdict.family}" if verdict.family else "has no p-value"
            raise ValueError(
                f"{verdict.claim} {reason}: a family takes, once, what agrees, above, "
                "below, all_agree and all_above return"
            )
        found.append(verdict.p)
    rising = np.argsort(found, kind="stable")
    factors = np.arange(len(members), 0, -1)
    corrected = np.empty(len(members))
    corrected[rising] = np.maximum.accumulate(factors * np.array(found)[rising])
    return [
        dataclasses.replace(v, holds=p < ALPHA, family=name, corrected=min(p, 1.0))
        for v, p in zip(members, corrected.tolist(), strict=True)
    ]


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
    """Returns the table at the end of a study, with each claim's outcome in words.

    Where there are families, a column has the p of their claims, and a line for each
    says how many claims it has, and how many hold.
    """
    verdicts = list(verdicts)
    families: dict[str, list[Verdict]] = {}
    for v in verdicts:
        if v.family:
            families.setdefault(v.family, []).append(v)
    rows = []
    for v in verdicts:
        span = f"[{v.low:.3g}, {v.high:.3g}]"
        rows.append([v.claim, f"{v.value:.3g}", span, f"{v.bound:g}", v.unit, v.words])
        if families:
            rows[-1].insert(-1, "" if v.corrected is None else f"{v.corrected:.2g}")
    header = ["claim", "value", "interval", "bound", "unit", "verdict"]
    if not families:
        return table(header, rows, "lrrrll")
    header.insert(-1, "p")
    notes = [_note(name, members) for name, members in families.items()]
    return "\n".join([table(header, rows, "lrrrlrl"), *notes])


def _note(name: str, members: Sequence[Verdict]) -> str:
    """Returns in words how many claims a family has, and how many hold."""
    alone = [v for v in members if v.p is not None and v.p < ALPHA]
    return (
        f"{name}: {len(members)} claims, with Holm's p and the interval of one; "
        f"{sum(v.holds for v in members)} hold, and {len(alone)} would alone"
    )
