"""Gradients: oracles that give them, samplers of batches, and the noise they carry."""

from optsde.gradients.covariance import (
    Covariance,
    dense,
    diagonal,
    gaussian,
    heavy_tailed,
    stable,
)
from optsde.gradients.draw import Draw, Use
from optsde.gradients.law import (
    Law,
    Moments,
    drawn_from,
    from_covariance,
    from_data,
    heavy_tailed_law,
)
from optsde.gradients.mix import signed_mix
from optsde.gradients.oracle import (
    Augment,
    ExampleOracle,
    FunctionOracle,
    Losses,
    Oracle,
    Sampler,
)
from optsde.gradients.penalty import Penalty, penalized
from optsde.gradients.per_example import by_blocks, by_layers, layers_of
from optsde.gradients.samplers import epochs, full_batch, minibatch

__all__ = [
    "Augment",
    "Covariance",
    "Draw",
    "ExampleOracle",
    "FunctionOracle",
    "Law",
    "Losses",
    "Moments",
    "Oracle",
    "Penalty",
    "Sampler",
    "Use",
    "by_blocks",
    "by_layers",
    "dense",
    "diagonal",
    "drawn_from",
    "epochs",
    "from_covariance",
    "from_data",
    "full_batch",
    "gaussian",
    "heavy_tailed",
    "heavy_tailed_law",
    "layers_of",
    "minibatch",
    "penalized",
    "signed_mix",
    "stable",
]
