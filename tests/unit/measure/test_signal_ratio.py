"""The ratio by which the signal rule goes: v's average over the past, and refusals."""

from typing import NamedTuple

import numpy as np
import pytest

import optsde
from optsde import measure

TIMES = np.linspace(0.05, 200, 4000)


class Level(NamedTuple):
    signal: np.ndarray
    noise: np.ndarray


class Measured:
    """A stand-in for `measure.Noise` of known signal and noise, [replicas, times]."""

    def __init__(self, signal, noise):
        self.levels = Level(np.stack([signal] * 3), np.stack([noise] * 3))

    def total(self, weighted):
        assert weighted
        return self.levels


def plan(optimizer=None):
    optimizer = optimizer or optsde.Adam(b2=0.98)
    return optsde.Plan(optimizer=optimizer, batch_size=4, horizon=200)


def test_the_ratio_is_what_v_remembers():
    """G = t and N = 2 + cos: the debiased average with weights e^(−age/50), by hand."""
    noise = 2 + np.cos(TIMES / 10)
    ratio = measure.signal_ratio(plan(), Measured(TIMES, noise), TIMES)
    for t in (10.0, 60.0, 200.0):
        weight = np.exp(-(t - TIMES) / 50) * (t >= TIMES)
        expected = (weight @ TIMES) / (weight @ noise)
        np.testing.assert_allclose(ratio(t), expected, rtol=0.02)
    np.testing.assert_allclose(ratio(0.0), ratio(0.05))
    np.testing.assert_allclose(ratio(900.0), ratio(200.0))


def test_time_is_that_of_the_base_run():
    """Measured along a run at κ = 4, whose v remembers as many samples."""
    base, seen = plan(), Measured(TIMES, 1 + TIMES)
    big = optsde.scale(base, 4)
    one, other = (measure.signal_ratio(p, seen, TIMES)(90.0) for p in (base, big))
    np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "noise", "times", "message"),
    [
        (optsde.SGD(), 1 + TIMES, TIMES, "SGD does not, and its own rule"),
        (optsde.AdaGrad(), 1 + TIMES, TIMES, "AdaGrad does not"),
        (optsde.InvariantAdam(), 1 + TIMES, TIMES, "InvariantAdam does not"),
        (optsde.Adam(), 1 + TIMES, TIMES[:3], "for each of increasing times"),
        (optsde.Adam(), 1 + TIMES, TIMES[::-1], "for each of increasing times"),
        (optsde.Adam(), 0 * TIMES, TIMES, "some noise at every time"),
    ],
)
def test_what_gives_no_ratio_is_refused(optimizer, noise, times, message):
    with pytest.raises(ValueError, match=message):
        measure.signal_ratio(plan(optimizer), Measured(TIMES, noise), times)
