"""Measure: what the noise is like along a run, and how far the rules will hold."""

from optsde.measure import ntk
from optsde.measure.curvature import (
    batch_sharpness_probe,
    gauss_newton,
    hessian,
    preconditioned,
    sharpness_probe,
    stability_threshold,
)
from optsde.measure.difference import Difference, loss_difference
from optsde.measure.feature import agop, alignment
from optsde.measure.intrinsic import (
    Intrinsic,
    Rates,
    intrinsic_groups,
    intrinsic_rates,
    invariance_probe,
    sphere_noise_probe,
)
from optsde.measure.intrinsic_report import IntrinsicReport, intrinsic_report
from optsde.measure.invariance import (
    Invariance,
    Kind,
    invariance,
    joint_invariance,
)
from optsde.measure.noise import (
    Levels,
    Noise,
    gradient_noise,
    noise_probe,
    noise_scale,
)
from optsde.measure.ntk import ntk_probe
from optsde.measure.prediction import Bound, Prediction, departure, holds_up_to, predict
from optsde.measure.probe import Probe, probe
from optsde.measure.signal import interpolated, signal_boost
from optsde.measure.spectrum import (
    Density,
    Eigenpairs,
    random_vectors,
    spectral_density,
    top_eigenvalues,
    trace,
)
from optsde.measure.tails import Tail, tail_index
from optsde.measure.two_batches import two_batches

__all__ = [
    "Bound",
    "Density",
    "Difference",
    "Eigenpairs",
    "Intrinsic",
    "IntrinsicReport",
    "Invariance",
    "Kind",
    "Levels",
    "Noise",
    "Prediction",
    "Probe",
    "Rates",
    "Tail",
    "agop",
    "alignment",
    "batch_sharpness_probe",
    "departure",
    "gauss_newton",
    "gradient_noise",
    "hessian",
    "holds_up_to",
    "interpolated",
    "intrinsic_groups",
    "intrinsic_rates",
    "intrinsic_report",
    "invariance",
    "invariance_probe",
    "joint_invariance",
    "loss_difference",
    "noise_probe",
    "noise_scale",
    "ntk",
    "ntk_probe",
    "preconditioned",
    "predict",
    "probe",
    "random_vectors",
    "sharpness_probe",
    "signal_boost",
    "spectral_density",
    "sphere_noise_probe",
    "stability_threshold",
    "tail_index",
    "top_eigenvalues",
    "trace",
    "two_batches",
]
