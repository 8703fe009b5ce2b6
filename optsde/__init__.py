"""optsde: rescaling of training plans, from large batches to the SDE."""

import importlib
from typing import Any

from optsde.explain import explain
from optsde.optimizers import (
    EMA,
    SGD,
    SWA,
    AdaGrad,
    Adam,
    HeavyBall,
    Lion,
    Momentum,
    Optimizer,
    RMSprop,
    SignSGD,
    Signum,
)
from optsde.plan import Plan, scale, svag, switch

# Imported when they are first used, since diffrax and flax take time.
_DYNAMICS = ("Progress", "discrete", "ensemble", "sde")
_ROOMS = ("analysis", "data", "dynamics", "gradients", "mesh", "models", "schedules")
_ROOMS += ("measure", "train")


def __getattr__(name: str) -> Any:
    if name in _DYNAMICS:
        return getattr(importlib.import_module("optsde.dynamics"), name)
    if name in _ROOMS:
        return importlib.import_module(f"optsde.{name}")
    raise AttributeError(f"module 'optsde' has no attribute {name!r}")


__all__ = [
    "EMA",
    "SGD",
    "SWA",
    "AdaGrad",
    "Adam",
    "HeavyBall",
    "Lion",
    "Momentum",
    "Optimizer",
    "Plan",
    "Progress",
    "RMSprop",
    "SignSGD",
    "Signum",
    "discrete",
    "ensemble",
    "explain",
    "scale",
    "sde",
    "svag",
    "switch",
]
