"""What does each schedule look like, and what does it do at equal budget?

Momentum on digits, the same number of steps for every schedule. Each may choose its
peak learning rate among a few, on one half of the seeds; the other half judges.
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import optsde
from experiments.descent import held_out
from experiments.descent.held_out import HeldOutSettings
from optsde import schedules
from optsde.analysis import (
    Estimate,
    above,
    estimate,
    interval,
    percent_of_mean,
    plots,
    plus_minus,
    table,
    with_interval,
)
from optsde.study import Numbers, Study, setting
from optsde.study.tasks import build_task


class Settings(HeldOutSettings):
    lrs: Numbers = setting(
        (0.0028, 0.004, 0.0056, 0.008, 0.011, 0.016, 0.022),
        "peak rates to choose from",
        above=0,
        entries=1,
        distinct=True,
    )
    beta: float = setting(0.9, "of the heavy ball", at_least=0, below=1)
    seeds = 32  # and rates close together: what is compared differs by 1%


def all_schedules(horizon):
    """Returns each kind at settings in use, with a peak of 1 (growing cycles: last)."""
    s = schedules
    cycle, warm = horizon / 4, horizon / 10
    return {
        "constant": s.constant(),
        "linear": s.linear(horizon),
        "steps": s.milestones((0.5 * horizon, 0.75 * horizon)),
        "cosine": s.cosine(horizon),
        "warm-up": s.warmup(warm),
        "exponential warm-up": s.exponential_warmup(warm),
        "warm-up, cosine": s.warmup_cosine(warm, horizon),
        "one cycle": s.one_cycle(horizon),
        "cyclic": s.cyclic(cycle),
        "exponential cyclic": s.exponential_cyclic(cycle, high=1.5**-3),
        "restarts": s.restarts(horizon / 7, stretch=2.0),
    }


class Chosen(NamedTuple):
    """A schedule at its best peak rate, on the seeds that had no part in the choice."""

    lr: float
    loss: np.ndarray  # [seeds]
    accuracy: np.ndarray

    def gain(self, base: "Chosen") -> Estimate:
        """Returns how far its loss lies below another's, in %, paired by seed."""
        return -percent_of_mean(self.loss, base.loss)


def simulate(s, rundir, task):
    """Returns each schedule at its best peak rate."""
    metrics = rundir.once("held_out", partial(train_all, s, task))
    runs = {}
    for i, name in enumerate(all_schedules(s.steps)):
        number = held_out.best(metrics["loss"][i])
        judged = {n: held_out.judged(x[i])[number] for n, x in metrics.items()}
        runs[name] = Chosen(s.lrs[number], **judged)
    return runs


def train_all(s, task):
    """Returns held-out loss and accuracy, [schedules, lrs, seeds], of one ensemble."""
    kinds = all_schedules(float(s.steps)).values()
    which, lr = np.meshgrid(np.arange(len(kinds)), s.lrs, indexing="ij")
    members = {
        "schedule": jnp.asarray(which.ravel()),
        "lr": jnp.asarray(lr.ravel(), jnp.float32),
    }

    def plan_of(member):
        def schedule(t):
            multipliers = [jnp.asarray(kind(t)) for kind in kinds]
            return jnp.stack(multipliers)[member["schedule"]]

        return optsde.Plan(
            optimizer=optsde.HeavyBall(lr=member["lr"], beta=s.beta),
            batch_size=s.batch_size,
            horizon=s.steps,
            schedule=schedule,
        )

    metrics = held_out.train(s, task, plan_of, members)
    return {name: x.reshape(*which.shape, s.seeds) for name, x in metrics.items()}


def tables(s, runs):
    rows = []
    for name, mine in runs.items():
        gain = interval(mine.gain(runs["constant"]))
        cells = [
            f"{mine.lr:g}",
            plus_minus(estimate(mine.loss), 4),
            with_interval(gain, 1, sign="+"),
            plus_minus(estimate(100 * mine.accuracy), 2),
        ]
        rows.append([name, *cells])
    header = ["schedule", "best peak lr", "held-out loss"]
    header += ["% below constant", "accuracy %"]
    yield table(header, rows, "lrrrr")


def claims(s, runs):
    """Yields each schedule against the constant rate."""
    for name, mine in runs.items():
        if name != "constant":
            claim = f"{name}_beats_constant".replace(", ", "_").replace(" ", "_")
            yield above(claim, mine.gain(runs["constant"]), 0.0, "% of loss")


def figure(s, runs, path):
    """Draws the shape of each schedule, and beside it what it gains."""
    drawing, (left, right) = plots.new_figure(2, plots.HALF_SLIDE, 6.4)
    times = np.linspace(0, s.steps, 2000, endpoint=False)
    rows = -np.arange(len(runs))
    kinds = all_schedules(float(s.steps))
    for row, (name, schedule) in zip(rows, kinds.items(), strict=True):
        shape = np.broadcast_to(schedule(jnp.asarray(times)), times.shape)
        left.fill_between(
            times, row, row + 0.72 * shape, color=plots.COLOURS[0], alpha=0.25
        )
        left.plot(times, row + 0.72 * shape, color=plots.COLOURS[0], lw=1.4)
        gain = runs[name].gain(runs["constant"])
        plots.points(right, row + 0.36, gain, colour=plots.COLOURS[5], across=True)
    left.set_yticks(rows + 0.36, kinds)
    left.set(ylim=(rows[-1] - 0.2, 1))
    left.grid(False)
    plots.label(left, x="step", title="Learning rate")
    right.axvline(0, color="0.4", lw=1)
    right.set_yticks(rows + 0.36, [])
    right.set(ylim=left.get_ylim())
    plots.label(right, x="% below the constant rate", title="Held-out loss")
    drawing.suptitle("Same steps, each schedule at its own best peak")
    plots.save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"schedules": figure},
    task=build_task,
    by_accuracy=True,
)
