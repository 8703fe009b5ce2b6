"""Do catapults make networks generalize better, on real images?

SGD, AdaGrad and Adam, with and without a learning rate that cycles above the critical
one, on a two-layer net and minibatches. Each seed has its own split into training and
test images. All of it twice: from random initial functions, and from the zero function,
since lazy training leaves in the test predictions what a random one began with. Errors
are over seeds, which differ in start, batches and split of the same images.
"""

import dataclasses
import functools
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import optsde
from experiments.catapults import nets, table_runs
from experiments.catapults.table_runs import INITS
from optsde.analysis import (
    above,
    agrees,
    all_above,
    all_agree,
    estimate_finite,
    family,
    find_spikes,
    plots,
    plus_minus,
    stack,
    table,
)
from optsde.plans.schedules import exponential_cyclic
from optsde.run import parts
from optsde.study import Arm, Study, setting

STARTS = {"random": "random initial function", "zero": "zero initial function"}
POINTS = "points"  # of percent


class Settings(nets.NetSettings):
    images: int = setting(0, "of the set that are used; 0: all", at_least=0)
    train_size: int = setting(
        1500, "of them to train on; the others are held out", at_least=1
    )
    kernel_size: int = setting(1500, "training images that ‖K‖ is of", at_least=1)
    width: int = setting(
        256, "of the hidden layer, even for the zero function", multiple_of=2, above=0
    )
    activation: str = setting("relu", "of the hidden layer")
    batch_size: int = setting(32, "examples of a step", at_least=1)
    steps: int = setting(3000, "of a run", at_least=1)
    ratio: float = setting(0.9, "SGD's rate", unit="η_crit at the start", above=0)
    large_ratio: float = setting(2.0, "its large rate", unit="η_crit", above=0)
    period: int = setting(500, "steps of a cycle", at_least=1)
    cycle_low: float = setting(0.2, "SGD's least rate", unit="η_crit", above=0)
    cycle_peak: float = setting(1.5, "its first peak", unit="η_crit", above=0)
    growth: float = setting(1.4, "of the peaks, cycle by cycle", above=0)
    adagrad_lr: float = setting(0.15, "AdaGrad's constant rate", above=0)
    adagrad_unit: float = setting(0.1, "the unit of its cycle", above=0)
    adam_lr: float = setting(0.01, "Adam's rate", above=0)
    log_every: int = setting(10, "steps that a mean batch loss is of", at_least=1)
    evaluate_every: int = setting(50, "steps between evaluations", at_least=1)
    matched_loss: float = setting(
        0.1, "training loss at which rows are compared", above=0
    )
    bound: float = setting(
        0.34, "of equal rows", unit="points of accuracy", above=0, at_most=100
    )
    seeds = 48

    def demands(self):
        yield from super().demands()
        for name, divisor in (
            ("evaluate_every", "log_every"),
            ("steps", "evaluate_every"),
        ):
            every = getattr(self, divisor)
            fine = getattr(self, name) % every == 0
            yield fine, name, f"a multiple of {divisor}={every}"
        fine = self.kernel_size <= self.train_size
        yield fine, "kernel_size", f"at most train_size={self.train_size}"


# ---- the rows


@dataclasses.dataclass(frozen=True)
class Row(Arm):
    """A way of training; `relative`: its lr is in units of η_crit at the start."""

    title: str = ""
    relative: bool = False


def rows(s):
    cycle = exponential_cyclic(s.period, s.cycle_low, s.cycle_peak, s.growth)

    def row(name, title, optimizer, schedule=None, relative=False):
        plan = optsde.Plan(
            optimizer=optimizer,
            batch_size=s.batch_size,
            horizon=s.steps,
            schedule=schedule,
        )
        return Row(name, plan, title=title, relative=relative)

    def sgd(name, title, lr, schedule=None):
        return row(name, title, optsde.SGD(lr=lr), schedule, relative=True)

    return [
        sgd("sgd", f"SGD, {s.ratio:g} η_crit", s.ratio),
        sgd("sgd_large", f"SGD, {s.large_ratio:g} η_crit", s.large_ratio),
        sgd("sgd_cycle", "SGD + catapults", 1.0, cycle),
        row("adagrad", "AdaGrad", optsde.AdaGrad(lr=s.adagrad_lr, s0=0.0)),
        row(
            "adagrad_cycle",
            "AdaGrad + catapults",
            optsde.AdaGrad(lr=s.adagrad_unit, s0=0.0),
            cycle,
        ),
        row("adam", "Adam", optsde.Adam(lr=s.adam_lr)),
    ]


def simulate(s, rundir, task):
    """Returns each row's metrics, [inits, seeds, …]."""
    members = functools.cache(lambda: table_runs.members_of(s, task))

    def make(row):
        return table_runs.train(s, task, members(), row)

    return {
        row.name: rundir.once(row.name, partial(make, row)) for row in parts(rows(s))
    }


# ---- what is compared


class Ends(NamedTuple):
    """The numbers of one row from one init, [seeds]; accuracies are in percent.

    A diverged net is as good as guessing, and counts as that.
    """

    train_loss: Any
    accuracy: Any
    matched: Any  # accuracy where the training loss first falls to `matched_loss`
    norm_ratio: Any
    spikes: Any  # of the mean losses of `log_every` batches
    diverged: Any


def ends_of(s, runs, init):
    """Returns the numbers of every row from one init."""
    which = INITS.index(init)

    def ends(run):
        run = {metric: x[which] for metric, x in run.items()}
        losses, accuracy = run["train_loss"], 100 * run["accuracy"]
        pairs = zip(losses, accuracy, strict=True)
        return Ends(
            losses[:, -1],
            accuracy[:, -1],
            np.array([at_loss(s.matched_loss, *pair) for pair in pairs]),
            run["norm_ratio"],
            np.array([len(find_spikes(losses)) for losses in run["batch_loss"]]),
            ~np.isfinite(run["batch_loss"]).all(axis=1),
        )

    return {name: ends(run) for name, run in runs.items()}


def at_loss(loss, losses, values):
    """Returns the value where the losses first fall to `loss`; NaN if they do not.

    Between two evaluations it is linear in the logarithm of the loss.
    """
    there = losses <= loss
    if not there.any():
        return np.nan
    after = int(there.argmax())
    if after == 0:
        return float(values[0])
    before, behind = np.log(losses[after - 1 : after + 1])
    share = (before - np.log(loss)) / (before - behind)
    return float(values[after - 1] + share * (values[after] - values[after - 1]))


def tables(s, runs):
    """Yields a table for each init; errors are standard errors over seeds."""
    for init, start in STARTS.items():
        ends, lines = ends_of(s, runs, init), []
        for row in rows(s):
            mine, sgd = ends[row.name], ends["sgd"]
            matched = mine.matched - sgd.matched
            cells = [
                row.title,
                plus_minus(estimate_finite(mine.train_loss), 3),
                plus_minus(estimate_finite(mine.accuracy), 2),
                shown(row, mine.accuracy - sgd.accuracy),
                shown(row, matched),
                f"{np.isfinite(matched).sum()}/{s.seeds}",
                plus_minus(estimate_finite(mine.norm_ratio), 2),
                plus_minus(estimate_finite(mine.spikes), 1),
                mine.diverged.sum(),
            ]
            lines.append(cells)
        header = [f"from a {start}", "train loss", "test acc. %", "− SGD's"]
        header += [f"− SGD's at loss {s.matched_loss:g}", "got there"]
        header += ["‖K‖/‖K₀‖", "spikes", "diverged"]
        yield ""
        yield table(header, lines, "lrrrrrrrr")


def shown(row, gain):
    enough = row.name != "sgd" and np.isfinite(gain).sum() >= 2
    return plus_minus(estimate_finite(gain), 2, sign="+") if enough else "–"


def claims(s, runs):
    """Returns all comparisons as one family, since they are read off one table."""
    return family("the table", comparisons(s, runs))


def comparisons(s, runs):
    """Yields the claims of each init; `sgd_worst` shows the row that fits least."""

    def gain(mine, base):
        return estimate_finite(mine.accuracy - base.accuracy)

    by_init = {init: ends_of(s, runs, init) for init in INITS}
    for init, ends in by_init.items():
        sgd, cycle, adam = ends["sgd"], ends["sgd_cycle"], ends["adam"]
        adagrad, adagrad_cycle = ends["adagrad"], ends["adagrad_cycle"]
        others = [mine for mine in ends.values() if mine is not sgd]
        for name, mine in (("sgd", cycle), ("adagrad", adagrad_cycle)):
            count = estimate_finite(mine.spikes)
            yield above(f"{name}_cycle_spikes_{init}", count, 1, "spikes")
        halvings = estimate_finite(np.log2(sgd.norm_ratio / cycle.norm_ratio))
        claim = f"catapults_halve_the_kernel_{init}"
        yield above(claim, halvings, 1, "halvings of ‖K‖")
        yield above(f"catapults_raise_sgd_{init}", gain(cycle, sgd), 0, POINTS)
        claim, large = f"a_large_rate_does_as_well_{init}", ends["sgd_large"]
        yield agrees(claim, gain(cycle, large), s.bound, POINTS)
        claim = f"catapults_worsen_adagrad_{init}"
        yield above(claim, gain(adagrad, adagrad_cycle), 0, POINTS)
        yield above(f"adam_above_sgd_{init}", gain(adam, sgd), 0, POINTS)
        gains = [gain(mine, sgd) for mine in others]
        yield all_above(f"sgd_worst_{init}", gains, 0, POINTS)
        gains = [gain(adam, mine) for mine in ends.values() if mine is not adam]
        yield all_above(f"adam_best_{init}", gains, 0, POINTS)
        gains = [estimate_finite(mine.matched - sgd.matched) for mine in others]
        claim = f"no_separation_at_equal_loss_{init}"
        yield all_agree(claim, gains, s.bound, POINTS)
    random, zero = (
        ends["sgd_cycle"].accuracy - ends["sgd"].accuracy for ends in by_init.values()
    )
    claim = "sgd_gains_more_from_random_than_from_zero"
    yield above(claim, estimate_finite(random - zero), 0, POINTS)


def figure(s, runs, path):
    """Draws gains over SGD at equal steps and at equal loss, and what became of ‖K‖."""
    canvas, axes = plots.new_figure(3, width=12.0, height=4.6)
    final, matched, kernel = axes
    for number, (init, start) in enumerate(STARTS.items()):
        ends = ends_of(s, runs, init)
        sgd, others = ends["sgd"], [*ends.values()][1:]
        panels = {
            final: [mine.accuracy - sgd.accuracy for mine in others],
            matched: [mine.matched - sgd.matched for mine in others],
            kernel: [mine.norm_ratio for mine in ends.values()],
        }
        for ax, values in panels.items():
            places = np.arange(len(ends))[-len(values) :] + 0.28 * number - 0.14
            plots.points(
                ax,
                places,
                stack(estimate_finite(x) for x in values),
                label=f"from a {start}",
                colour=plots.COLOURS[5 * number],
                marker="os"[number],
                across=True,
            )
    titles = [row.title for row in rows(s)]
    for ax in axes:
        plots.name_rows(ax, titles if ax is final else [""] * len(titles))
    gain, after = "accuracy beyond SGD's (points)", f"after {s.steps} steps"
    plots.label(final, f"{gain}\n{after}")
    title = f"means over {s.seeds} seeds, 95% intervals"
    where = f"where the training loss is {s.matched_loss:g}"
    plots.label(matched, f"{gain}\n{where}", title=title)
    plots.label(kernel, f"‖K‖ over that at the start\n{after}")
    lows, highs = zip(final.get_xlim(), matched.get_xlim(), strict=True)
    for ax in (final, matched):
        ax.axvline(0, color="0.3", lw=1)
        ax.set_xlim(min(lows), max(highs))
    kernel.set_xlim(0)
    plots.shared_legend(canvas, final, "upper")
    plots.save(canvas, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"table": figure},
    task=table_runs.build_task,
    fixed_task=nets.FIXED,
)
