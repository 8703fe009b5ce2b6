"""Does a barrier of loss stand between two trained points?

The line from one to the other, and how far it rises above the higher of its ends.
"""

from pathlib import Path

import jax
import numpy as np

from experiments.landscape.drawing import draw_line
from experiments.landscape.slices import Slice, evaluate_slice, slice_study
from experiments.landscape.trained import (
    Trained,
    demand_of_replica,
    point,
    settings_of,
)
from optsde.study import setting


class Settings(Trained):
    other: str = setting("", "the run at the other end; none: another replica of `run`")
    other_replica: int = setting(0, "which of that run's seeds", at_least=0)

    def demands(self):
        yield from super().demands()
        if not self.other:
            allowed = "a run to go to, or another replica of the same run by "
            allowed += "--config.other_replica"
            yield self.replica != self.other_replica, "other", allowed
        run = "other" if self.other else "run"
        yield demand_of_replica(self, run, "other_replica")
        here, there = (settings_of(Path(x)) for x in (self.run, getattr(self, run)))
        for name in ("dataset", "model", "options"):
            fine = getattr(here, name) == getattr(there, name)
            yield fine, run, f"the same {name} as --config.run={self.run}"


def simulate(s, rundir, task):
    step, params = point(s.run, s.replica, s.step)
    end_step, end = point(s.other or s.run, s.other_replica)
    directions = [jax.tree.map(np.subtract, end, params)]
    distance = np.linspace(0.0, 1.0, s.points)
    steps = [step, end_step]
    return evaluate_slice(rundir, task, steps, params, directions, distance)


def barrier(loss: np.ndarray) -> float:
    """Returns how far the line rises above the higher of its two ends."""
    return float(np.max(loss) - max(loss[0], loss[-1]))


def numbers(loss: np.ndarray) -> dict[str, float]:
    """Returns the losses at both ends, the highest one and the barrier."""
    highest = np.max(loss)
    return dict(start=loss[0], end=loss[-1], highest=highest, barrier=barrier(loss))


def figure(s, cut: Slice, path):
    draw_line(cut, "share of the way from one run to the other", (0.0, 1.0), path)


study = slice_study(__name__, Settings, simulate, numbers, figure)
