"""Itô systems: drift and noise of the SDE of an optimizer.

Time is counted in steps and the noise is that of one step's batch, so that one unit of
time of the SDE is one step of the discrete run. The gradient enters by its mean ∇f, its
variance diag Σ, and increments `kick` = Σ^{1/2} dW of its noise.
"""

from collections.abc import Callable
from typing import NamedTuple

from optsde.types import PyTree


class Limit(NamedTuple):
    """The part of a family: the direction u that replaces the gradient, and its state.

    `drift(state, mean, variance)` gives (u, state) per unit of time.
    `noise(state, mean, variance, kick, spare)` gives their increments, linear in `kick`
    and in `spare`: standard Brownian increments like the parameters, independent of it.
    """

    drift: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
    noise: Callable[[PyTree, PyTree, PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]


class ItoSystem(NamedTuple):
    """d(params, state) = drift dt + noise, with Itô's meaning of the noise.

    `init(params)` gives the state at t = 0. `drift(t, params, state, mean, variance)`
    is per unit of time; `noise(t, params, state, mean, variance, kick, spare)` is an
    increment.
    """

    init: Callable[[PyTree], PyTree]
    drift: Callable[..., tuple[PyTree, PyTree]]
    noise: Callable[..., tuple[PyTree, PyTree]]
