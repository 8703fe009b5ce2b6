"""Settings that the studies of normalized nets share."""

from typing import Any

import numpy as np

from optsde.optimizers import SWA, Optimizer
from optsde.plans import Plan
from optsde.run import Series
from optsde.study import Seeds, setting
from optsde.study.arms import Arm
from optsde.study.tasks import TaskSettings


class Normalised(TaskSettings, Seeds):
    """Settings of a study of a normalized net, and of what its losses are of."""

    model = "normalised_mlp"
    options = {"hidden": (64, 64)}
    augment: str = setting(
        "edges",
        "by shifts; live: the data's own; none",
        one_of=("edges", "live", "none"),
    )
    centred: bool = setting(True, "without the mean image")
    judged: int = setting(1500, "training images that losses are of", at_least=1)
    statistics = 1500

    def demands(self):
        yield from super().demands()
        if "hidden" in self.options:
            widths = self.options["hidden"]
            fine = len(widths) > 0 and min(widths) >= 1
            yield fine, "options.hidden", "one or more widths"


class Nets(Normalised):
    """Settings of a study that trains a normalized net for a number of steps."""

    steps: int = setting(8000, "steps of a run", at_least=1)
    every: int = setting(100, "steps between measurements", at_least=1)
    seeds = 12

    def demands(self):
        yield from super().demands()
        yield self.at_a_measurement("steps")

    def at_a_measurement(self, name: str) -> tuple[bool, str, str]:
        """Returns the demand that a time is one of those with a measurement."""
        step = getattr(self, name)
        fine = step >= self.every and step % self.every == 0
        return fine, name, f"a multiple of every = {self.every}"


class Trained(Nets):
    """Settings of a study that trains by SGD."""

    batch_size: int = setting(16, "examples of a step", at_least=1)

    def arm(
        self,
        name: str,
        optimizer: Optimizer,
        average: SWA | None = None,
        **options: Any,
    ) -> Arm:
        """Returns the arm that trains with an optimizer; options as for `Arm`."""
        plan = Plan(
            optimizer=optimizer,
            batch_size=self.batch_size,
            horizon=self.steps,
            average=average,
        )
        return Arm(name, plan, **options)


class Averaged(Trained):
    """Settings of a study that averages over the later part of its runs."""

    window: float = setting(
        0.5, "share of the run from which on averages are taken", at_least=0, below=1
    )

    @property
    def late(self) -> float:
        """The step from which on averages are taken."""
        return self.window * self.steps

    def average(self, series: Series) -> np.ndarray:
        """Returns the mean of each seed over the later part."""
        return series.between(self.late)


class Weighed(Trained):
    """Settings of a study that measures signal and noise on the unit sphere."""

    draws: int = setting(
        16, "gradients of one measurement of the noise", at_least=16, multiple_of=8
    )
    weigh_every: int = setting(20, "steps between two of them", at_least=1)

    def demands(self):
        yield from super().demands()
        fine = self.every % self.weigh_every == 0
        yield fine, "weigh_every", f"a number that divides every = {self.every}"
