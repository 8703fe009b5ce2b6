"""Dynamics: the discrete algorithm and its SDE as steps, and ensembles of either."""

from optsde.dynamics.algorithm import Dynamics, Info, State, discrete
from optsde.dynamics.diffusion import SDEState, ito_term, sde
from optsde.dynamics.engine import Engine
from optsde.dynamics.ensembles import Trajectory, ensemble
from optsde.dynamics.progress import Progress

__all__ = [
    "Dynamics",
    "Engine",
    "Info",
    "Progress",
    "SDEState",
    "State",
    "Trajectory",
    "discrete",
    "ensemble",
    "ito_term",
    "sde",
]
