"""Models: Linen modules behind init/apply, and losses of each example."""

from optsde.models.layers import Dense
from optsde.models.losses import cross_entropy, init_params, squared_error, supervised
from optsde.models.mlp import MLP

__all__ = [
    "MLP",
    "Dense",
    "cross_entropy",
    "init_params",
    "squared_error",
    "supervised",
]
