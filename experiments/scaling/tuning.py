"""Runs at κ times the batch for which lr is tuned: the lr tried, and a seed's best.

A seed is judged at what is best for all others, so that no choice is by its own luck.
"""

import dataclasses

import numpy as np

import optsde
from experiments.scaling import groups
from optsde import schedules
from optsde.study import Numbers, setting


class Settings(groups.Settings):
    """Settings of a study that tunes lr, which rises and falls to 0, at each batch."""

    factors: Numbers = setting(
        (0.25, 0.5, 1.0, 2.0), "lr, in units of the rule's", above=0, rising=True
    )
    warmup: float = setting(128.0, "a linear ramp of lr, in base steps", at_least=0)

    def base_plan(self) -> optsde.Plan:
        """Returns the plan of the base run, whose lr rises and falls to 0."""
        schedule = schedules.warmup_cosine(self.warmup, self.horizon)
        return dataclasses.replace(super().base_plan(), schedule=schedule)

    def demands(self):
        fine = self.warmup < self.horizon
        yield fine, "warmup", f"less than the horizon, {self.horizon:g}"
        yield from super().demands()
        yield self.seeds >= 3, "seeds", "at least 3: all but one choose lr"
        fine = 1.0 in self.factors and len(self.factors) >= 3
        yield fine, "factors", "three or more, 1 among them"

    @property
    def batches(self) -> tuple[int, ...]:
        """All batches, in base batches, the base run's first."""
        return 1, *sorted(self.kappas)


def tuned(losses: np.ndarray) -> np.ndarray:
    """Returns the loss of each seed at the choice that is best for the others.

    >>> tuned(np.array([[1.0, 2.0], [1.0, 2.0], [5.0, 0.0]]))
    array([2., 2., 5.])
    """
    seeds = range(len(losses))
    best = [np.delete(losses, seed, axis=0).mean(0).argmin() for seed in seeds]
    return losses[seeds, best]
