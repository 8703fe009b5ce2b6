"""Dynamics: discrete training and its SDE as steps from state to state."""

from optsde.dynamics.diffusion import ito_term, sde
from optsde.dynamics.discrete import Dynamics, Info, State, discrete
from optsde.dynamics.sphere import SphereState, gamma_at, sphere

__all__ = [
    "Dynamics",
    "Info",
    "SphereState",
    "State",
    "discrete",
    "gamma_at",
    "ito_term",
    "sde",
    "sphere",
]
