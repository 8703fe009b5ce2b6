"""Does a large lr early save time, on the way to the equilibrium of a small one?

Both arms end with the small lr; one begins with a hundred times as much. Either must
reach the same error: a small lr alone is as good, if it is given the time (Li, Lyu and
Arora 2020). The time is counted until the effective lr has settled, and until losses
have come down to what they are at the end. With the large lr γ = ‖w‖⁴/lr² begins its
way at about the ratio of both lr's times what it will be, and without it at what the
initial weights make it: so their norm is varied too.
"""

from functools import partial

import numpy as np

from experiments.intrinsic_lr import nets
from experiments.intrinsic_lr.only_the_last import smooth
from experiments.intrinsic_lr.settings import Averaged
from optsde.analysis import (
    above,
    agrees,
    jackknife,
    paired,
    percent_paired,
    plots,
    plus_minus,
    table,
)
from optsde.optimizers import SGD
from optsde.study import Numbers, Study, panels, setting

TIMES = {
    "effective_lr": "settles",
    "train_loss": "fits",
    "test_error": "generalizes",
}


class Settings(Averaged):
    lr: float = setting(0.01, "the last one", above=0)
    large_lr: float = setting(1.0, "before the drop")
    decay: float = setting(0.03, "weight decay", above=0)
    drop_at: int = setting(400, "step of the drop")
    scales: Numbers = setting(
        (1.0, 4.0), "of initial weights", above=0, entries=1, distinct=True
    )
    close: float = setting(
        10.0,
        "of its end, within which a metric is there",
        unit="%",
        above=0,
        at_most=100,
    )
    error_bound: float = setting(
        0.5, "between both ways", unit="points of error", above=0, at_most=100
    )
    loss_bound: float = setting(
        10.0, "between both ways", unit="% of loss", above=0, at_most=100
    )
    judged = 500
    steps = 24_000
    every = 200
    window = 0.7
    seeds = 8

    def demands(self):
        yield from super().demands()
        yield self.at_a_measurement("drop_at")
        yield self.drop_at < self.late, "drop_at", "a step before the window"
        yield self.large_lr > self.lr, "large_lr", "a number above lr"
        settled = self.large_lr * self.decay < 0.1
        yield settled, "large_lr", "times decay below 0.1"


def pairs(s):
    """Yields of each initial norm its factor, and the names of both arms."""
    for scale in s.scales:
        words = "" if scale == 1 else f", initial × {scale:g}"
        yield scale, f"lr {s.lr:g}{words}", f"lr {s.large_lr:g}, {s.lr:g}{words}"


def arms(s):
    for scale, plain, large in pairs(s):
        yield s.arm(plain, SGD(lr=s.lr, weight_decay=s.decay), scale=scale)
        start, drop = (
            SGD(lr=s.large_lr, weight_decay=s.decay),
            {s.drop_at: {"lr": s.lr}},
        )
        yield s.arm(large, start, scale=scale, changes=drop)


def simulate(s, rundir, task):
    return nets.train(s, rundir, task, arms(s))


def arrival(s, metric, level, times, values):
    """Returns when the mean of some seeds is there, in steps.

    The effective lr is there when it stays near the level, errors when they first are.
    """
    curve = 100 * (values.mean(axis=0) / level - 1)
    if metric == "effective_lr":
        return nets.last_above(times[1:], np.abs(curve[1:]), s.close)
    return nets.first_below(times, curve, s.close)


def level_of(s, runs, metric):
    """Returns what a metric is in the later part of all runs."""
    return np.mean([s.average(run[metric]).mean() for run in runs.values()])


def saved(s, runs, plain, large, metric):
    """Returns how many of the plain arm's steps the large lr saves, in percent."""
    level = level_of(s, runs, metric)
    times = runs[plain][metric].times

    when = partial(arrival, s, metric, level, times)
    both = runs[large][metric].values, runs[plain][metric].values
    return jackknife(lambda one, other: 100 * (1 - when(one) / when(other)), *both)


def tables(s, runs):
    rows = []
    for name, run in runs.items():
        cells = [name]
        for metric in TIMES:
            times, values = run[metric]
            level = level_of(s, runs, metric)
            when = partial(arrival, s, metric, level, times)
            cells.append(plus_minus(jackknife(when, values)))
        ends = (nets.shown(s.average(run[metric]), metric) for metric in nets.TITLES)
        rows.append([*cells, *ends])
    header = ["arm", *(f"steps until it {words}" for words in TIMES.values())]
    yield table([*header, *nets.TITLES.values()], rows, "l" + "r" * (len(rows[0]) - 1))


def claims(s, runs):
    for scale, plain, large in pairs(s):
        end = f"initial_{scale:g}"
        for metric, words in TIMES.items():
            gain = saved(s, runs, plain, large, metric)
            claim = f"large_lr_first_{words}_sooner_{end}"
            yield above(claim, gain, 0.0, "% of steps")
        ends = {
            metric: [s.average(runs[name][metric]) for name in (plain, large)]
            for metric in ("test_error", "test_loss")
        }
        change = paired(*ends["test_error"], scale=100)
        claim = f"small_lr_alone_same_test_error_{end}"
        yield agrees(claim, change, s.error_bound, "points")
        change = percent_paired(*ends["test_loss"])
        claim = f"small_lr_alone_same_test_loss_{end}"
        yield agrees(claim, change, s.loss_bound, "% of loss")


def figure(s, runs, path):
    canvas, axes = plots.new_figure(2)
    runs = runs.derived(smooth_loss=lambda run: smooth(run.train_loss))
    panels.bands(axes[0], runs, "effective_lr", scale=1e3)
    panels.bands(axes[1], runs, "smooth_loss")
    for ax in axes:
        plots.plain_log_axis(ax)
        plots.spans(ax, [(s.late, s.steps)])
    y = "effective learning rate × 10³"
    title = "grey: both ways compared"
    plots.label(axes[0], x="step", y=y, legend="best", legend_title=title)
    plots.label(axes[1], x="step", y="train loss, mean of ten measurements")
    plots.save(canvas, path)


study = Study(
    __name__,
    Settings,
    simulate,
    task=nets.build_task,
    by_accuracy=True,
    tables=tables,
    claims=claims,
    figures={"early": figure},
)
