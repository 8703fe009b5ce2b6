"""Dynamics: discrete training and its SDE as steps from state to state."""

from optsde.dynamics.diffusion import sde
from optsde.dynamics.discrete import Dynamics, Info, State, discrete
from optsde.dynamics.sphere import SphereState, gamma_at, sphere

__all__ = [
    "Dynamics",
    "Info",
    "SphereState",
    "State",
    "discrete",
    "gamma_at",
    "sde",
    "sphere",
]
