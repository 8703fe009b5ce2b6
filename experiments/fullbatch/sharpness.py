"""Are the ends of small batches flatter than those of the full batch?

Keskar et al. (2017) say so of nets on images, and Jastrzębski et al. (2017) that it is
lr/batch that counts. A grid of batches and learning rates, all from the same initial
weights, is compared where each run first reaches one training loss: a loss that goes on
falling changes the curvature by itself.
"""

import itertools
from collections.abc import Iterator

import jax
import numpy as np

from experiments.fullbatch.batches import at_target, build_task, sampler_of
from optsde import measure
from optsde.analysis import (
    Estimate,
    agrees,
    below,
    estimate,
    family,
    percent_paired,
    plots,
    plus_minus,
    stack,
    table,
)
from optsde.gradients import full_batch
from optsde.optimizers import SGD
from optsde.plans import Plan
from optsde.run import Task, parts
from optsde.study import (
    Arm,
    Integers,
    Numbers,
    Seeds,
    Study,
    TaskSettings,
    UsageError,
    setting,
    train,
)

METRICS = {"sharpness": "λ_max", "test_loss": "held-out loss"}
FLATTER, BETTER = "% of the full batch's λ_max", "% of the full batch's loss"


class Settings(TaskSettings, Seeds):
    options = {"hidden": (32,), "dtype": "float32"}
    train_size = 256
    seeds = 12
    batches: Integers = setting(
        (16, 64, 256), "examples in a step", at_least=1, rising=True, entries=2
    )
    lrs: Numbers = setting(
        (0.1, 0.4), "learning rates of SGD", above=0, rising=True, entries=1
    )
    target: float = setting(0.05, "training loss at which runs are compared", above=0)
    steps: int = setting(1500, "of a run at most", at_least=2)
    per_octave: int = setting(
        4, "measurements in each doubling of the steps", at_least=1, at_most=64
    )
    bound: float = setting(
        20.0, "for equal λ_max at equal lr/batch", unit="%", above=0, at_most=100
    )

    def demands(self):
        yield from super().demands()
        yield self.augment == "none", "augment", "none: the loss must not change"

    @property
    def measured(self) -> list[float]:
        """Returns the steps at which loss and curvature are measured."""
        count = int(self.per_octave * np.log2(self.steps)) + 2
        return np.unique(np.geomspace(1, self.steps, count).round()).tolist()


def arms(s: Settings, batch: int) -> Iterator[Arm]:
    for lr in s.lrs:
        plan = Plan(optimizer=SGD(lr=lr), batch_size=batch, horizon=s.steps)
        yield Arm(named(batch, lr), plan)


def named(batch: int, lr: float) -> str:
    """Returns the name of an arm."""
    return f"batch {batch}, lr {lr:g}"


def curvature(task: Task) -> measure.Probe:
    """Returns the probe of λ_max of the training loss's Hessian."""

    def observe(examples, state):
        product = measure.hessian(full_batch(task.losses, examples)(), state.params)
        key = jax.random.key(0)
        start = measure.random_vectors(key, state.params)
        top = measure.top_eigenvalues(product, start, key)
        return {"sharpness": top.values[0]}

    return measure.probe(observe, task.train)


def simulate(s: Settings, rundir, task: Task):
    """Returns each arm's metrics where it reaches the target, [seeds]."""
    probes = [task.train_loss(), task.evaluation(), curvature(task)]
    found = {}
    for batch in parts(s.batches):
        runs = train(
            [*arms(s, batch)],
            sampler_of(task, batch),
            task.init,
            s.keys(),
            keep=rundir.once_all,
            probes=[probe.at(s.measured) for probe in probes],
            label=f"batch {batch}, {len(s.lrs)} × {s.seeds} seeds",
        )
        for name, run in runs.items():
            found[name] = compared(s, name, run)
    return found


def compared(s: Settings, name: str, run) -> dict[str, np.ndarray]:
    """Returns the metrics of an arm where it reaches the target, and the steps."""
    times, losses = run.train_loss
    each = {metric: run[metric].values for metric in METRICS}
    each["steps"] = np.broadcast_to(times, losses.shape)
    values = {n: at_target(losses, s.target, x) for n, x in each.items()}
    if not np.isfinite(values["steps"]).all():
        raise UsageError(
            f"--config.target={s.target:g}: {name} does not reach it on every seed "
            f"within {s.steps} steps; set a higher target or more steps"
        )
    return values


def tables(s: Settings, runs) -> Iterator[str]:
    rows = [
        [name, *(plus_minus(estimate(x[m])) for m in ("steps", *METRICS))]
        for name, x in runs.items()
    ]
    header = [f"where the training loss is {s.target:g}", "steps", *METRICS.values()]
    yield table(header, rows, "lrrr")


def claims(s: Settings, runs):
    *lower, full = s.batches
    flatter, better, larger, alike = [], [], [], []
    for lr in s.lrs:
        for batch in lower:
            pair = runs[named(batch, lr)], runs[named(full, lr)]
            claim = f"batch_{batch}_lr_{lr:g}"
            gap = change("sharpness", *pair)
            flatter.append(below(f"{claim}_is_flatter", gap, 0, FLATTER))
            gap = change("test_loss", *pair)
            better.append(below(f"{claim}_is_better", gap, 0, BETTER))
    for low, high in itertools.pairwise(s.lrs):
        gap = change("sharpness", runs[named(full, high)], runs[named(full, low)])
        claim = f"full_batch_lr_{high:g}_flatter_than_{low:g}"
        larger.append(below(claim, gap, 0, f"% of λ_max at lr {low:g}"))
    for (one, low), (other, high) in pairs_of_equal_ratio(s):
        gap = change("sharpness", runs[named(other, high)], runs[named(one, low)])
        claim = f"batch_{other}_lr_{high:g}_as_batch_{one}_lr_{low:g}"
        alike.append(agrees(claim, gap, s.bound, "% of the latter's λ_max"))
    yield from family("smaller batches are flatter", flatter)
    yield from family("and better held out", better)
    yield from family("a larger lr is flatter", larger)
    yield from family("equal lr/batch, equal curvature", alike)


def change(metric: str, run, reference) -> Estimate:
    """Returns by how many percent a metric differs from a reference's."""
    return percent_paired(run[metric], reference[metric])


def pairs_of_equal_ratio(s: Settings) -> Iterator[tuple]:
    """Yields ((batch, lr), (batch, lr)) of one lr/batch, the smaller batch first."""
    grid = list(itertools.product(s.batches, s.lrs))
    for one, other in itertools.combinations(grid, 2):
        if np.isclose(one[1] / one[0], other[1] / other[0]):
            yield one, other


def figure(s: Settings, runs, path) -> None:
    """Draws λ_max and held-out loss over the batch, a line for each lr."""
    drawing, axes = plots.new_figure(2, plots.HALF_SLIDE, 3.9)
    for ax, (metric, words) in zip(axes, METRICS.items(), strict=True):
        for lr, colour in plots.colours(s.lrs).items():
            values = stack(estimate(runs[named(b, lr)][metric]) for b in s.batches)
            looks = dict(label=f"lr {lr:g}", colour=colour, marker="o", ms=4)
            plots.band(ax, np.array(s.batches), values, **looks)
        ax.set_xscale("log", base=2)
        ax.set_xticks(s.batches, s.batches)
        ax.minorticks_off()
        plots.label(ax, x="batch", y=words, title=f"at a training loss of {s.target:g}")
    plots.shared_legend(drawing, axes[0], columns=len(s.lrs))
    plots.save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"sharpness": figure},
    task=build_task,
)
