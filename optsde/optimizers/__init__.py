"""Optimizers: one file per family, with update, rule, SDE and closed forms."""

from optsde.optimizers.adafactor import Adafactor
from optsde.optimizers.adagrad import AdaGrad
from optsde.optimizers.adam import Adam
from optsde.optimizers.adam_mini import AdamMini
from optsde.optimizers.ademamix import AdEMAMix
from optsde.optimizers.averaging import EMA, SWA, Average, ScheduleFreeMean
from optsde.optimizers.base import REGISTRY, Optimizer, by_name, register
from optsde.optimizers.centred import CentredAdam
from optsde.optimizers.groups import Frozen, Groups, decay_where
from optsde.optimizers.invariant_adam import InvariantAdam
from optsde.optimizers.ito import ItoSystem, Limit
from optsde.optimizers.lamb import LAMB
from optsde.optimizers.lion import Lion
from optsde.optimizers.mars import MARS
from optsde.optimizers.muon import Muon
from optsde.optimizers.response import Rates, Response
from optsde.optimizers.rmsprop import RMSprop
from optsde.optimizers.rules import Memory, Power
from optsde.optimizers.schedule_free import ScheduleFreeAdam, ScheduleFreeSGD
from optsde.optimizers.sgd import SGD, Descent, HeavyBall, Momentum
from optsde.optimizers.shampoo import Shampoo
from optsde.optimizers.sign import SignSGD, Signum
from optsde.optimizers.soap import SOAP

__all__ = [
    "EMA",
    "LAMB",
    "MARS",
    "REGISTRY",
    "SGD",
    "SOAP",
    "SWA",
    "AdEMAMix",
    "AdaGrad",
    "Adafactor",
    "Adam",
    "AdamMini",
    "Average",
    "CentredAdam",
    "Descent",
    "Frozen",
    "Groups",
    "HeavyBall",
    "InvariantAdam",
    "ItoSystem",
    "Limit",
    "Lion",
    "Memory",
    "Momentum",
    "Muon",
    "Optimizer",
    "Power",
    "RMSprop",
    "Rates",
    "Response",
    "ScheduleFreeAdam",
    "ScheduleFreeMean",
    "ScheduleFreeSGD",
    "Shampoo",
    "SignSGD",
    "Signum",
    "by_name",
    "decay_where",
    "register",
]
