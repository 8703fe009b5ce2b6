"""Groups of examples or of parameters, of which each is asked whether the rule holds.

A group's metric in a run at κ is compared with the same in the run at κ = 1, over the
second half of the run and paired by seed.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

import optsde
from optsde.analysis import Estimate, jackknife, percent_of_mean
from optsde.gradients import Sampler, minibatch
from optsde.optimizers import Optimizer
from optsde.run import Task
from optsde.study import Arm, Integers, Runs, Seeds, require, setting
from optsde.study.tasks import LabelSettings


class Compared(LabelSettings, Seeds):
    """Settings of a study that compares runs at κ with one at κ = 1."""

    batch_size: int = setting(2, "of the base run", at_least=1)
    horizon: float = setting(2560.0, "length of the run, in base steps", above=0)
    kappas: Integers = setting(
        (8, 32), "batches, in base batches", above=1, entries=1, distinct=True
    )
    evaluations: int = setting(8, "evaluations of each run", at_least=2)
    bound: float = setting(
        5.0, "for equal losses", unit="% of loss", above=0, at_most=100
    )

    @property
    def every(self) -> float:
        """Base steps from one evaluation to the next."""
        return self.horizon / self.evaluations


class Settings(Compared):
    """Settings of one whose runs have one optimizer."""

    optimizer: Optimizer = setting(
        optsde.Adam(lr=1.4e-3, b1=0.998, b2=0.998), "of the base run"
    )

    def base_plan(self) -> optsde.Plan:
        """Returns the plan of the base run."""
        return optsde.Plan(
            optimizer=self.optimizer, batch_size=self.batch_size, horizon=self.horizon
        ).checked()

    def demands(self):
        yield from super().demands()
        for arm in arms("rule", self.base_plan(), self.kappas):
            steps = self.every / arm.plan.dt
            fine = abs(steps - round(steps)) < 1e-9 and round(steps) >= 1
            allowed = f"whole steps in horizon/evaluations = {self.every:g} base steps"
            yield fine, "kappas", allowed


def named(kind: str, kappa: float = 1) -> str:
    """Returns the name of the arm of a kind at κ."""
    return f"{kind}/{kappa:g}"


def arms(kind: str, base: optsde.Plan, kappas: Iterable[int]) -> Iterator[Arm]:
    """Yields the run at κ = 1, and the rule at each κ."""
    yield Arm(named(kind), base)
    for kappa in sorted(kappas):
        yield Arm(named(kind, kappa), optsde.scale(base, kappa, memory="power"))


def sampler(s: Compared, task: Task) -> Sampler:
    """Returns batches of independent draws."""
    allowed = "a net without BatchNorm, whose statistics would be of larger batches"
    require(not task.examples_interact, "model", s.model, allowed)
    return minibatch(task.losses, task.train, augment=task.augment)


class Pair(NamedTuple):
    """Each seed's mean of a metric over the second half of a run, at κ and at κ = 1."""

    far: np.ndarray
    near: np.ndarray

    def off(self) -> Estimate:
        """Returns by how many % the metric at κ differs from that at κ = 1."""
        return percent_of_mean(self.far, self.near)

    def further_off_than(self, other: "Pair") -> Estimate:
        """Returns how much larger the size of the difference is, in points of %."""

        def gain(*means):
            mine, others = means[:2], means[2:]
            far, near = (abs(x.mean() / y.mean() - 1) for x, y in (mine, others))
            return 100 * (far - near)

        return jackknife(gain, *self, *other)


def pair(s: Settings, runs: Runs, kind: str, kappa: float, metric: str) -> Pair:
    """Returns a metric of the arms of a kind at κ and at κ = 1."""
    names = named(kind, kappa), named(kind)
    return Pair(*(runs[name][metric].between(s.horizon / 2) for name in names))
