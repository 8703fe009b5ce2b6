"""How does one row of Geiping et al. train? Its losses, accuracy and sharpness."""

import numpy as np

from experiments.fullbatch import costs, recipe
from optsde.analysis import estimate_or_exact, find_spikes
from optsde.analysis import table as text_table
from optsde.analysis.plots import (
    COLOURS,
    band,
    label,
    mark_spikes,
    new_figure,
    plain_log_axis,
    save,
)
from optsde.run import Series
from optsde.study import Study


class Settings(recipe.Row, recipe.Shared):
    def table(self):
        return {"run": self}


def simulate(s, rundir, task):
    return recipe.train(s, s, task, rundir, rundir.path, "train")


def tables(s, run):
    """Ten of the rows that were evaluated; means over seeds. Groups stay out."""
    times = run.test_loss.times
    every = max(1, len(times) // 10)
    names = [name for name in run.metrics if "/" not in name]

    def cell(series: Series, time: float) -> str:
        values = series.values[:, series.times == time]
        return f"{values.mean():.4g}" if values.size else ""

    rows = [
        [f"{time:g}", *(cell(run[name], time) for name in names)]
        for time in sorted({*times[::every], times[-1]})
    ]
    yield ""
    yield text_table(["step", *names], rows, "r" * (1 + len(names)))
    yield ""


def summary(s, run):
    last = {n: np.squeeze(x.values[:, -1]).tolist() for n, x in run.metrics.items()}
    return {"last": {"step": s.steps, **last}}


def figure(s, run, path):
    sharp = [n for n in run.metrics if n.startswith("preconditioned_sharpness")]
    panels = 1 + ("test_accuracy" in run) + bool(sharp)
    drawing, (left, *right) = new_figure(panels, width=4 + 3 * panels, height=4)

    def draw(ax, name, words, colour, factor=1):
        times, values = run[name]
        values = np.where(np.isfinite(values), values, np.nan)  # at a rate of 0
        band(ax, times, estimate_or_exact(factor * values), label=words, colour=colour)

    draw(left, "loss", "training (in blocks)", COLOURS[0])
    draw(left, "test_loss", "held out", COLOURS[1])
    if "spike" in run:
        times, losses = run.loss
        for of_seed in losses:
            mark_spikes(left, find_spikes(of_seed, times), times[-1])
    plain_log_axis(left)
    label(left, x="step", y="loss", legend="best")
    if "test_accuracy" in run:
        middle, *right = right
        draw(middle, "test_accuracy", "held out", COLOURS[1], factor=100)
        label(middle, x="step", y="held-out accuracy, %")
    for name, ax in zip(sharp, right, strict=True):
        threshold = name.replace("preconditioned_sharpness", "threshold")
        draw(ax, name, "largest eigenvalue", COLOURS[0])
        draw(ax, threshold, "stability threshold", COLOURS[5])
        plain_log_axis(ax)
        label(ax, x="step", y="curvature, as the optimizer sees it", legend="best")
    save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    figures={"run": figure},
    task=recipe.build_task,
    summary=summary,
    dry_run=costs.report,
    says_costs=True,
    precision=None,
)
