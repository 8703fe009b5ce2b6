"""Optimizers: one file per family, each with its update, its rule and its SDE."""

from optsde.optimizers.adagrad import AdaGrad
from optsde.optimizers.adam import Adam
from optsde.optimizers.averaging import EMA, SWA
from optsde.optimizers.base import REGISTRY, Optimizer, by_name, register
from optsde.optimizers.ito import ItoSystem, Limit
from optsde.optimizers.lion import Lion
from optsde.optimizers.rmsprop import RMSprop
from optsde.optimizers.rules import Memory, Power
from optsde.optimizers.sgd import SGD, HeavyBall, Momentum
from optsde.optimizers.sign import SignSGD, Signum

__all__ = [
    "EMA",
    "REGISTRY",
    "SGD",
    "SWA",
    "AdaGrad",
    "Adam",
    "HeavyBall",
    "ItoSystem",
    "Limit",
    "Lion",
    "Memory",
    "Momentum",
    "Optimizer",
    "Power",
    "RMSprop",
    "SignSGD",
    "Signum",
    "by_name",
    "register",
]
