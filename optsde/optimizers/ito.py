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

    `variation(state, step)`, where there is one, gives an increment of the state that
    is quadratic in `step` = mean·h + kick, the gradient's integral over a short time h.
    So a state takes up covariances that nobody has: sums of step·stepᵀ tend to ∫ Σ dt,
    the quadratic variation, as h → 0. The mean's share in it is of order h and is kept,
    so that the state, like a run's, has a variance in each direction that m has seen.
    """

    drift: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
    noise: Callable[[PyTree, PyTree, PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
    variation: Callable[[PyTree, PyTree], PyTree] | None = None


class ItoSystem(NamedTuple):
    """d(params, state) = drift dt + noise, with Itô's meaning of the noise.

    `init(params)` gives the state at t = 0. `drift(t, params, state, mean, variance)`
    is per unit of time; `noise(t, params, state, mean, variance, kick, spare)` is an
    increment. `variation(params, state, mean, kick, h)`, where there is one, is a
    further increment of the state alone, over a time h: see `Limit`.
    """

    init: Callable[[PyTree], PyTree]
    drift: Callable[..., tuple[PyTree, PyTree]]
    noise: Callable[..., tuple[PyTree, PyTree]]
    variation: Callable[..., PyTree] | None = None
