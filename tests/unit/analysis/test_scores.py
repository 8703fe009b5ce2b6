"""Scores of censored predictions, on made data with known answers."""

import numpy as np
import pytest
from scipy import special, stats

from optsde.analysis import log_score, out_of_sample

GRID = np.concatenate([[0], 2.0 ** np.arange(-4, 11), [np.inf]])


def binned(values):
    """The ends of the intervals of the grid in which values lie."""
    index = np.searchsorted(GRID, values)
    return GRID[index - 1], GRID[index]


def test_log_score_is_that_of_the_normal_law():
    low, high = np.array([0.1, 0.5, 3.0]), np.array([0.5, 2.0, 9.0])
    law = stats.norm(np.log(2.0), 0.7)
    expected = -np.log(law.cdf(np.log(high)) - law.cdf(np.log(low)))
    np.testing.assert_allclose(log_score(2.0, 0.7, low, high), expected, 1e-9)
    halves = log_score(4.0, 1.0, [0.0, 4.0], [4.0, np.inf])
    np.testing.assert_allclose(halves, np.log(2))
    far = log_score(2.0, 0.7, 1e6, 2e6)  # where a cdf in float64 is 1 already
    np.testing.assert_allclose(far, -law.logsf(np.log(1e6)), 1e-3)


def test_the_score_is_proper():
    """Expected under the law itself, the score is least at that law: its entropy."""
    centre, width = 20.0, 0.8
    ends = special.ndtr((np.log(np.maximum(GRID, 1e-99)) - np.log(centre)) / width)
    weight = np.diff(ends)

    def expected(c, w):
        return weight @ log_score(c, w, GRID[:-1], GRID[1:])

    entropy = special.entr(weight).sum()
    np.testing.assert_allclose(expected(centre, width), entropy, 1e-6)
    others = [
        expected(c, w)
        for c in (10, 17, 20, 23, 40)
        for w in (0.4, 0.7, 0.8, 0.9, 1.6)
        if (c, w) != (20, 0.8)
    ]
    assert min(others) > entropy


def test_who_knows_scores_best_and_a_constant_does_not():
    """200 numbers over a factor e^6, and forecasts off by e^±.5 at random."""
    rng = np.random.default_rng(0)
    centres = np.exp(rng.uniform(-1, 5, 200))
    low, high = binned(centres * np.exp(0.5 * rng.normal(size=200)))
    knows = out_of_sample(centres, low, high)
    off = out_of_sample(8 * centres, low, high)
    corrected = out_of_sample(8 * centres, low, high, fit_factor=True)
    constant = out_of_sample(np.ones(200), low, high, fit_factor=True)
    unrelated = out_of_sample(rng.permutation(centres), low, high, fit_factor=True)
    # The best there is: the expected score of the law that made them.
    best = log_score(centres, 0.5, low, high)
    assert abs(knows.mean() - best.mean()) < 0.02
    assert abs(corrected.mean() - best.mean()) < 0.04
    for worse in (off, constant, unrelated):
        gain = worse - knows
        assert gain.mean() > 4 * gain.std() / 200**0.5
    # A factor of a forecast that tells nothing cannot make it better than a constant.
    assert unrelated.mean() > constant.mean()


def test_the_case_that_is_judged_is_not_fitted():
    """One case far from nine others pays for it, and is not what the width fits."""
    low, high = binned([10.0] * 9 + [900.0])
    scores = out_of_sample(np.ones(10), low, high, fit_factor=True)
    assert scores[-1] > 10 * scores[0]


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ValueError, match="2 cases to score: needs at least 3"):
        out_of_sample([1.0, 2.0], [1, 1], [2, 2])
    with pytest.raises(ValueError, match="needs positive numbers"):
        out_of_sample([1.0, np.inf, 2.0], [1, 1, 1], [2, 2, 2])
