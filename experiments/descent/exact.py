"""Verdicts on numbers without sampling error, and on upper bounds."""

from collections.abc import Sequence

import numpy as np

from optsde.analysis import Estimate, Interval, Verdict, interval


def exact(value) -> Estimate:
    """A number, or several, without sampling error."""
    value = np.asarray(value, float)
    return Estimate(value, np.zeros_like(value), np.inf)


def below(claim: str, x: Estimate, bound: float, unit: str, expected=True) -> Verdict:
    """x < bound, where the whole 95% interval is."""
    i = interval(x)
    holds = i.high < bound
    return Verdict(claim, i.value, i.low, i.high, bound, unit, holds, expected)


def order(sizes: Sequence[float], errors: Sequence[float]) -> Interval:
    """p in error ∝ size^p between the two smallest; the interval spans all pairs."""
    rising = np.argsort(sizes)
    log_size, log_error = np.log(np.array([sizes, errors]))[:, rising]
    slopes = np.diff(log_error) / np.diff(log_size)
    return Interval(float(slopes[0]), float(slopes.min()), float(slopes.max()))
