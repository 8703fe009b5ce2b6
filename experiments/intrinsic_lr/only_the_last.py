"""Does it matter by which learning rates a run has come to its last one?

Runs with several drops end, after a time of a few 1/λ_e, where the run ends that had
the last lr from the start: a large lr early is only a faster way to the equilibrium.
"""

import numpy as np

from experiments.intrinsic_lr import nets
from experiments.intrinsic_lr.settings import Averaged
from optsde.analysis import above, agrees, percent_paired, plots, table
from optsde.optimizers import SGD
from optsde.run import Series
from optsde.study import Study, panels, setting

METRICS = ("effective_lr", "train_loss", "test_loss", "test_error")
WIDTH = 10  # measurements that are averaged, so that curves can be told apart


class Settings(Averaged):
    lr: float = setting(0.1, "the last one", above=0)
    middle_lr: float = setting(0.3, "between the two drops")
    large_lr: float = setting(1.0, "before the first drop")
    decay: float = setting(0.01, "weight decay", above=0)
    first_drop: int = setting(2000, "its step")
    second_drop: int = setting(4000, "its step, the only one with one drop")
    steps = 20_000
    window = 0.7
    seeds = 8

    def demands(self):
        yield from super().demands()
        yield self.at_a_measurement("first_drop")
        yield self.at_a_measurement("second_drop")
        fine = self.first_drop < self.second_drop < self.late
        yield fine, "second_drop", "a step after first_drop and before the window"
        fine = self.lr < self.middle_lr < self.large_lr
        yield fine, "middle_lr", "a number from lr to large_lr"


def arms(s):
    """The last lr from the start; one drop to it; two drops."""
    lr, middle, large = s.lr, s.middle_lr, s.large_lr
    start = SGD(lr=large, weight_decay=s.decay)
    last = {s.second_drop: {"lr": lr}}
    yield s.arm(f"lr {lr:g}", SGD(lr=lr, weight_decay=s.decay))
    yield s.arm(f"lr {large:g}, {lr:g}", start, changes=last)
    both = {s.first_drop: {"lr": middle}} | last
    yield s.arm(f"lr {large:g}, {middle:g}, {lr:g}", start, changes=both)


def simulate(s, rundir, task):
    return nets.train(s, rundir, task, arms(s))


def before(s, run):
    """Returns the train loss before the last drop [seeds]."""
    return run.train_loss.between(s.second_drop / 2, s.second_drop)


def tables(s, runs):
    rows = []
    for name, run in runs.items():
        cells = [nets.shown(s.average(run[metric]), metric) for metric in METRICS]
        rows.append([name, nets.shown(before(s, run)), *cells])
    titles = [nets.TITLES[metric] for metric in METRICS]
    header = ["arm", "train loss before the last drop", *titles]
    yield table(header, rows, "lrrrrr")


def claims(s, runs):
    plain, *dropped = runs.values()
    for run, drops in zip(dropped, ("one_drop", "two_drops"), strict=True):
        gap = percent_paired(before(s, run), before(s, plain))
        yield above(f"{drops}_differs_before", gap, 25.0, "% of loss")
        for metric, bound, unit in (
            ("train_loss", 10.0, "% of loss"),
            ("test_loss", 10.0, "% of loss"),
            ("effective_lr", 2.0, "% of effective lr"),
        ):
            change = percent_paired(s.average(run[metric]), s.average(plain[metric]))
            yield agrees(f"{drops}_same_{metric}", change, bound, unit)


def figure(s, runs, path):
    canvas, axes = plots.new_figure(2)
    runs = runs.derived(smooth_loss=lambda run: smooth(run.train_loss))
    panels.bands(axes[0], runs, "effective_lr", scale=1e3)
    panels.bands(axes[1], runs, "smooth_loss")
    for ax in axes:
        plots.plain_log_axis(ax)
        plots.spans(ax, [(s.late, s.steps)])
    plots.label(
        axes[0],
        x="step",
        y="effective learning rate × 10³",
        legend="best",
        legend_title="grey: compared",
    )
    plots.label(axes[1], x="step", y="train loss, mean of ten measurements")
    plots.save(canvas, path)


def smooth(series):
    """Returns the means of successive measurements."""
    times, values = series
    count = len(times) // WIDTH
    rows = np.vstack([times, values])[:, : count * WIDTH]
    times, *values = rows.reshape(len(rows), count, WIDTH).mean(-1)
    return Series(times, np.array(values))


study = Study(
    __name__,
    Settings,
    simulate,
    task=nets.build_task,
    by_accuracy=True,
    tables=tables,
    claims=claims,
    figures={"only_the_last": figure},
)
