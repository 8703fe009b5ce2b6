"""Gradients: where they come from, and what noise they carry."""

from optsde.gradients.law import Law, Moments, from_covariance, from_data
from optsde.gradients.noise import (
    Covariance,
    dense,
    diagonal,
    gaussian,
    heavy_tailed,
    stable,
)
from optsde.gradients.oracles import (
    Draw,
    ExampleOracle,
    Oracle,
    epochs,
    full_batch,
    minibatch,
)
from optsde.gradients.penalty import Penalty
from optsde.gradients.per_example import by_blocks, by_layers
from optsde.gradients.signed_mix import signed_mix

__all__ = [
    "Covariance",
    "Draw",
    "ExampleOracle",
    "Law",
    "Moments",
    "Oracle",
    "Penalty",
    "by_blocks",
    "by_layers",
    "dense",
    "diagonal",
    "epochs",
    "from_covariance",
    "from_data",
    "full_batch",
    "gaussian",
    "heavy_tailed",
    "minibatch",
    "signed_mix",
    "stable",
]
