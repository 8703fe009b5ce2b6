"""Normalized nets on shifted images: their task, their training, and their metrics.

Images are shifted by up to a pixel, without which a small net fits them all, the noise
dies and nothing is stationary. Losses are those of images that are not shifted.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.intrinsic_lr.settings import Nets, Normalised, Trained, Weighed
from optsde import data, gradients, measure
from optsde.analysis import estimate, plus_minus
from optsde.gradients import Draw, Sampler
from optsde.measure.probe import Probe, probe
from optsde.run import Progress, Series, Task, evaluate
from optsde.study import RunDir, UsageError, require, tasks
from optsde.study.arms import Arm
from optsde.study.arms import train as train_arms
from optsde.study.runs import ArmRuns, Runs

LOSSES = ("train_loss", "train_error", "test_loss", "test_error")
TITLES = {
    "effective_lr": "10³ × effective lr",
    "train_loss": "train loss",
    "train_error": "train error %",
    "test_loss": "held-out loss",
    "test_error": "held-out error %",
}
SCALES = {"effective_lr": 1e3, "train_error": 100, "test_error": 100}


def build_task(s: Normalised) -> Task:
    """Returns the task of the settings, its inputs without their mean if so asked."""
    task = tasks.build_task(s)
    if not s.centred:
        return task
    plain = task.prepare
    middle = plain(task.plain).mean(axis=0, keepdims=True)
    return dataclasses.replace(task, prepare=lambda x: plain(x) - middle)


def examples_of(s: Normalised, task: Task):
    """Returns the examples that a run draws from."""
    examples: Any = task.train
    fine = s.augment != "edges" or examples[0].ndim == 4
    require(fine, "augment", s.augment, "none or live: the inputs are no images")
    return data.shifted(examples) if s.augment == "edges" else examples


def sampler_of(s: Normalised, task: Task) -> Sampler:
    """Returns draws with replacement; a batch is one group of BatchNorm."""
    examples = examples_of(s, task)

    def sampler(batch_size: int):
        draw = gradients.minibatch(
            task.losses, examples, group=batch_size, augment=task.augment
        )
        return draw(batch_size)

    return sampler


# ---- training


def train(
    s: Trained,
    rundir: RunDir,
    task: Task,
    arms: Iterable[Arm],
    probes: Sequence[Probe] = (),
) -> Runs:
    """Returns the runs of all arms, side by side, after a report on the first one.

    Their metrics are those of `losses_probe`, the effective lr, and those of `probes`.
    """
    arms = list(arms)
    report(s, task, arms[0])
    runs = train_arms(
        arms,
        sampler_of(s, task),
        task.init,
        s.keys(),
        keep=rundir.once_all,
        probes=[losses_probe(s, task), *probes],
        label=s.study(),
    )
    return runs.derived(effective_lr=effective_lr)


def report(s: Normalised, task: Task, arm: Arm) -> None:
    """Prints what is scale invariant at the start; refuses a net that is not wholly."""
    Progress("scale invariance at the start").say("compiling")
    key = jax.random.key(s.seed)
    found = measure.intrinsic_report(
        arm.plan,
        sampler_of(s, task),
        task.init(key),
        Draw(key, jnp.int32(0)),
        draws=32,
        blocks=8,
    )
    print(f"{found}\n", flush=True)
    if others := sorted(set(found.kinds) - set(found.invariant)):
        raise UsageError(
            f"--config.model={s.model}: its {', '.join(others)} are not scale "
            "invariant; use a net whose norms have no affine part and whose last layer "
            "is fixed"
        )


# ---- what is measured


def judged_on(s: Normalised, task: Task):
    """Returns what losses are of: plain inputs, and plain and held-out examples."""
    clean = jax.tree.map(lambda x: x[: s.judged], task.train)
    return task.plain, clean, task.test


def losses(task: Task, source, params) -> dict[str, jax.Array]:
    """Returns `LOSSES` of the examples of `judged_on`."""
    plain, *sets = source
    metrics = {}
    for name, examples in zip(("train", "test"), sets, strict=True):
        found = evaluate(
            task.model, task.loss, params, plain, examples, prepare=task.prepare
        )
        metrics[f"{name}_loss"] = found["loss"]
        metrics[f"{name}_error"] = 1 - found["accuracy"]
    return metrics


def losses_probe(s: Nets, task: Task) -> Probe:
    """Returns the probe of `losses` and of ‖w‖², as square_norm."""

    def observe(source, state):
        square = optax.tree.norm(state.params, squared=True)
        return {"square_norm": square} | losses(task, source, state.params)

    return probe(observe, judged_on(s, task), s.every)._replace(finite=True)


def noise_probe(
    s: Weighed, task: Task, arm: Arm, when: Callable[[float], bool]
) -> Probe:
    """Returns the probe of signal and noise at those steps for which `when` holds."""
    steps = range(s.weigh_every, s.steps + 1, s.weigh_every)
    return measure.sphere_noise_probe(
        arm.plan, sampler_of(s, task), s.draws, blocks=8, times=[*filter(when, steps)]
    )


def effective_lr(run: ArmRuns) -> Series:
    """Returns gain/‖w‖² [seeds, times], at the lr of the steps that come."""
    times, square = run.square_norm
    gains = [float(measure.intrinsic_rates(run.arm.at(t)).gain) for t in times]
    return Series(times, np.array(gains) / square)


def last_above(times, values, level):
    """Returns the time from which on a curve is below a level, between measurements.

    It is NaN where the curve is always below, and where it is not so at the end.

    >>> print(last_above([1, 4, 16], [1.0, 0.4, 0.0], 0.2).round(6))
    8.0
    """
    over = np.flatnonzero(np.asarray(values) >= level)
    if not len(over) or over[-1] == len(values) - 1:
        return np.float64(np.nan)
    ends = slice(over[-1], over[-1] + 2)
    # np.interp reads along what rises.
    return np.exp(np.interp(-level, np.negative(values[ends]), np.log(times[ends])))


def first_below(times, values, level):
    """Returns the time at which a curve first comes to a level from above.

    It is NaN where it never does.

    >>> print(first_below([0, 2, 4], [1.0, 0.5, 0.0], 0.25))
    3.0
    """
    under = np.flatnonzero(np.asarray(values) <= level)
    if not len(under):
        return np.float64(np.nan)
    ends = slice(max(under[0] - 1, 0), under[0] + 1)
    return np.interp(-level, np.negative(values[ends]), times[ends])


def shown(values, name: str = "") -> str:
    """Returns the mean over seeds ± its error, in the unit of `TITLES` for a metric."""
    return plus_minus(estimate(SCALES.get(name, 1) * values), beyond=2)
