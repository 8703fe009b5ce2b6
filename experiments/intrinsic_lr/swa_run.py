"""The run behind the study of averages: what is kept of its last 10/λ_e."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.intrinsic_lr import nets
from experiments.intrinsic_lr.nets import LOSSES
from experiments.intrinsic_lr.settings import Trained
from optsde.dynamics import discrete
from optsde.run import Progress, Run, Task, statistics
from optsde.study.arms import Arm
from optsde.types import PyTree


def averages(s: Trained, task: Task, arms: list[Arm]) -> dict[str, dict]:
    """Returns of each arm averages over the time of its SWA, and the nets at its end.

    All runs begin at one point. What compares two of them has an entry for each pair,
    0 and 1, 2 and 3, …, so that the pairs are independent; the rest one for each run.
    """
    plans: list[Any] = [arm.plan for arm in arms]
    members = jax.tree.map(lambda *x: jnp.repeat(jnp.array(x, float), s.seeds), *plans)
    start, sampler = task.init(jax.random.key(s.seed)), nets.sampler_of(s, task)
    keys = jnp.tile(s.keys(), len(arms))
    run = Run(lambda plan: discrete(plan, sampler, start), keys, members=members)
    judge = jax.jit(jax.vmap(partial(nets.losses, task), (None, 0)))
    predict = jax.jit(jax.vmap(partial(_predictions, task), (None, 0)))
    data = nets.judged_on(s, task)

    begins = np.repeat([plan.average.start for plan in plans], s.seeds)
    steps = np.arange(begins.min(), s.steps + 1, s.every)
    rows, total = [], np.zeros(())
    anchor = jax.tree.map(jnp.copy, run.state.params)  # where the averages begin
    progress = Progress(f"{s.study():14}")
    progress.begin(0)
    for step in steps.tolist():
        state = run.to(step).state
        params = state.params
        anchor = _where(begins == step, params, anchor)
        rows.append(judge(data, params) | {"aligned": _cosines(anchor, params)})
        last = np.asarray(predict((task.plain, task.test[0]), params))
        total = total + last * (begins <= step).reshape(-1, 1, 1)
        progress.update(step, s.steps)

    ends = {
        "average": plans[0].average.value(state.average),
        "two_times": _halfway(params, anchor),
        "two_runs": _halfway(params, jax.tree.map(_partners, params)),
    }
    judged = {net: judge(data, params) for net, params in ends.items()}
    series = {n: np.stack([np.asarray(row[n]) for row in rows], 1) for n in rows[0]}
    out = {}
    for number, (arm, plan) in enumerate(zip(arms, plans, strict=True)):
        mine = slice(number * s.seeds, (number + 1) * s.seeds)
        begin = plan.average.start
        inside = steps >= begin
        out[arm.name] = {
            "aligned": series["aligned"][mine][:, inside],
            "time": steps[inside] - begin,
            "apart_averaged": _apart(total[mine] / inside.sum()),
            "apart_single": _apart(last[mine]),
        }
        for metric in LOSSES:
            single = series[metric][mine][:, inside].mean(axis=1)
            out[arm.name][f"single_{metric}"] = single
            for net, metrics in judged.items():
                once = 2 if net == "two_runs" else 1
                ended = np.asarray(metrics[metric])[mine][::once]
                out[arm.name][f"{net}_{metric}"] = ended
    return out


def _predictions(task: Task, source, params: PyTree) -> jax.Array:
    """Returns the probabilities of held-out examples [examples, classes]."""
    plain, inputs = source
    found = statistics(task.model, params, plain, 512, task.prepare)
    return jax.nn.softmax(task.net.evaluated(params, task.prepare(inputs), found))


@jax.jit
@jax.vmap
def _cosines(a: PyTree, b: PyTree):
    return optax.tree.vdot(a, b) / (optax.tree.norm(a) * optax.tree.norm(b))


@jax.jit
@jax.vmap
def _where(due: jax.Array, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: jnp.where(due, x, y), new, old)


def _halfway(a: PyTree, b: PyTree) -> PyTree:
    """Returns the mean of two directions, leaf by leaf and replica by replica."""

    def unit(x):
        axes = tuple(range(1, x.ndim))
        return x / jnp.sqrt(jnp.sum(x**2, axes, keepdims=True))

    return jax.tree.map(lambda x, y: unit(x) + unit(y), a, b)


def _partners(x: jax.Array) -> jax.Array:
    """Returns the replicas with the two of each pair in each other's place."""
    return x[np.arange(len(x)) ^ 1]


def _apart(predictions: np.ndarray) -> np.ndarray:
    """Returns the mean total variation between the predictions of each pair."""
    return 0.5 * np.abs(predictions[::2] - predictions[1::2]).sum(-1).mean(-1)
