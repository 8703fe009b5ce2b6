"""Estimates with standard errors: their arithmetic, intervals and tests.

An estimate is a mean over independent replicas, such as the seeds of a run. Arrays have
the replicas on their first axis.

Four relative differences, all in percent of the reference:

| | the two are | what is averaged |
|---|---|---|
| `percent` | independent estimates | each on its own, then their ratio |
| `percent_paired` | arrays, paired by seed | each on its own, then their ratio |
| `percent_of_mean` | arrays, paired by seed | differences, over the reference's mean |
| `percent_each` | arrays, paired by seed | the ratio of each seed |
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from optsde.checks import ABOVE_0, BELOW_1, check_number, shown


class Estimate(NamedTuple):
    """A mean with its standard error, or an array of them.

    `dof` are the degrees of freedom of the standard error. Estimates that are
    independent can be subtracted, and all can be scaled:

    >>> a, b = Estimate(3.0, 0.3, 9), Estimate(1.0, 0.4, 9)
    >>> mean, se, dof = 100 * (a - b)
    >>> float(mean), float(se), round(float(dof), 1)
    (200.0, 50.0, 16.7)
    """

    mean: np.ndarray
    se: np.ndarray
    dof: np.ndarray | float

    __array_ufunc__ = None  # so that array * estimate is the estimate's to answer

    def at(self, index) -> "Estimate":
        """Returns the estimates at an index, as of an array."""
        dof = np.broadcast_to(self.dof, np.shape(self.mean))
        return Estimate(self.mean[index], self.se[index], dof[index])

    def each(self) -> list["Estimate"]:
        """Returns the estimates along the first axis, one by one."""
        return [self.at(i) for i in range(len(self.mean))]

    def __neg__(self) -> "Estimate":
        return Estimate(0.0 - self.mean, self.se, self.dof)  # 0 and not −0

    def __sub__(self, other: "Estimate") -> "Estimate":
        """Returns the difference of independent estimates.

        Degrees of freedom are Welch's.
        """
        mine, theirs = np.square(self.se), np.square(other.se)
        total = mine + theirs
        with np.errstate(divide="ignore", invalid="ignore"):
            dof = np.square(total) / (mine**2 / self.dof + theirs**2 / other.dof)
        dof = np.where(total > 0, dof, np.minimum(self.dof, other.dof))
        return Estimate(self.mean - other.mean, np.sqrt(total), dof)

    def __mul__(self, scale: Any) -> "Estimate":
        return Estimate(scale * self.mean, np.abs(scale) * self.se, self.dof)

    __rmul__ = __mul__

    def __truediv__(self, scale: Any) -> "Estimate":
        return Estimate(self.mean / scale, self.se / np.abs(scale), self.dof)


class Interval(NamedTuple):
    """A value, and the ends of its interval."""

    value: float
    low: float
    high: float


class Equivalence(NamedTuple):
    """A value, its interval, and whether that lies within ± bound."""

    value: float
    low: float
    high: float
    bound: float
    holds: bool


# ---- from replicas to an estimate


def estimate(values, axis: int = 0) -> Estimate:
    """Returns the mean and its standard error over an axis of at least two replicas.

    >>> estimate([1.0, 2.0, 3.0]).mean.item()
    2.0
    """
    values = _replicas(values)
    count = values.shape[axis]
    if count < 2:
        raise ValueError(f"{count} replica has no standard error: run at least 2")
    se = values.std(axis=axis, ddof=1) / np.sqrt(count)
    return Estimate(values.mean(axis=axis), se, count - 1)


def estimate_finite(values, axis: int = 0) -> Estimate:
    """Returns the estimate from those replicas whose value is finite.

    It is NaN where fewer than two are. For runs of which some diverge, or never get
    where they are compared.

    >>> estimate_finite([1.0, float("nan"), 3.0]).mean.item()
    2.0
    """
    values = np.moveaxis(_replicas(values), axis, 0)
    columns = values.reshape(len(values), -1).T
    found = np.array([_of_finite(column) for column in columns])
    mean, se, dof = (x.reshape(values.shape[1:])[()] for x in found.T)
    return Estimate(mean, se, dof)


def _replicas(values) -> np.ndarray:
    """Returns numbers of replicas, of which some may be NaN or infinite."""
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        numbers = np.array(np.nan)
    if not numbers.ndim:
        raise ValueError(f"values={shown(values)}: needs numbers of several replicas")
    return numbers


def _pairs(values, reference) -> tuple[np.ndarray, np.ndarray]:
    """Returns numbers of the same replicas."""
    one, other = _replicas(values), _replicas(reference)
    if len(one) != len(other):
        raise ValueError(
            f"values of {len(one)} replicas and a reference of {len(other)}: needs "
            "those of the same replicas"
        )
    return one, other


def _of_finite(values: np.ndarray) -> Estimate:
    values = values[np.isfinite(values)]
    if len(values) > 1:
        return estimate(values)
    return Estimate(np.array(np.nan), np.array(np.nan), 1)


def exact(value) -> Estimate:
    """Returns a number, or an array, as an estimate without sampling error."""
    value = np.asarray(value, np.float64)
    return Estimate(value, np.zeros_like(value), np.inf)


def estimate_or_exact(values) -> Estimate:
    """Returns the estimate over replicas; a single replica is taken as exact."""
    return estimate(values) if len(values) > 1 else exact(values[0])


def stack(estimates: Iterable[Estimate]) -> Estimate:
    """Returns estimates as one, along a new first axis.

    >>> stack([Estimate(1.0, 0.1, 4), Estimate(2.0, 0.1, 4)]).mean.tolist()
    [1.0, 2.0]
    """
    means, errors, dofs = zip(*estimates, strict=True)
    return Estimate(np.stack(means), np.stack(errors), np.stack(dofs))


# ---- differences


def relative(a: Estimate, b: Estimate) -> Estimate:
    """Returns a/b − 1 of independent estimates, to first order in the errors.

    >>> x = relative(Estimate(2.2, 0.0, 9), Estimate(2.0, 0.1, 9))
    >>> f"{x.mean:.2f} ± {x.se:.3f}"
    '0.10 ± 0.055'
    """
    ratio = a.mean / b.mean
    scaled = Estimate(b.mean * ratio, b.se * np.abs(ratio), b.dof)
    change = a - scaled
    return Estimate(ratio - 1, change.se / np.abs(b.mean), change.dof)


def percent(a: Estimate, b: Estimate) -> Estimate:
    """Returns 100 (a/b − 1) of independent estimates, as `relative` does."""
    return 100 * relative(a, b)


def paired(values, reference, scale: float = 1.0) -> Estimate:
    """Returns the mean of scale · (values − reference), replica by replica."""
    values, reference = _pairs(values, reference)
    return estimate(scale * (values - reference))


def percent_paired(values, reference) -> Estimate:
    """Returns 100 (mean of values/mean of reference − 1), paired by replica.

    With r = v̄/ū, the error is that of the mean of (v_i − r u_i)/ū, which is first order
    in both means' errors and leaves out what v_i and u_i have in common.

    >>> f"{percent_paired([1.1, 2.2], [1.0, 2.0]).se:.3f}"
    '0.000'
    """
    values, reference = _pairs(values, reference)
    middle = reference.mean(axis=0)
    ratio = values.mean(axis=0) / middle
    return estimate(100 * (ratio - 1 + (values - ratio * reference) / middle))


def percent_of_mean(values, reference) -> Estimate:
    """Returns 100 · mean of (v_i − u_i)/ū, paired by replica.

    Unlike `percent_paired` it takes the reference's mean ū as exact: a unit in which
    the difference is told.
    """
    values, reference = _pairs(values, reference)
    return estimate(100 * (values - reference) / reference.mean(axis=0))


def percent_each(values, reference) -> Estimate:
    """Returns 100 · mean of (v_i/u_i − 1): every replica is compared with its own."""
    values, reference = _pairs(values, reference)
    return estimate(100 * (values / reference - 1))


def combination(weights: Sequence[float], estimates: Sequence[Estimate]) -> Estimate:
    """Returns Σ w_k x_k of independent estimates, with the fewest degrees of freedom.

    >>> a, b = Estimate(2.0, 0.3, 9), Estimate(1.0, 0.8, 4)
    >>> mean, se, dof = combination((1.0, 0.5), (a, b))
    >>> float(mean), float(se), float(dof)
    (2.5, 0.5, 4.0)
    """
    if len(weights) != len(estimates):
        raise ValueError(
            f"{len(weights)} weights for {len(estimates)} estimates: give one for each"
        )
    pairs = list(zip(weights, estimates, strict=True))
    mean = np.asarray(sum(w * x.mean for w, x in pairs))
    se = np.sqrt(sum((w * x.se) ** 2 for w, x in pairs))
    dof = np.minimum.reduce([x.dof * np.ones_like(x.mean) for _, x in pairs])
    return Estimate(mean, se, dof)


def jackknife(statistic: Callable[..., Any], *arrays) -> Estimate:
    """Returns a statistic of all replicas, its error from leaving out one at a time.

    se² = (n − 1)/n Σ_i (s_{−i} − mean s_{−i})²

    For a smooth function of means over replicas, such as a ratio or a distance of mean
    curves, of which no single replica has a value. Where it is infinite, its error is
    NaN.

    Args:
        statistic: takes the arrays, with or without a replica, and returns a number or
            an array.
        *arrays: replicas on the first axis, the same in all of them.

    >>> x = jackknife(np.mean, np.array([1.0, 2.0, 3.0]))
    >>> bool(np.isclose(x.se, estimate([1.0, 2.0, 3.0]).se))
    True
    """
    arrays = tuple(np.asarray(x) for x in arrays)
    count = len(arrays[0])
    if count < 2 or any(len(x) != count for x in arrays):
        raise ValueError(
            f"jackknife of {[len(x) for x in arrays]} replicas: needs the same number "
            "in each array, at least 2"
        )
    without = np.array(
        [statistic(*(np.delete(x, i, axis=0) for x in arrays)) for i in range(count)]
    )
    with np.errstate(invalid="ignore"):
        spread = np.sum((without - without.mean(axis=0)) ** 2, axis=0)
    se = np.sqrt((count - 1) / count * spread)
    return Estimate(np.asarray(statistic(*arrays)), np.asarray(se), count - 1)


# ---- intervals and tests


def check_bound(bound: float, needs: str, low: float = -np.inf) -> None:
    """Refuses bounds that no claim can have: of an infinite one, all would hold."""
    check_number("bound", bound, needs, low)


def _check_level(level: float) -> None:
    check_number("level", level, "a number in (0, 1)", ABOVE_0, BELOW_1)


def half_width(x: Estimate, level: float = 0.95):
    """Returns half the width of Student's interval, of one number or of an array."""
    _check_level(level)
    return _quantile(0.5 + level / 2, x.dof) * x.se


def interval(x: Estimate, level: float = 0.95) -> Interval:
    """Returns Student's interval of one number.

    >>> low, high = interval(Estimate(0.0, 1.0, np.inf))[1:]
    >>> round(low, 2), round(high, 2)
    (-1.96, 1.96)
    """
    half = half_width(x, level)
    return Interval(float(x.mean), float(x.mean - half), float(x.mean + half))


def p_above(x: Estimate, bound: float) -> float:
    """Returns Student's one-sided p-value of the claim x > bound.

    It is 1 where x is not a number.

    >>> round(p_above(Estimate(1.96, 1.0, np.inf), 0.0), 3)
    0.025
    """
    distance, se = float(x.mean) - bound, float(x.se)
    if np.isnan(distance) or np.isnan(se):
        return 1.0
    if not se > 0:
        return 0.0 if distance > 0 else 1.0
    return float(_below(-distance / se, x.dof))


def equivalence(x: Estimate, bound: float, alpha: float = 0.05) -> Equivalence:
    """Tests |x| < bound by two one-sided tests, at `alpha` each.

    It holds where the interval of level 1 − 2α lies inside (−bound, bound): a wide
    interval is no evidence that two runs agree. For several numbers, test each: that
    all lie inside is then shown at the same α.

    >>> equivalence(Estimate(0.5, 0.2, 30), bound=1.0).holds
    True
    >>> equivalence(Estimate(0.5, 0.5, 30), bound=1.0).holds
    False
    """
    check_bound(bound, "a positive number", ABOVE_0)
    check_number("alpha", alpha, "a number in (0, 0.5)", ABOVE_0, BELOW_1 / 2)
    value, low, high = interval(x, 1 - 2 * alpha)
    return Equivalence(value, low, high, bound, -bound < low and high < bound)


def log_slope(
    x: Sequence[float], error: Estimate, common_se=0.0, level: float = 0.95
) -> Interval:
    """Returns p in |error| ∝ x^p, by least squares weighted with the errors' errors.

    The interval comes from the standard errors alone: it does not cover a curve that is
    not a power.

    Args:
        x: sizes, such as step sizes.
        error: the error at each size, with its standard error.
        common_se: the part of `error.se` that all errors share, because they are
            differences from one reference.
        level: of the interval.
    """
    _check_sizes("x", x, error.mean)
    _check_level(level)
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


def _check_sizes(name: str, sizes, errors) -> None:
    check_number(name, sizes, "positive numbers", ABOVE_0)
    if np.shape(sizes) != np.shape(errors):
        raise ValueError(
            f"{name} has {np.size(sizes)} numbers for {np.size(errors)} errors: give "
            "one for each"
        )
    if np.size(np.unique(sizes)) < max(np.size(sizes), 2):
        raise ValueError(f"{name}={shown(sizes)}: needs at least 2, which differ")


def order(
    sizes: Sequence[float] | np.ndarray, errors: Sequence[float] | np.ndarray
) -> Interval:
    """Returns p in error ∝ size^p of errors that are exact.

    The value is the slope between the two smallest sizes, the interval goes from the
    least to the largest slope of neighbours.

    >>> order([0.1, 0.2, 0.4], [0.01, 0.04, 0.16]).value
    2.0
    """
    _check_sizes("sizes", sizes, errors)
    check_number("errors", errors, "positive numbers", ABOVE_0)
    rising = np.argsort(sizes)
    log_size, log_error = np.log(np.array([sizes, errors]))[:, rising]
    slopes = np.diff(log_error) / np.diff(log_size)
    return Interval(float(slopes[0]), float(slopes.min()), float(slopes.max()))


def _below(t: float, dof):
    """Returns Student's probability below t, the normal one where `dof` is infinite."""
    from scipy import special  # its import takes a tenth of a second

    return special.ndtr(t) if np.isinf(dof) else special.stdtr(dof, t)


def _quantile(p: float, dof):
    """Returns Student's quantile, the normal one where `dof` is infinite."""
    from scipy import special

    dof = np.asarray(dof, np.float64)
    finite = np.where(np.isinf(dof), 1.0, dof)
    return np.where(np.isinf(dof), special.ndtri(p), special.stdtrit(finite, p))[()]


def valley(x: ArrayLike, y: ArrayLike) -> float:
    """Returns where a parabola through the least y and those beside is lowest.

    NaN where the least point is an end.

    >>> round(valley([0, 1, 2, 3], [4.5, 0.5, 0.5, 4.5]), 6)
    1.5
    >>> valley([0, 1, 2], [1, 2, 3])
    nan
    """
    x, y = np.asarray(x), np.asarray(y)
    least = int(np.argmin(y))
    if least in (0, len(y) - 1):
        return np.nan
    near = slice(least - 1, least + 2)
    curve, tilt, _ = np.polyfit(x[near] - x[least], y[near], 2)
    return float(x[least] - tilt / (2 * curve))
