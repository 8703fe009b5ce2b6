"""Do wide nets end at one loss, wherever they start?

Choromanska et al. (2015) train nets of one hidden layer from many starts, and see the
spread of their test losses fall with the width: bad ends are those of small nets. They
explain it by the critical points of spin glasses, and find besides that training and
test loss of the ends have less and less to do with each other. A start has its own
order of batches too, here as there.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from optsde import schedules
from optsde.analysis import (
    Estimate,
    Verdict,
    below,
    family,
    jackknife,
    plots,
    plus_minus,
    table,
)
from optsde.gradients import epochs
from optsde.optimizers import SGD, Optimizer
from optsde.plans import Plan
from optsde.run import Task, parts
from optsde.study import (
    Arm,
    Integers,
    RunDir,
    Seeds,
    Study,
    TaskSettings,
    build_task,
    require,
    setting,
    train,
)
from optsde.study.tasks import OF_FEATURES

LOSSES = {"test_loss": "held-out loss", "train_loss": "training loss"}
Ends = dict[str, np.ndarray]  # by loss, [seeds, widths]


class Settings(TaskSettings, Seeds):
    options = {"dtype": "float32"}
    train_size = 512
    seeds = 64
    widths: Integers = setting(
        (8, 16, 32, 64, 128, 256),
        "of the hidden layer",
        at_least=1,
        rising=True,
        entries=3,
    )
    optimizer: Optimizer = setting(SGD(lr=0.2), "at every width; its lr falls to 0")
    batch_size: int = setting(32, "examples in a step", at_least=1)
    steps: int = setting(1600, "of each run", at_least=1)

    def demands(self):
        yield from super().demands()
        yield self.seeds >= 4, "seeds", "at least 4, for the error of a spread"
        fine = self.model in OF_FEATURES
        yield fine, "model", f"one with a hidden layer: {' or '.join(OF_FEATURES)}"
        yield "hidden" not in self.options, "options.hidden", "none: it is in widths"

    def of_width(self, width: int) -> "Settings":
        """Returns the settings of a net of this width."""
        return dataclasses.replace(self, options=dict(self.options, hidden=(width,)))


def build_tasks(s: Settings) -> dict[int, Task]:
    """Returns the task of each width, on the same data."""
    dataset = s.load()
    return {width: build_task(s.of_width(width), dataset) for width in s.widths}


def simulate(s: Settings, rundir: RunDir, tasks: dict[int, Task]) -> Ends:
    """Returns the losses at the end."""
    size = tasks[s.widths[0]].size
    allowed = f"at most the {size} training examples"
    require(s.batch_size <= size, "batch_size", s.batch_size, allowed)
    plan = Plan(
        optimizer=s.optimizer,
        batch_size=s.batch_size,
        horizon=s.steps,
        schedule=schedules.linear(s.steps),
    )
    ends: dict[str, list[np.ndarray]] = {loss: [] for loss in LOSSES}
    for width, task in parts(tasks.items()):
        arm = Arm(f"width {width}", plan)
        runs = train(
            [arm],
            epochs(task.losses, task.train, augment=task.augment),
            task.init,
            s.keys(),
            keep=rundir.once_all,
            probes=[task.evaluation(times=[s.steps]), task.train_loss(times=[s.steps])],
            label=f"width {width}, {s.seeds} starts",
        )
        for loss, found in ends.items():
            found.append(runs[arm.name][loss].last)
    return {loss: np.stack(found, axis=1) for loss, found in ends.items()}


# ---- what they say


def spread(losses: np.ndarray) -> np.ndarray:
    """Returns the standard deviation over starts, [widths]."""
    return losses.std(axis=0, ddof=1)


def relative(losses: np.ndarray) -> np.ndarray:
    """Returns the standard deviation in units of the mean, [widths]."""
    return spread(losses) / losses.mean(axis=0)


def correlation(test: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Returns Pearson's correlation over starts, [widths]."""
    apart = [x - x.mean(axis=0) for x in (test, training)]
    return np.mean(apart[0] * apart[1], axis=0) / (apart[0].std(0) * apart[1].std(0))


def power(widths, statistic, *losses: np.ndarray) -> Estimate:
    """Returns p in statistic ∝ width^p, by least squares of the logs."""

    def slope(*losses):
        return np.polyfit(np.log(widths), np.log(statistic(*losses)), 1)[0]

    return jackknife(slope, *losses)


def claims(s: Settings, runs: Ends) -> Iterator[Verdict]:
    test, training = (runs[loss] for loss in LOSSES)

    def per_octave(*losses):
        z = np.arctanh(correlation(*losses))
        return np.polyfit(np.log2(s.widths), z, 1)[0]

    unit, half = "power of the width", len(s.widths) // 2
    apart = jackknife(per_octave, test, training)
    mean = power(s.widths, partial(np.mean, axis=0), test)
    figures = [
        below("test_spread_falls", power(s.widths, spread, test), 0, unit),
        below("test_mean_falls", mean, 0, unit),
        below("test_and_training_part", apart, 0, "Fisher's z, each octave"),
    ]
    yield from family("what the source shows", figures)
    late = power(s.widths[half:], spread, test[:, half:])
    share = power(s.widths, relative, test)
    yield below("test_spread_still_falls_when_wide", late, 0, unit)
    yield below("test_spread_falls_faster_than_its_mean", share, 0, unit)
    yield below("training_spread_falls", power(s.widths, spread, training), 0, unit)
    share = power(s.widths, relative, training)
    yield below("training_spread_falls_faster_than_its_mean", share, 0, unit)


def tables(s: Settings, runs: Ends) -> Iterator[str]:
    test, training = (runs[loss] for loss in LOSSES)
    columns = [
        [plus_minus(x) for x in jackknife(statistic, *losses).each()]
        for statistic, losses in (
            (partial(np.mean, axis=0), [test]),
            (spread, [test]),
            (relative, [test]),
            (partial(np.mean, axis=0), [training]),
            (spread, [training]),
            (relative, [training]),
            (correlation, [test, training]),
        )
    ]
    rows = [list(row) for row in zip(s.widths, *columns, strict=True)]
    header = ["width", "held-out loss", "its SD", "SD/mean"]
    header += ["training loss", "its SD", "SD/mean", "correlation of the two"]
    yield table(header, rows, "r" * len(header))


def figure(s: Settings, runs: Ends, path: Path) -> None:
    """Draws the held-out loss of each start, and both losses' spread over the width."""
    drawing, (left, right) = plots.new_figure(2, plots.HALF_SLIDE, 4.2)
    widths, test = np.array(s.widths), runs["test_loss"]
    beside = 1.15 ** np.linspace(-1, 1, len(test))
    for width, losses in zip(widths, test.T, strict=True):
        ends = np.random.RandomState(0).permutation(losses)
        left.plot(width * beside, ends, ".", color=plots.COLOURS[0], ms=3)
    for (loss, words), colour in zip(LOSSES.items(), plots.COLOURS, strict=False):
        x = jackknife(spread, runs[loss])
        plots.points(right, widths, x, colour=colour, label=words, ls="-", ms=4)
        x = jackknife(relative, runs[loss])
        looks = dict(ls=":", ms=4, mfc="white")
        plots.points(right, widths, x, colour=colour, label="SD/mean", **looks)
    for ax in (left, right):
        ax.set_xscale("log", base=2)
        ax.set_xticks(widths, widths)
        ax.minorticks_off()
    plots.plain_log_axis(left)
    right.set_yscale("log")
    title = f"{s.seeds} starts at each width"
    plots.label(left, x="width", y="held-out loss at the end", title=title)
    plots.label(right, x="width", y="standard deviation", title="Their spread")
    plots.shared_legend(drawing, right, columns=4)
    plots.save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"starts": figure},
    task=build_tasks,
    fixed_task="its nets are one for each width",
)
