"""Learning rates that go up and down in cycles: what three of the studies share."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.catapults import descent
from experiments.catapults.descent import Cycle, Member
from experiments.catapults.nets import NetSettings
from optsde.analysis import (
    Spike,
    Verdict,
    estimate,
    find_spikes,
    interval,
    least_above,
    within,
)
from optsde.plans.schedules import exponential_cyclic
from optsde.study import setting

IN_UNITS = "in units of the critical rate at the start"
Curves = dict[str, dict[str, Any]]
"""By arm and name: metrics [seeds, times], and the `spikes` of each seed's loss."""


class CycleSettings(NetSettings):
    """Settings of a study of cycles."""

    cycles: int = setting(6, "cycles of the rate", at_least=1)
    period: int = setting(100, "steps of a cycle", at_least=40)

    @property
    def steps(self) -> int:
        return self.cycles * self.period


class ObservedSettings(CycleSettings):
    """Settings of a study that measures now and then."""

    every: int = setting(10, "steps between measurements", at_least=1)

    def demands(self):
        yield from super().demands()
        allowed = f"a divisor of the {self.steps} steps"
        yield self.steps % self.every == 0, "every", allowed

    @property
    def times(self) -> np.ndarray:
        return np.arange(0, self.steps + 1, self.every)


class Arm(NamedTuple):
    """A cycle in units of the critical rate at the start, and what is claimed of it."""

    title: str
    cycle: Cycle
    catapults: tuple[float, float] = (0, 0)  # open interval of their number

    def rate(self, s: CycleSettings) -> np.ndarray:
        """Returns the rate at each step."""
        schedule = exponential_cyclic(s.period, *self.cycle)
        return np.asarray(schedule(jnp.arange(s.steps)))


def crossed(members: Member, arms: Mapping[str, Arm]) -> Member:
    """Returns each seed's member with the cycle of every arm."""
    return descent.crossed(members, [arm.cycle for arm in arms.values()])


def by_arm(arrays: Mapping[str, np.ndarray], arms: Iterable[str]) -> Curves:
    """Returns arrays [seeds, arms, times] by arm, with the spikes of the losses."""
    curves: Curves = {}
    for i, arm in enumerate(arms):
        curves[arm] = {name: x[:, i] for name, x in arrays.items()}
        curves[arm]["spikes"] = [find_spikes(x) for x in curves[arm]["loss"]]
    return curves


def counts(spikes: list[list[Spike]]) -> str:
    """Returns how many spikes each seed has, for a table."""
    return " ".join(str(len(found)) for found in spikes)


def number_of_catapults(claim: str, arm: Arm, spikes: list[list[Spike]]) -> Verdict:
    """Claims that the mean number of spikes is what the arm says."""
    found = interval(estimate([len(x) for x in spikes]))
    return within(claim, found, *arm.catapults, "catapults")


def lower_after(
    peaks: str, series: np.ndarray, spikes: list[list[Spike]], name: str = "norm"
) -> Verdict:
    """Claims that a number is lower after each catapult than before it."""
    fall = [
        100 * (1 - run[spike.end] / run[spike.start - 1])
        for run, found in zip(series, spikes, strict=True)
        for spike in found
        if spike.end is not None
    ]
    return least_above(f"{name}_is_lower_after_each_{peaks}", fall, 0.0, "% less")
