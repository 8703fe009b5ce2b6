"""Numbers as text, in each of the forms that tables have."""

import numpy as np
import pytest

from optsde.analysis import (
    Estimate,
    Interval,
    estimate,
    exact,
    number,
    plus_minus,
    with_interval,
)

RANDOM = np.random.default_rng(0)
SAMPLES = [
    10.0**power * (1 + 10.0**spread * RANDOM.normal(size=4))
    for power in range(-5, 5)
    for spread in (-5, -3, -1, 0)
]


@pytest.mark.parametrize("places", [0, 2, 4])
def test_fixed_places(places):
    for values in SAMPLES:
        mean, se, _ = estimate(values)
        expected = f"{mean:.{places}f} ± {se:.{places}f}"
        assert plus_minus(estimate(values), places) == expected
        expected = f"{mean:+.{places}f} ± {se:.{places}f}"
        assert plus_minus(estimate(values), places, sign="+") == expected


def test_significant_digits():
    for values in SAMPLES:
        mean, se, _ = estimate(values)
        assert plus_minus(estimate(values), significant=3) == f"{mean:.3g} ± {se:.1g}"


def test_decimals_of_the_error():
    for values in SAMPLES:
        mean, se, _ = estimate(values)
        digits = max(0, -int(np.floor(np.log10(se))))
        assert plus_minus(estimate(values)) == f"{mean:.{digits}f} ± {se:.{digits}f}"


def test_decimals_beyond_those_of_the_error():
    for values in SAMPLES:
        mean, se, _ = estimate(values)
        digits = min(6, max(0, 2 - int(np.floor(np.log10(se)))))
        expected = f"{mean:.{digits}f} ± {se:.1g}"
        assert plus_minus(estimate(values), beyond=2) == expected


def test_estimates_without_a_regular_error():
    assert plus_minus(Estimate(0.5, 0.0, 3)) == "0.5 ± 0"
    assert plus_minus(Estimate(0.5, np.nan, 1)) == "0.5 ± nan"
    assert plus_minus(Estimate(0.5, 0.0, 3), beyond=2) == "0.500 ± 0"
    assert plus_minus(exact(0.25)) == "0.25"
    assert plus_minus(exact(0.25), 1) == "0.2"
    assert plus_minus(exact(0.123456), significant=4) == "0.1235"


def test_plain_numbers_and_intervals():
    assert number(np.float32(1.5)) == "1.5"
    assert number(float("inf")) == "inf"
    assert number(None, missing="–") == number(np.inf, missing="–") == "–"
    span = Interval(1.26, -0.5, 3.0)
    assert with_interval(span, 1, sign="+") == "+1.3 [-0.5, +3.0]"
    assert with_interval(span) == "1.26 [-0.5, 3]"
