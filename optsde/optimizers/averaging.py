"""Averages of the weights along a run: exponential, SWA, and schedule-free x."""

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp

from optsde.checks import ABOVE_0, BELOW_1, check_number
from optsde.optimizers.base import ema
from optsde.types import PyTree, Scalar


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EMA:
    """The exponential average θ̄ ← ρ θ̄ + (1−ρ) θ, from θ̄ = θ at the start.

    At κ times the batch its decay is ρ^κ (Busbridge et al. 2023).

    >>> EMA(0.99).rescaled(2)
    EMA(decay=0.9801)
    """

    decay: Scalar

    def checked(self) -> Self:
        """Returns itself if it makes sense; else says what does."""
        check_number("decay", self.decay, "0 ≤ decay < 1", 0, BELOW_1)
        return self

    def rescaled(self, kappa: Scalar) -> "EMA":
        return EMA(self.decay**kappa)

    def init(self, params: PyTree) -> PyTree:
        return params

    def update(self, average: PyTree, params: PyTree, time, dt: float) -> PyTree:
        del time, dt
        return ema(average, params, self.decay)

    def value(self, average: PyTree) -> PyTree:
        return average


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SWA:
    """Stochastic weight averaging, a plain mean (Izmailov et al. 2018).

    It takes the weights at times start, start + every, start + 2·every, … The
    times are base steps, so rescaling leaves them alone: the same samples apart, and
    every/κ steps apart at κ times the batch.
    """

    start: Scalar
    every: Scalar

    def checked(self) -> Self:
        """Returns itself if it makes sense; else says what does."""
        check_number("start", self.start, "a time ≥ 0", 0)
        check_number("every", self.every, "a positive time", ABOVE_0)
        return self

    def rescaled(self, kappa: Scalar) -> "SWA":
        del kappa
        return self

    def init(self, params: PyTree) -> tuple[jax.Array, PyTree]:
        return jnp.asarray(self.start <= 0, jnp.int32), params

    def update(self, average, params: PyTree, time, dt: float):
        """Returns the average with `params`, which are those of `time`."""
        taken, mean = average
        due = jnp.floor((time - self.start) / self.every + 1e-4)
        before = jnp.floor((time - dt - self.start) / self.every + 1e-4)
        take = (due >= 0) & (due > before)
        taken = taken + take
        weight = jnp.where(take, 1 / jnp.maximum(taken, 1), 0)
        return taken, jax.tree.map(
            lambda a, x: (a + weight * (x - a)).astype(a.dtype), mean, params
        )

    def value(self, average) -> PyTree:
        return average[1]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ScheduleFreeMean:
    """The x of schedule-free optimizers, as a mean of their y (Defazio et al. 2024).

    From x ← (1−c) x + c z and y = (1−β) z + β x follows x ← x + w (y − x) with
    w = c/(1 − β + βc), whatever moves z. Here c is dt/t, of all steps alike, at any κ.
    β must be the optimizer's, whose `average()` it is.

    >>> ScheduleFreeMean(0.9).rescaled(2)
    ScheduleFreeMean(beta=0.9)
    """

    beta: Scalar

    def checked(self) -> Self:
        """Returns itself if it makes sense; else says what does."""
        check_number("beta", self.beta, "0 ≤ beta < 1", 0, BELOW_1)
        return self

    def rescaled(self, kappa: Scalar) -> "ScheduleFreeMean":
        del kappa
        return self

    def init(self, params: PyTree) -> PyTree:
        return params

    def update(self, average: PyTree, params: PyTree, time, dt: float) -> PyTree:
        """Returns x after the step that ended at `time` in y = `params`."""
        c = dt / time
        weight = c / (1 - self.beta + self.beta * c)
        return jax.tree.map(
            lambda x, y: (x + weight * (y - x)).astype(x.dtype), average, params
        )

    def value(self, average: PyTree) -> PyTree:
        return average


Average = EMA | SWA | ScheduleFreeMean
