"""Dynamics: the discrete algorithm and its SDE as steps, and ensembles of either."""

from optsde.dynamics.discrete import Dynamics, State, discrete
from optsde.dynamics.ensembles import Trajectory, ensemble
from optsde.dynamics.progress import Progress
from optsde.dynamics.sde import SDEState, ito_term, sde

__all__ = [
    "Dynamics",
    "Progress",
    "SDEState",
    "State",
    "Trajectory",
    "discrete",
    "ensemble",
    "ito_term",
    "sde",
]
