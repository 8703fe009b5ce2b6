"""Statistics against scipy's own, brute force, and their promised coverage."""

import numpy as np
import pytest
from scipy import stats

from optsde.analysis import (
    Estimate,
    combination,
    equivalence,
    estimate,
    estimate_finite,
    estimate_or_exact,
    exact,
    half_width,
    interval,
    jackknife,
    log_slope,
    order,
    paired,
    percent,
    percent_each,
    percent_of_mean,
    percent_paired,
    relative,
    stack,
)

A = np.array([1.2, 0.7, 1.9, 1.1, 0.4, 1.3])
B = np.array([0.8, 0.2, 0.9, 0.7])


def same(ours, theirs, **tolerance):
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y, **({"rtol": 1e-13} | tolerance))


# ---- from replicas to an estimate


def test_an_estimate_is_over_any_axis():
    values = np.random.default_rng(0).normal(size=(3, 8, 5))
    same(estimate(values, axis=1), estimate(values.swapaxes(0, 1)))
    mean, se, dof = estimate(values, axis=1)
    np.testing.assert_allclose(mean, values.mean(1))
    np.testing.assert_allclose(se, stats.sem(values, axis=1))
    assert dof == 7


def test_one_replica_is_refused_or_exact():
    with pytest.raises(ValueError, match="at least 2"):
        estimate([1.0])
    alone = estimate_or_exact([[1.0, 2.0]])
    assert alone.mean.tolist() == [1.0, 2.0]
    assert alone.se.tolist() == [0.0, 0.0]
    assert estimate_or_exact(A) == estimate(A)
    assert interval(exact(3.0)) == (3.0, 3.0, 3.0)


def test_only_finite_replicas_count():
    values = np.random.default_rng(1).normal(size=(6, 2, 3))
    values[[0, 3], 0, 0] = np.nan, np.inf
    values[1:, 1, 1] = np.nan
    found = estimate_finite(values)
    expected = estimate(values[[1, 2, 4, 5], 0, 0])
    same([x[0, 0] for x in found], expected)
    assert np.isnan(found.mean[1, 1])
    assert np.isnan(found.se[1, 1])
    same([x[0, 1] for x in found], estimate(values[:, 0, 1]))
    same(estimate_finite(A), estimate(A))
    same(estimate_finite(values, axis=1).at((0, 1)), estimate(values[0, :, 1]))
    assert np.isnan(interval(estimate_finite([np.nan] * 3)).low)


def test_estimates_come_apart_and_together():
    values = np.random.default_rng(2).normal(size=(4, 3))
    x = estimate(values)
    same(stack(x.each()), [x.mean, x.se, np.full(3, 3)])
    assert interval(x.at(1)) == interval(estimate(values[:, 1]))


# ---- arithmetic


def test_a_difference_is_welchs():
    theirs = stats.ttest_ind(A, B, equal_var=False).confidence_interval(0.95)
    ours = interval(estimate(A) - estimate(B))
    assert ours[1:] == pytest.approx((theirs.low, theirs.high))
    same(estimate(A) - exact(0.3), estimate(A - 0.3))
    same(exact(2.0) - exact(1.0), exact(1.0))


@pytest.mark.parametrize("scale", [-3.0, np.float64(-3.0), np.array([2.0, -1.0])])
def test_scaling(scale):
    values = np.random.default_rng(3).normal(size=(5, 2))
    same(scale * estimate(values), estimate(scale * values))
    same(estimate(values) * scale, estimate(scale * values))
    same(estimate(values) / scale, estimate(values / scale))
    same(-estimate(values), estimate(-values))


def test_a_relative_difference_has_the_error_of_a_ratio():
    """Against 100,000 simulated ratios; bound 2% on the standard error."""
    a, b = Estimate(2.0, 0.05, 50), Estimate(1.5, 0.03, 50)
    rng = np.random.default_rng(0)
    ratios = rng.normal(2, 0.05, 100_000) / rng.normal(1.5, 0.03, 100_000) - 1
    ours = relative(a, b)
    assert ours.mean == pytest.approx(1 / 3)
    assert ours.se == pytest.approx(ratios.std(), rel=0.02)
    same(percent(a, b), 100 * ours)


def test_differences_paired_by_seed():
    """Against 20,000 bootstrap samples of 40 pairs; bound 3% on the standard error."""
    rng = np.random.default_rng(4)
    reference = rng.normal(2.0, 0.3, 40)
    values = 1.1 * reference + rng.normal(0.0, 0.05, 40)
    picked = rng.integers(40, size=(20_000, 40))
    unbiased = np.sqrt(40 / 39)  # a bootstrap has the variance of n, and not n − 1
    v, u = values[picked], reference[picked]
    for ours, samples in (
        (percent_paired, 100 * (v.mean(1) / u.mean(1) - 1)),
        (percent_of_mean, 100 * (v - u).mean(1) / reference.mean()),
        (percent_each, 100 * (v / u - 1).mean(1)),
        (paired, (v - u).mean(1)),
    ):
        x = ours(values, reference)
        assert x.se == pytest.approx(samples.std() * unbiased, rel=0.03)
        assert x.mean == pytest.approx(samples.mean(), abs=5 * x.se / np.sqrt(20_000))
        assert x.dof == 39
    assert percent_paired(1.1 * reference, reference).se < 1e-12
    same(paired(values, reference, 100), estimate(100 * (values - reference)))


def test_a_ratio_of_paired_means_has_its_own_error():
    """Where both are in one proportion there is no error, however both scatter."""
    reference = np.array([1.0, 2.0, 3.0, 6.0])
    found = percent_paired(1.5 * reference, reference)
    np.testing.assert_allclose(found.mean, 50)
    np.testing.assert_allclose(found.se, 0, atol=1e-12)
    other = percent_paired([2.0, 2.0, 4.0, 7.0], reference)  # off by 3/4, −1/2, …
    np.testing.assert_allclose(other.mean, 25)
    residual = np.array([0.75, -0.5, 0.25, -0.5])
    np.testing.assert_allclose(other.se, 100 * residual.std(ddof=1) / 2 / 3)


def test_a_combination_has_the_error_of_a_sum():
    x = [estimate(A), estimate(B), exact(2.0)]
    ours = combination((2.0, -1.0, 0.5), x)
    mean, se, _ = 2 * estimate(A) - estimate(B)
    same(ours[:2], (mean + 1, se))
    assert ours.dof == 3


def test_the_jackknife_of_a_mean_and_of_a_ratio():
    """A mean's is its standard error; a ratio's that to first order, within 5%."""
    same(jackknife(lambda x: x.mean(0), A), estimate(A))
    rng = np.random.default_rng(5)
    u = rng.normal(2.0, 0.2, 60)
    v = u + rng.normal(0.0, 0.2, 60)
    ours = jackknife(lambda v, u: 100 * (v.mean() / u.mean() - 1), v, u)
    assert ours.se == pytest.approx(percent_paired(v, u).se, rel=0.05)
    with pytest.raises(ValueError, match=r"jackknife of \[6, 4\] replicas: needs"):
        jackknife(np.mean, A, B)


# ---- intervals and tests


def test_an_interval_is_students():
    expected = stats.t.interval(0.95, 5, A.mean(), stats.sem(A))
    assert interval(estimate(A))[1:] == pytest.approx(expected)
    x = stack([estimate(A), estimate(B), Estimate(0.0, 1.0, np.inf)])
    widths = [stats.t.ppf(0.9, 5), stats.t.ppf(0.9, 3), stats.norm.ppf(0.9)] * x.se
    np.testing.assert_allclose(half_width(x, 0.8), widths)


@pytest.mark.parametrize("bound", [0.5, 1.2, 3.0])
def test_equivalence_is_two_one_sided_tests(bound):
    p = [
        stats.ttest_ind(A - shift, B, equal_var=False, alternative=side).pvalue
        for shift, side in ((-bound, "greater"), (bound, "less"))
    ]
    ours = equivalence(estimate(A) - estimate(B), bound)
    assert ours.holds == (max(p) < 0.05)


def test_coverage_of_the_interval():
    """2,000 samples of 8: 95% ± 4·0.5% of the intervals cover the mean."""
    rng = np.random.default_rng(1)
    samples = rng.normal(3.0, 2.0, (2_000, 8))
    covered = [
        low < 3.0 < high for _, low, high in map(interval, map(estimate, samples))
    ]
    assert abs(np.mean(covered) - 0.95) < 0.02


def test_slope_of_a_power_and_its_coverage():
    x = np.array([1.0, 2.0, 4.0, 8.0])
    known = log_slope(x, Estimate(3 * x**-2, 1e-6 * x, 10))
    assert known.value == pytest.approx(-2, abs=1e-4)
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(1_000):
        truth = x**1.0
        se = 0.03 * np.ones(4)
        slope = log_slope(x, Estimate(truth + se * rng.normal(size=4), se, np.inf))
        covered.append(slope.low < 1 < slope.high)
    assert abs(np.mean(covered) - 0.95) < 0.03


def test_slope_of_errors_from_one_reference():
    """Errors that share a reference's error: 1,000 slopes, 95% ± 3% covered."""
    x, rng, covered = np.array([1.0, 2.0, 4.0]), np.random.default_rng(3), []
    own, common = 0.03 * np.ones(3), 0.08
    for _ in range(1_000):
        found = x + own * rng.normal(size=3) + common * rng.normal()
        error = Estimate(found, np.hypot(own, common), np.inf)
        slope = log_slope(x, error, common)
        covered.append(slope.low < 1 < slope.high)
    assert abs(np.mean(covered) - 0.95) < 0.03


def test_the_order_of_exact_errors():
    sizes = [0.4, 0.1, 0.2]
    found = order(sizes, [2 * s**3 for s in sizes])
    assert found == pytest.approx((3.0, 3.0, 3.0))
    value, low, high = order(sizes, [0.4**3, 0.1, 0.4])
    assert (value, low) == pytest.approx((2.0, np.log2(0.4**2)))
    assert value == high
