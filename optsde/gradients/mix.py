"""SVAG's gradient: a signed mix of two independent draws, with more noise.

With weights ½(1 ± √(2c − 1)) the mean stays and the variance is c times that of one
draw, for any c ≥ 1. SVAG(ℓ) has c = ℓ for SGD (Li, Malladi and Arora 2021) and c = ℓ²
for adaptive methods (Malladi et al. 2022). The third cumulant grows only by (3c − 1)/2,
so the noise becomes less skewed: that is why SVAG approaches an SDE.
"""

import math

from optsde.checks import check_number
from optsde.gradients.oracle import Oracle


def weights(noise_gain: float) -> tuple[float, float]:
    """Returns the weights of the two draws, of sum 1, whose squares sum to the gain.

    >>> weights(1.0)
    (1.0, 0.0)
    >>> weights(5.0)
    (2.0, -1.0)
    """
    needs = "a number ≥ 1: two draws only add noise; for less, use a larger batch"
    check_number("noise_gain", noise_gain, needs, 1)
    root = math.sqrt(2 * noise_gain - 1)
    return 0.5 * (1 + root), 0.5 * (1 - root)


def signed_mix(oracle: Oracle, noise_gain: float) -> Oracle:
    """Returns an oracle of the same mean and `noise_gain` times the variance.

    Its two draws read two streams of randomness of their own. Oracles of examples mix
    their losses, which is one pass. At gain 1 the second weight is zero, and the oracle
    is returned as it is. Epochs without replacement are refused: `Oracle.mixed`.
    """
    first, second = weights(noise_gain)
    return oracle if noise_gain == 1 else oracle.mixed(first, second)
