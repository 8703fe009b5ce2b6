"""Means with their errors, and the three questions asked of them.

Is it so large (`interval`), are these two the same up to a bound stated beforehand
(`equivalence`), and how fast does this error fall (`log_slope`)?
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A mean over independent replicas. `dof` is that of its standard error."""

    mean: np.ndarray
    se: np.ndarray
    dof: np.ndarray | float

    def at(self, index) -> "Estimate":
        """The same for some of the numbers."""
        dof = np.broadcast_to(self.dof, np.shape(self.mean))
        return Estimate(self.mean[index], self.se[index], dof[index])


class Interval(NamedTuple):
    value: float
    low: float
    high: float


class Equivalence(NamedTuple):
    value: float
    low: float
    high: float
    bound: float
    holds: bool


def estimate(values) -> Estimate:
    """Mean and standard error over the first axis.

    >>> estimate([1.0, 2.0, 3.0]).mean.item()
    2.0
    """
    values = np.asarray(values, np.float64)
    if values.shape[0] < 2:
        raise ValueError(
            f"{values.shape[0]} replica has no standard error: run at least 2"
        )
    count = values.shape[0]
    se = values.std(axis=0, ddof=1) / np.sqrt(count)
    return Estimate(values.mean(axis=0), se, count - 1)


def estimate_finite(values) -> Estimate:
    """Of those numbers of a row that are finite; NaN where fewer than two are.

    For runs of which some are lost, or never get where they are compared.
    """
    there = np.asarray(values)[np.isfinite(values)]
    if len(there) > 1:
        return estimate(there)
    return Estimate(np.array(np.nan), np.array(np.nan), 1)


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a − b of independent estimates, with Welch's degrees of freedom."""
    va, vb = np.square(a.se), np.square(b.se)
    with np.errstate(divide="ignore", invalid="ignore"):
        dof = np.square(va + vb) / (va**2 / a.dof + vb**2 / b.dof)
    dof = np.where(va + vb > 0, dof, np.minimum(a.dof, b.dof))
    return Estimate(a.mean - b.mean, np.sqrt(va + vb), dof)


def relative(a: Estimate, b: Estimate) -> Estimate:
    """a/b − 1, to first order in the errors."""
    ratio = a.mean / b.mean
    scaled = Estimate(b.mean * ratio, b.se * np.abs(ratio), b.dof)
    change = difference(a, scaled)
    return Estimate(ratio - 1, change.se / np.abs(b.mean), change.dof)


def interval(x: Estimate, level: float = 0.95) -> Interval:
    """Student's interval for one number."""
    half = _quantile(0.5 + level / 2, x.dof) * x.se
    return Interval(float(x.mean), float(x.mean - half), float(x.mean + half))


def equivalence(x: Estimate, bound: float, alpha: float = 0.05) -> Equivalence:
    """Two one-sided tests that |x| < bound, at `alpha` each.

    It holds where the interval of level 1 − 2α lies inside (−bound, bound): a wide
    interval is no evidence that two runs agree. For several numbers, test each: that
    all lie inside is then shown at the same α.

    >>> equivalence(Estimate(0.5, 0.2, 30), bound=1.0).holds
    True
    >>> equivalence(Estimate(0.5, 0.5, 30), bound=1.0).holds
    False
    """
    value, low, high = interval(x, 1 - 2 * alpha)
    return Equivalence(value, low, high, bound, -bound < low and high < bound)


def log_slope(
    x: Sequence[float], error: Estimate, common_se=0.0, level: float = 0.95
) -> Interval:
    """p in |error| ∝ x^p, by least squares weighted with the errors' errors.

    `common_se` is the part of `error.se` that all errors share, because they are
    differences from one reference. The interval comes from the standard errors alone:
    it does not cover a curve that is not a power.
    """
    size = np.abs(error.mean)
    own = np.maximum(error.se**2 - np.square(common_se), 1e-24)
    common = np.broadcast_to(common_se, size.shape)
    covariance = (np.diag(own) + np.outer(common, common)) / np.outer(size, size)
    w = 1 / np.diag(covariance)
    lx = np.log(np.asarray(x, np.float64))
    centred = lx - np.average(lx, weights=w)
    coefficients = w * centred / np.sum(w * centred**2)
    slope = coefficients @ np.log(size)
    se = np.sqrt(coefficients @ covariance @ coefficients)
    half = _quantile(0.5 + level / 2, np.inf) * se
    return Interval(float(slope), float(slope - half), float(slope + half))


def _quantile(p: float, dof) -> float:
    from scipy import special

    dof = float(dof)
    return float(special.ndtri(p) if np.isinf(dof) else special.stdtrit(dof, p))
