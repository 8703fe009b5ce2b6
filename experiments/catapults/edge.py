"""Does a full-batch run train itself to the edge of its own stability?

Gradient descent makes the loss sharper as it goes, until the largest eigenvalue of the
Hessian meets the curvature at which the step is unstable, and there it stays (Cohen et
al. 2021). For preconditioned methods the same is said of P^-½ H P^-½ (Cohen et al.
2022). Each optimizer trains the same net from initial weights small enough to be flat.
"""

import dataclasses

import jax

from optsde import measure, models
from optsde.analysis import above, agrees, estimate, plots, plus_minus, table
from optsde.gradients import full_batch
from optsde.optimizers import SGD, Adam, HeavyBall, Optimizer, RMSprop
from optsde.plans import Plan
from optsde.run import Series, parts
from optsde.study import (
    Arm,
    Integers,
    Runs,
    Seeds,
    Study,
    TaskSettings,
    build_task,
    panels,
    setting,
    train,
)

TITLES = {
    "gd": "gradient descent",
    "momentum": "heavy-ball momentum",
    "rmsprop": "RMSprop",
    "adam": "Adam",
}
UNIT = "% of the threshold"


class Settings(TaskSettings, Seeds):
    dataset = "all_digits"
    train_size = 512
    options = {"activation": "tanh"}
    hidden: Integers = setting(
        (48, 48), "widths of the hidden layers, of an mlp", at_least=1, entries=1
    )
    init: float = setting(
        0.5, "factor of He's initial weights, so that the run begins flat", above=0
    )
    optimizers: dict[str, Optimizer] = setting(
        {
            "gd": SGD(lr=0.12),
            "momentum": HeavyBall(lr=0.2, beta=0.9),
            "rmsprop": RMSprop(lr=3e-4, beta=0.999, eps=1e-7),
            "adam": Adam(lr=1e-3, b1=0.9, b2=0.999, eps=1e-7),
        },
        "of the arms",
    )
    steps: int = setting(2400, "of a run", at_least=1)
    every: int = setting(20, "steps between measurements", at_least=1)
    lanczos: int = setting(12, "products before a restart", at_least=2)
    bound: float = setting(5.0, "over the last third", unit=UNIT, above=0, at_most=100)
    rise: float = setting(30.0, "from the first measurement on", unit=UNIT, at_least=0)
    seeds = 6

    def demands(self):
        yield from super().demands()
        yield self.steps % self.every == 0, "every", f"a divisor of steps={self.steps}"
        yield self.steps >= 3 * self.every, "steps", "at least 3 measurements"
        yield self.augment == "none", "augment", "none: the loss must not change"
        for name, optimizer in self.optimizers.items():
            fine = optimizer.stability_threshold() is not None
            allowed = "one with a stability threshold; sign methods and Lion have none"
            yield fine, f"optimizers.{name}.name", allowed

    @property
    def last_third(self):
        """The first step of the last third."""
        return 2 * self.steps // 3 + 1


def arms(s, task):
    for name in sorted(s.optimizers, key=[*TITLES, *s.optimizers].index):
        optimizer = s.optimizers[name]
        plan = Plan(optimizer=optimizer, batch_size=task.size, horizon=s.steps)
        yield Arm(name, plan, scale=s.init)


def task(s):
    """Returns the task of the settings with the loss ½|f − y|², y one-hot."""
    options = {"hidden": s.hidden, **s.options} if s.model == "mlp" else s.options
    task = build_task(dataclasses.replace(s, options=options))
    if task.loss is models.squared_error:  # of numbers to be predicted
        return task
    return dataclasses.replace(task, loss=squared_error)


def squared_error(outputs, labels):
    targets = jax.nn.one_hot(labels, outputs.shape[-1])
    return models.squared_error(outputs, targets)


def simulate(s, rundir, task):
    """Returns every arm's metrics after the first step: before it there is no P."""
    sampler = full_batch(task.losses, task.train, None, augment=task.augment)
    seeds, runs = jax.random.split(jax.random.key(s.seed), s.seeds), Runs({})
    for arm in parts([*arms(s, task)]):
        sharpness = measure.sharpness_probe(
            arm.plan, task.losses, task.train, dimension=s.lanczos
        )
        runs |= train(
            [arm],
            sampler,
            task.init,
            seeds,
            keep=rundir.once_all,
            every=s.every,
            probes=[sharpness],
            folder=rundir.path / "arms" / arm.name,
            checkpoint_every=s.every * max(1, s.steps // s.every // 4),
        )
    return runs.derived(ratio=ratio)


def ratio(run):
    """Returns the (preconditioned) sharpness in units of its threshold."""
    times, values = run.preconditioned_sharpness
    return Series(times[1:], values[:, 1:] / run.threshold.values[:, 1:])


def tables(s, runs):
    rows = []
    for name, run in runs.items():
        first, late = (s.every, s.every), (s.last_third,)
        cells = [
            f"{run.threshold.between(*late).mean():.4g}",
            plus_minus(estimate(run.ratio.between(*late)), 3),
            plus_minus(estimate(run.sharpness.between(*first)), 1),
            plus_minus(estimate(run.sharpness.between(*late)), 1),
            f"{run.sharpness_residual.values[:, 1:].max():.1g}",
            plus_minus(estimate(run.loss.values[:, -1]), 4),
        ]
        rows.append([TITLES.get(name, name), *cells])
    header = ["last third of the run", "threshold", "sharpness/threshold"]
    header += ["λmax(H) at first", "and late", "largest residual", "final loss"]
    yield ""
    yield table(header, rows, "lrrrrrr")


def claims(s, runs):
    """Does it rise, and is it then where it is said to be?"""
    for name, run in runs.items():
        end, start = run.ratio.between(s.last_third), run.ratio.values[:, 0]
        away, rise = estimate(100 * (end - 1)), estimate(100 * (end - start))
        yield agrees(f"{name}_stays_at_threshold", away, s.bound, UNIT)
        yield above(f"{name}_rises_to_it", rise, s.rise, UNIT)


def figure(s, runs, path):
    canvas, (left, middle, right) = plots.new_figure(3, width=12, height=4.4)

    def title(run):
        return TITLES.get(run.arm.name, run.arm.name)

    panels.bands(left, runs, "ratio", group=title)
    panels.bands(middle, runs, "sharpness", group=title)
    panels.bands(right, runs, "loss", group=title)
    left.axhline(1, color="black", ls="--", lw=1.4, label="stability threshold")
    left.set(ylim=(0, 1.25))
    plots.spans(left, [(s.last_third - 1, s.steps)])
    y, words = (
        "in units of its stability threshold",
        "sharpness that the optimizer sees",
    )
    plots.label(left, x="step", y=y, title=words, legend="lower right")
    middle.set(ylim=(0, None))
    y = "largest eigenvalue of the Hessian"
    plots.label(middle, x="step", y=y, title="sharpness of the loss")
    plots.plain_log_axis(right)
    words = f"95% bands over {s.seeds} seeds"
    plots.label(right, x="step", y="training loss", title=words)
    for ax in (left, middle, right):
        ax.set_xticks([0, s.steps // 3, 2 * s.steps // 3, s.steps])
    plots.save(canvas, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"edge": figure},
    task=task,
)
