"""What does a cosine cost whose length is not the run's?

Hoffmann et al. (2022, appendix B) train with half cosines, down to a tenth of the peak,
that are longer than the run, and find that a length of more than 1.25 runs ends
clearly higher. Here the peak is that which is best for a cosine as long as the run, and
besides, each length may choose its own: one half of the seeds chooses, the other
judges. Draws are independent, and no more of them than there are examples.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import optsde
from experiments.descent import held_out
from experiments.descent.held_out import HeldOutSettings
from optsde import gradients
from optsde.analysis import (
    Estimate,
    Verdict,
    above,
    agrees,
    estimate,
    family,
    interval,
    percent_paired,
    plots,
    plus_minus,
    stack,
    table,
    with_interval,
)
from optsde.optimizers import HeavyBall, Optimizer
from optsde.plans.schedules import cosine
from optsde.run import Task
from optsde.study import Numbers, RunDir, Study, setting
from optsde.study.tasks import build_task


class Settings(HeldOutSettings):
    optimizer: Optimizer = setting(HeavyBall(lr=0.006, beta=0.9), "of all runs")
    factors: Numbers = setting(
        (1.0, 2.0, 4.0, 8.0), "of its lr, tried as peaks", above=0, rising=True
    )
    lengths: Numbers = setting(
        (1.0, 1.1, 1.25, 1.5, 2.0, 5.0),
        "of the cosine, in runs, from 1 on",
        at_least=1,
        rising=True,
        entries=2,
    )
    longest: float = setting(1.25, "length that should do no harm", at_least=1)
    end: float = setting(
        0.1, "of the peak, where the cosine ends", at_least=0, at_most=1
    )
    close: float = setting(1.0, "for equal losses", unit="% of loss", above=0)
    train_size = 1400
    batch_size = 4
    steps = 350  # as many draws as there are examples
    label_noise = 0.0
    seeds = 128

    def demands(self):
        yield from super().demands()
        yield self.lengths[0] == 1, "lengths", "1 first: all are compared with it"
        yield len(self.factors) > 0, "factors", "one or more"


class Ends(NamedTuple):
    """Held-out losses of the seeds that judge, at the peaks that the others chose."""

    fixed: dict[float, np.ndarray]  # by length, at the best peak of length 1
    tuned: dict[float, np.ndarray]  # each at its own best
    peaks: dict[float, float]


def simulate(s: Settings, rundir: RunDir, task: Task) -> Ends:
    """Returns the losses at the end."""
    loss = rundir.once("held_out", partial(train_all, s, task))["loss"]
    best = [held_out.best(of_length) for of_length in loss]
    judged = [held_out.judged(of_length) for of_length in loss]
    pairs = list(zip(s.lengths, judged, best, strict=True))
    return Ends(
        fixed={length: of_length[best[0]] for length, of_length, _ in pairs},
        tuned={length: of_length[own] for length, of_length, own in pairs},
        peaks={length: s.factors[own] for length, _, own in pairs},
    )


def train_all(s: Settings, task: Task) -> dict[str, np.ndarray]:
    """Returns held-out loss and accuracy of one ensemble, [lengths, factors, seeds]."""
    lengths, factors = np.meshgrid(s.lengths, s.factors, indexing="ij")
    grid = {"length": lengths, "factor": factors}
    members = {name: jnp.asarray(x.ravel(), jnp.float32) for name, x in grid.items()}

    def plan_of(member):
        return optsde.Plan(
            optimizer=s.optimizer.times_lr(member["factor"]),
            batch_size=s.batch_size,
            horizon=s.steps,
            schedule=cosine(member["length"] * s.steps, s.end),
        )

    metrics = held_out.train(s, task, plan_of, members, gradients.minibatch)
    return {name: x.reshape(*lengths.shape, s.seeds) for name, x in metrics.items()}


# ---- what they say


def worse(losses: dict[float, np.ndarray], length: float) -> Estimate:
    """Returns by how many % a length ends above the run's own, paired by seed."""
    return percent_paired(losses[length], losses[1.0])


def claims(s: Settings, runs: Ends) -> Iterator[Verdict]:
    alike, apart, unit = [], [], "% of loss"
    for length in s.lengths[1:]:
        gap = worse(runs.fixed, length)
        if length <= s.longest:
            alike.append(agrees(f"{length:g}_does_no_harm", gap, s.close, unit))
        else:
            apart.append(above(f"{length:g}_is_worse", gap, 0, unit))
    yield from family("as long as it should be", alike)
    yield from family("too long", apart)
    last = s.lengths[-1]
    gap = worse(runs.tuned, last)
    yield above(f"{last:g}_is_worse_at_its_own_peak", gap, 0, unit)


def tables(s: Settings, runs: Ends) -> Iterator[str]:
    rows = []
    for length in s.lengths:
        rate = float(cosine(length * s.steps, s.end)(s.steps))
        cells = [f"{rate:.2f}", plus_minus(estimate(runs.fixed[length]))]
        for losses in (runs.fixed, runs.tuned):
            gap = interval(worse(losses, length))
            cells.append(with_interval(gap, 2, sign="+") if length > 1 else "")
        peak = s.optimizer.lr * runs.peaks[length]
        ends = len(s.factors) > 2 and runs.peaks[length] in (
            s.factors[0],
            s.factors[-1],
        )
        rows.append([f"{length:g}", *cells, f"{peak:g}" + " (end of the list)" * ends])
    header = ["length, in runs", "rate at the end, of the peak", "held-out loss"]
    header += ["% above length 1", "at its own peak", "which is"]
    yield table(header, rows, "rrrrrr")


def figure(s: Settings, runs: Ends, path: Path) -> None:
    """Draws the rates, and what each length loses."""
    drawing, (left, right) = plots.new_figure(2, plots.HALF_SLIDE, 4.2)
    times = np.linspace(0, s.steps, 300)
    for length, colour in plots.colours(s.lengths).items():
        rates = cosine(length * s.steps, s.end)(jnp.asarray(times))
        left.plot(times, rates, color=colour, label=f"{length:g}")
    left.set_ylim(0, 1.05)
    words = dict(x="step", y="lr, of the peak", title="Half cosines")
    plots.label(left, **words, legend="lower left", legend_title="length")
    longer = s.lengths[1:]
    places = np.arange(len(longer))
    for words, losses, colour, marker in (
        ("peak of length 1", runs.fixed, plots.COLOURS[0], "o"),
        ("its own peak", runs.tuned, plots.COLOURS[5], "s"),
    ):
        gaps = stack(worse(losses, length) for length in longer)
        looks = dict(colour=colour, label=words, marker=marker, ls="-", ms=5)
        plots.points(right, places, gaps, **looks)
    right.axhline(0, color="0.5", lw=0.8)
    harmless = sum(length <= s.longest for length in longer)
    right.axvline(harmless - 0.5, color="0.5", lw=0.8, ls=":")
    right.set_xticks(places, [f"{length:g}" for length in longer])
    y, title = "% above length 1", "Held-out loss at the end"
    plots.label(right, "length of the cosine, in runs", y, title, legend="upper left")
    plots.save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"lengths": figure},
    task=build_task,
)
