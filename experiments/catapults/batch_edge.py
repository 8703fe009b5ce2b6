"""On minibatches, which sharpness rises to the threshold: the loss's, or the batch's?

The sharpness of the whole loss stays below its threshold, by the more the smaller the
batch. Andreyev and Beneventano (2024) found that what settles at 2/lr is what a step
meets in its own batch: the curvature of that batch's loss along its own gradient. Here
that is asked of SGD, and along P⁻¹g in the metric P, in which adaptive methods step.
The net, the data and the flat start are those of `edge`.
"""

import math

from experiments.catapults import edge
from optsde import measure
from optsde.analysis import above, agrees, estimate, family, plots, plus_minus, table
from optsde.gradients import minibatch
from optsde.optimizers import SGD, Optimizer, RMSprop
from optsde.plans import Plan
from optsde.run import Series, parts
from optsde.study import Arm, Integers, Runs, Study, panels, setting, train

STYLES = (
    "solid",
    "dashed",
    "dash-dotted",
    "dotted",
)  # as panels draw one optimizer after another
KINDS = {"batch": "its own batch's loss", "whole": "the whole loss"}


class Settings(edge.Settings):
    optimizers: dict[str, Optimizer] = setting(
        {
            "sgd": SGD(lr=0.3),
            "rmsprop": RMSprop(lr=1e-3, beta=0.999, eps=1e-7),
        },
        "of the arms",
    )
    batch_sizes: Integers = setting(
        (8, 32, 128), "of the arms", at_least=1, entries=1, distinct=True
    )
    draws: int = setting(64, "batches of a measurement", at_least=2)
    bound: float = setting(
        10.0, "over the last third", unit=edge.UNIT, above=0, at_most=100
    )
    below: float = setting(
        10.0,
        "of the whole loss, below the threshold",
        unit=edge.UNIT,
        above=0,
        at_most=100,
    )
    steps = 4800
    every = 120
    seeds = 4

    def demands(self):
        yield from super().demands()
        for name, optimizer in self.optimizers.items():
            threshold = optimizer.stability_threshold()
            decay = optimizer.weight_decay * optimizer.lr + optimizer.absolute_decay
            fine = threshold is None or math.isclose(
                threshold * optimizer.lr, 2 - decay
            )
            yield fine, f"optimizers.{name}.name", "one without momentum"


def named(name: str, batch_size: int) -> str:
    """Returns the name of an arm."""
    return f"{name}/{batch_size}"


def arms(s):
    for name, optimizer in s.optimizers.items():
        for size in s.batch_sizes:
            plan = Plan(optimizer=optimizer, batch_size=size, horizon=s.steps)
            yield Arm(named(name, size), plan, scale=s.init)


def simulate(s, rundir, task):
    """Returns every arm's metrics after the first step: before it there is no P."""
    sampler, runs = minibatch(task.losses, task.train, augment=task.augment), Runs({})
    for arm in parts([*arms(s)]):
        probes = [
            measure.sharpness_probe(
                arm.plan, task.losses, task.train, dimension=s.lanczos
            ),
            measure.batch_sharpness_probe(arm.plan, sampler, s.draws),
            task.evaluation(),
        ]
        runs |= train(
            [arm],
            sampler,
            task.init,
            s.keys(),
            keep=rundir.once_all,
            every=s.every,
            probes=probes,
        )
    return runs.derived(batch=of_batch, whole=edge.ratio)


def of_batch(run):
    """Returns the batch's sharpness in units of the threshold."""
    times, values = run.batch_sharpness
    return Series(times[1:], values[:, 1:] / run.threshold.values[:, 1:])


def late(s, run, kind):
    """Returns each seed's ratio to the threshold over the last third."""
    return run.metrics[kind].between(s.last_third)


def tables(s, runs):
    rows = [
        [
            name,
            f"{run.threshold.between(s.last_third).mean():.4g}",
            *(plus_minus(estimate(late(s, run, kind)), 3) for kind in KINDS),
            plus_minus(estimate(run.test_loss.values[:, -1]), 4),
        ]
        for name, run in runs.items()
    ]
    header = ["last third of the run, in thresholds", "threshold", *KINDS.values()]
    yield table([*header, "held-out loss"], rows, "lrrrr")


def claims(s, runs):
    """Does the batch's settle at the threshold, and stays the whole loss's below it?"""
    at, under = [], []
    for name, run in runs.items():
        words = name.replace("/", "_")
        away = estimate(100 * (late(s, run, "batch") - 1))
        at.append(agrees(f"{words}_batch_at_threshold", away, s.bound, edge.UNIT))
        gap = estimate(100 * (1 - late(s, run, "whole")))
        under.append(above(f"{words}_whole_below", gap, s.below, edge.UNIT))
    yield from family("at_threshold", at)
    yield from family("below", under)


def figure(s, runs, path):
    canvas, panes = plots.new_figure(2, width=10, height=4.4)
    for ax, (kind, words) in zip(panes, KINDS.items(), strict=True):
        panels.bands(ax, runs, kind, group=lambda run: f"batch {size_of(run)}")
        ax.axhline(1, color="black", ls="--", lw=1.4)
        ax.set(ylim=(0, 1.4))
        ax.set_xticks([0, s.steps // 3, 2 * s.steps // 3, s.steps])
        plots.spans(ax, [(s.last_third - 1, s.steps)])
        y = "in units of 2/lr" if kind == "batch" else ""
        x = f"step; {', '.join(map(' '.join, zip(s.optimizers, STYLES, strict=False)))}"
        plots.label(ax, x=x, y=y, title=f"curvature of {words}, bands 95%")
    plots.shared_legend(canvas, panes[0], columns=len(s.batch_sizes))
    plots.save(canvas, path)


def size_of(run):
    """Returns the batch size of an arm's runs."""
    return run.arm.plan.batch_size


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"batch_edge": figure},
    task=edge.task,
)
