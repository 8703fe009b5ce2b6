"""Measure: what the noise is like along a run, and how far the rules will hold."""

from optsde.measure.noise import (
    Levels,
    Noise,
    gradient_noise,
    noise_probe,
    noise_scale,
)
from optsde.measure.prediction import Bound, Prediction, departure, predict
from optsde.measure.probe import Probe
from optsde.measure.tails import Tail, tail_index

__all__ = [
    "Bound",
    "Levels",
    "Noise",
    "Prediction",
    "Probe",
    "Tail",
    "departure",
    "gradient_noise",
    "noise_probe",
    "noise_scale",
    "predict",
    "tail_index",
]
