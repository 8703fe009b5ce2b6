"""Scores of predictions of a number of which only an interval is seen.

A forecast is a normal law of log y around log(centre). Seen is only between which two
neighbours of a grid y lies, the grid being fixed beforehand. The score of a forecast is
−log of the probability that it gave to that interval: the logarithmic score of Good
(1952). It is proper, so that no forecaster gains by saying other than what he thinks
(Gneiting and Raftery 2007). Smaller is better; 0 is certainty that came true.

A prediction without a law of its own is given one: the width, and a factor where it may
be wrong by one, are those that score best on all other cases, never on the one judged.
"""

import numpy as np

# In logs. Half a factor 2 is the least: a grid of powers of 2 tells no less apart.
WIDTHS = np.geomspace(np.log(2) / 2, 4, 40)
FACTORS = 200  # tried between the extremes that any one case asks for


def log_score(centre, width, low, high) -> np.ndarray:
    """Returns −log P(low < y ≤ high) for log y normal around log(centre).

    Args:
      centre: positive numbers.
      width: standard deviations of log y.
      low: lower ends, from 0.
      high: upper ends, to infinity.

    >>> print(round(float(log_score(8.0, 1.0, 8.0, np.inf)), 4))  # log 2
    0.6931
    """
    from scipy import special  # its import takes a tenth of a second

    with np.errstate(divide="ignore"):
        below, above = ((np.log(x) - np.log(centre)) / width for x in (low, high))
    # Both ends on the left of the centre, where the tail has its digits.
    right = below > 0
    below, above = np.where(right, -above, below), np.where(right, -below, above)
    less, more = special.log_ndtr(below), special.log_ndtr(above)
    return -(more + np.log1p(-np.exp(less - more)))


def out_of_sample(predicted, low, high, fit_factor: bool = False) -> np.ndarray:
    """Returns the score of each case, by a law that is fitted on all the others.

    Args:
      predicted: one positive number for each case; ones make the constant forecast,
        where the factor is fitted.
      low: of each case, the lower end of the interval that was seen.
      high: of each case, the upper end.
      fit_factor: whether the prediction may be off by a factor, the same in all
        cases, or must be right as it stands.
    """
    predicted, low, high = (np.asarray(x, np.float64) for x in (predicted, low, high))
    if len(predicted) < 3:
        raise ValueError(f"{len(predicted)} cases to score: needs at least 3")
    if not (np.isfinite(predicted) & (predicted > 0)).all():
        raise ValueError(
            f"predicted has {predicted[~(np.isfinite(predicted) & (predicted > 0))]}: "
            "needs positive numbers; leave out cases without one"
        )
    factors = np.ones(1)
    if fit_factor:
        ends = np.concatenate([low / predicted, high / predicted])
        ends = ends[np.isfinite(ends) & (ends > 0)]
        factors = np.geomspace(ends.min() / 2, ends.max() * 2, FACTORS)
    centres = factors[:, None, None] * predicted
    scores = log_score(centres, WIDTHS[:, None], low, high)  # [factor, width, case]
    others = scores.sum(-1, keepdims=True) - scores
    best = others.reshape(-1, len(predicted)).argmin(0)
    return scores.reshape(-1, len(predicted))[best, np.arange(len(predicted))]
