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
from optsde.measure import Probe
from optsde.run import Progress, Task, fit, statistics
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
    begins = np.repeat([plan.average.start for plan in plans], s.seeds)
    steps = np.arange(begins.min(), s.steps + 1, s.every)
    result = fit(
        lambda plan: discrete(plan, sampler, start),
        jnp.tile(s.keys(), len(arms)),
        s.steps,
        probes=lambda plan: [_watch(s, task, plan.average.start, steps)],
        members=members,
        progress=Progress(f"{s.study():14}"),
    )
    state, ((anchor, total),) = result.state, result.memory
    params = state.params
    predict = jax.jit(jax.vmap(partial(_predictions, task), (None, 0)))
    last = np.asarray(predict((task.plain, task.test[0]), params))
    judge = jax.jit(jax.vmap(partial(nets.losses, task), (None, 0)))
    data = nets.judged_on(s, task)

    ends = {
        "average": plans[0].average.value(state.average),
        "two_times": _halfway(params, anchor),
        "two_runs": _halfway(params, jax.tree.map(_partners, params)),
    }
    judged = {net: judge(data, params) for net, params in ends.items()}
    series, total = {n: x.values for n, x in result.metrics.items()}, np.asarray(total)
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


def _watch(s: Trained, task: Task, begin: Any, steps: np.ndarray) -> Probe:
    """Returns the probe of the losses, and of the cosine with the weights at `begin`.

    It remembers those, and the sum of the predictions from there on.
    """

    def init(state):
        outputs = jax.eval_shape(partial(_predictions, task), examples, state.params)
        return state.params, jnp.zeros(outputs.shape, outputs.dtype)

    def observe(source, state, memory):
        judged, examples = source
        params, (anchor, total) = state.params, memory
        due = state.time == begin
        anchor = jax.tree.map(lambda x, y: jnp.where(due, x, y), params, anchor)
        seen = jnp.where(state.time >= begin, _predictions(task, examples, params), 0)
        metrics = nets.losses(task, judged, params)
        return metrics | {"aligned": _cosine(anchor, params)}, (anchor, total + seen)

    examples = task.plain, task.test[0]
    return Probe(observe, init, (nets.judged_on(s, task), examples), steps.tolist())


def _cosine(a: PyTree, b: PyTree):
    return optax.tree.vdot(a, b) / (optax.tree.norm(a) * optax.tree.norm(b))


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
