"""Statistics against scipy's own, and against their promised coverage."""

import numpy as np
import pytest
from scipy import stats

from optsde.analysis import (
    Estimate,
    Interval,
    above,
    agrees,
    difference,
    equivalence,
    estimate,
    interval,
    log_slope,
    relative,
    verdict_table,
    within,
)

A = np.array([1.2, 0.7, 1.9, 1.1, 0.4, 1.3])
B = np.array([0.8, 0.2, 0.9, 0.7])


def test_interval_is_students():
    expected = stats.t.interval(0.95, 5, A.mean(), stats.sem(A))
    assert interval(estimate(A))[1:] == pytest.approx(expected)


def test_difference_is_welchs():
    theirs = stats.ttest_ind(A, B, equal_var=False).confidence_interval(0.95)
    ours = interval(difference(estimate(A), estimate(B)))
    assert ours[1:] == pytest.approx((theirs.low, theirs.high))


@pytest.mark.parametrize("bound", [0.5, 1.2, 3.0])
def test_equivalence_is_two_one_sided_tests(bound):
    p = [
        stats.ttest_ind(A - shift, B, equal_var=False, alternative=side).pvalue
        for shift, side in ((-bound, "greater"), (bound, "less"))
    ]
    ours = equivalence(difference(estimate(A), estimate(B)), bound)
    assert ours.holds == (max(p) < 0.05)


def test_relative_has_the_error_of_a_ratio():
    """Against 100,000 simulated ratios; bound 2% on the standard error."""
    a, b = Estimate(2.0, 0.05, 50), Estimate(1.5, 0.03, 50)
    rng = np.random.default_rng(0)
    ratios = rng.normal(2, 0.05, 100_000) / rng.normal(1.5, 0.03, 100_000) - 1
    ours = relative(a, b)
    assert ours.mean == pytest.approx(1 / 3)
    assert ours.se == pytest.approx(ratios.std(), rel=0.02)


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
    exact = log_slope(x, Estimate(3 * x**-2, 1e-6 * x, 10))
    assert exact.value == pytest.approx(-2, abs=1e-4)
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


def test_a_slope_needs_its_whole_interval_inside():
    assert within("a", Interval(1.0, 0.9, 1.1), 0.75, 1.25, "slope").holds
    assert not within("a", Interval(1.0, 0.5, 1.5), 0.75, 1.25, "slope").holds


def test_one_replica_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        estimate([1.0])


def test_verdicts_need_the_whole_interval():
    narrow, wide = Estimate(0.5, 0.1, 100), Estimate(0.5, 0.4, 100)
    assert agrees("a", narrow, 1.0, "%").holds
    assert not agrees("a", wide, 1.0, "%").holds
    assert above("a", narrow, 0.0, "%").holds
    assert not above("a", wide, 0.0, "%").holds
    text = verdict_table([above("a", wide, 0.0, "%"), agrees("b", narrow, 1.0, "%")])
    assert "FALSE !" in text
    assert "holds" in text.splitlines()[-1]
