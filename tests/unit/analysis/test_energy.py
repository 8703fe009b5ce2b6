"""The energy distance against closed forms, and the level of its test."""

import numpy as np
import pytest
from scipy import stats

from optsde.analysis import energy_distance, energy_test, half_width, jackknife


def mean_distance(shift):
    """E|X − Y| of normal numbers with variance 1, and means `shift` apart."""
    return stats.foldnorm(abs(shift) / 2**0.5, scale=2**0.5).mean()


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_of_normal_numbers_it_is_the_closed_form(shift):
    """2 × 1000 numbers; the bound is 4 standard errors, which are below .015."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=1000), shift + rng.normal(size=1000)
    cross = mean_distance(shift)
    expected = 1 - mean_distance(0) / cross
    # The error that it has by 20 blocks, which share no member.
    blocks = [energy_distance(x[i::20], y[i::20]) for i in range(20)]
    error = np.std(blocks, ddof=1) / 20**0.5
    assert error < 0.015
    assert abs(energy_distance(x, y) - expected) < 4 * error


def test_of_points_it_is_worked_out_by_hand():
    """Within: 1 and 3. Across: 5, 8, 4, 7, of which 5 and 7 are the pairs."""
    x, y = [[0.0], [1.0]], [[5.0], [8.0]]
    np.testing.assert_allclose(energy_distance(x, y), 1 - (1 + 3) / (2 * 6))
    np.testing.assert_allclose(energy_distance(x, y, paired=True), 1 - 4 / (8 + 4))
    planes = np.array([[0, 0], [3, 4]]), np.array([[3, 4], [0, 0]])
    np.testing.assert_allclose(energy_distance(*planes), 1 - 10 / (2 * 2.5))
    assert energy_distance([[1.0], [1.0]], [[1.0], [1.0]]) == 0
    assert energy_distance([[1.0], [1.0]], [[2.0], [2.0]]) == 1


def test_members_of_any_shape_are_vectors():
    x, y = np.random.default_rng(1).normal(size=(2, 6, 3, 4))
    flat = energy_distance(x.reshape(6, 12), y.reshape(6, 12))
    assert energy_distance(x, y) == flat
    assert energy_distance(y, x) == flat


def samples(rng, paired):
    """Eight members of one law; pairs have most of their noise in common."""
    common = 3 * rng.normal(size=(8, 2)) if paired else 0.0
    return common + rng.normal(size=(8, 2)), common + rng.normal(size=(8, 2))


@pytest.mark.parametrize("paired", [False, True])
def test_samples_of_one_law_have_no_distance_and_the_level(paired):
    """150 draws: the mean is 0 within 4 standard errors, 5% of p are up to .05.

    With probability .999 from 1 to 18 of 150 are. The jackknife's 95% interval has 0 in
    it as often as it should, or more often.
    """
    rng = np.random.default_rng(2)
    draws = [samples(rng, paired) for _ in range(150)]

    def distance(x, y):
        return energy_distance(x, y, paired)

    found = np.array([distance(x, y) for x, y in draws])
    assert abs(found.mean()) < 4 * found.std() / 150**0.5
    rejected = sum(energy_test(x, y, paired, 59) <= 0.05 for x, y in draws)
    assert 1 <= rejected <= 18
    intervals = [jackknife(distance, x, y) for x, y in draws[:60]]
    covered = sum(abs(e.mean) < half_width(e) for e in intervals)
    assert covered >= 52


def test_where_laws_differ_the_interval_has_the_distance():
    """A share of .95 ± .05 of 200 (3 standard errors) has the closed form in it."""
    rng = np.random.default_rng(3)
    expected = 1 - mean_distance(0) / mean_distance(1.5)
    covered = 0
    for _ in range(200):
        x, y = rng.normal(size=20), 1.5 + rng.normal(size=20)
        found = jackknife(energy_distance, x, y)
        covered += abs(found.mean - expected) < half_width(found)
    assert 180 <= covered <= 199


def test_pairs_that_drift_together_are_told_apart():
    """A shift of .5 under common noise of 3: by pairs it is seen, and else not."""
    rng = np.random.default_rng(4)
    common = 3 * rng.normal(size=(40, 1))
    x, y = (common + 0.3 * rng.normal(size=(40, 1)) + c for c in (0, 0.5))
    assert energy_test(x, y, paired=True) < 0.01
    assert energy_test(x, y) > 0.2


def test_what_is_no_pair_of_samples_is_refused():
    for x, y in (([[0.0]], [[1.0]]), (np.ones((3, 2)), np.ones((4, 2))), (1.0, 2.0)):
        with pytest.raises(ValueError, match="needs two of the same shape"):
            energy_distance(x, y)
    with pytest.raises(ValueError, match="numbers that are not finite"):
        energy_distance([[0.0], [np.nan]], [[0.0], [1.0]])
    with pytest.raises(ValueError, match="permutations=0"):
        energy_test([[0.0], [1.0]], [[0.0], [1.0]], permutations=0)
