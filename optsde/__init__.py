"""optsde: rescaling of training plans, from large batches to the SDE."""

import importlib
from typing import Any

from optsde.optimizers import (
    EMA,
    LAMB,
    MARS,
    SGD,
    SOAP,
    SWA,
    Adafactor,
    AdaGrad,
    Adam,
    AdamMini,
    AdEMAMix,
    CentredAdam,
    Frozen,
    Groups,
    HeavyBall,
    InvariantAdam,
    Lion,
    Momentum,
    Muon,
    Optimizer,
    RMSprop,
    ScheduleFreeAdam,
    ScheduleFreeMean,
    ScheduleFreeSGD,
    Shampoo,
    SignSGD,
    Signum,
    decay_where,
)
from optsde.plans import (
    Plan,
    explain,
    from_optax,
    optax_state,
    scale,
    svag,
    switch,
)

# Imported when they are first used, since flax takes time.
_LATER = {
    "Progress": "run",
    "discrete": "dynamics",
    "ensemble": "run",
    "fit": "run",
    "sde": "dynamics",
}
_ROOMS = ("analysis", "data", "dynamics", "gradients", "measure", "mesh", "models")
_ROOMS += ("problems", "run", "study")


def __getattr__(name: str) -> Any:
    if name in _LATER:
        room = importlib.import_module(f"optsde.{_LATER[name]}")
        return getattr(room, name)
    if name in _ROOMS:
        return importlib.import_module(f"optsde.{name}")
    if name == "schedules":
        return importlib.import_module("optsde.plans.schedules")
    raise AttributeError(f"module 'optsde' has no attribute {name!r}")


__all__ = [
    "EMA",
    "LAMB",
    "MARS",
    "SGD",
    "SOAP",
    "SWA",
    "AdEMAMix",
    "AdaGrad",
    "Adafactor",
    "Adam",
    "AdamMini",
    "CentredAdam",
    "Frozen",
    "Groups",
    "HeavyBall",
    "InvariantAdam",
    "Lion",
    "Momentum",
    "Muon",
    "Optimizer",
    "Plan",
    "Progress",
    "RMSprop",
    "ScheduleFreeAdam",
    "ScheduleFreeMean",
    "ScheduleFreeSGD",
    "Shampoo",
    "SignSGD",
    "Signum",
    "decay_where",
    "discrete",
    "ensemble",
    "explain",
    "fit",
    "from_optax",
    "optax_state",
    "scale",
    "sde",
    "svag",
    "switch",
]
