"""The run behind the study of averages: what is kept of its last 10/λ_e."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.intrinsic_lr import runs
from experiments.intrinsic_lr.runs import JUDGED, Arm, Curves
from experiments.intrinsic_lr.setting import Setting


def begin_of(config: ConfigDict, arm: Arm) -> int:
    """The step of the look at which this arm's averages begin."""
    length = config.memories / (arm.optimizer.lr * arm.optimizer.weight_decay)
    return config.steps - round(length / config.every) * config.every


def measured(config: ConfigDict, setting: Setting, arms: list[Arm]) -> Curves:
    """NAME/quantity: averages over the last memories/λ_e of the run, and its end.

    What compares two runs has an entry for each pair of them, the rest for each run.
    """
    import jax
    import jax.numpy as jnp

    engine = _engine(config, setting, arms)
    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    state = engine.init(jnp.tile(keys, len(arms)))
    shared = setting.task.plain, setting.clean
    judge = engine.each(runs.judge_of(setting), shared)
    predict = engine.each(_predictions(setting), (shared[0], setting.task.test[0]))
    turned, renew = engine.each(_cosine), engine.each(_where)
    begins = np.repeat([begin_of(config, arm) for arm in arms], config.seeds)
    due = engine.spread(jnp.array(begins))
    anchor = state.params  # where each replica's averages begin
    looks, sums, last = [], np.zeros(()), np.zeros(0)
    progress = optsde.Progress(f"{config.study:14}")
    progress.begin(0)
    for step in range(0, config.steps + 1, config.every):
        anchor = renew(due == step, state.params, anchor)
        if step >= begins.min():
            row = judge(state) | {"turned": turned(anchor, state.params)}
            looks.append({n: np.asarray(x)[: len(begins)] for n, x in row.items()})
            last = np.asarray(predict(state))[: len(begins)]
            sums = sums + last * (begins <= step).reshape(-1, 1, 1)
        progress.update(step, config.steps)
        if step < config.steps:
            state, _ = engine.advance(state, (), config.every)

    nets = {
        "average": optsde.SWA(0, 1).value(state.average),
        "two_times": _halfway(state.params, anchor),
        "two_runs": _halfway(state.params, _partners(state.params, len(begins))),
    }
    judged = {name: judge(state._replace(params=net)) for name, net in nets.items()}
    steps = np.arange(begins.min(), config.steps + 1, config.every)
    out = {}
    for number, arm in enumerate(arms):
        mine = slice(number * config.seeds, (number + 1) * config.seeds)
        inside = steps >= begin_of(config, arm)
        series = {n: np.stack([row[n][mine] for row in looks], 1) for n in looks[0]}
        for name in JUDGED:
            out[f"{arm.name}/single/{name}"] = series[name][:, inside].mean(axis=1)
            for net, row in judged.items():
                once = 2 if net == "two_runs" else 1
                out[f"{arm.name}/{net}/{name}"] = np.asarray(row[name])[mine][::once]
        out[f"{arm.name}/turned"] = series["turned"][:, inside]
        out[f"{arm.name}/time"] = steps[inside] - begin_of(config, arm)
        out[f"{arm.name}/apart_averaged"] = _apart(sums[mine] / inside.sum())
        out[f"{arm.name}/apart_single"] = _apart(last[mine])
    return out


def _engine(config: ConfigDict, setting: Setting, arms: list[Arm]):
    """Replicas are arms × seeds, all from one initial point."""
    import jax
    import jax.numpy as jnp

    from optsde.dynamics import Engine

    start = setting.task.init(jax.random.key(config.seed))
    base = optsde.Plan(
        optimizer=arms[0].optimizer, batch_size=config.batch_size, horizon=config.steps
    )

    def dynamics(member):
        optimizer, average = member
        plan = dataclasses.replace(base, optimizer=optimizer, average=average)
        return optsde.discrete(plan, setting.sampler, start)

    each = [
        (arm.optimizer, optsde.SWA(start=begin_of(config, arm), every=config.every))
        for arm in arms
    ]
    members = jax.tree.map(
        lambda *x: jnp.repeat(jnp.array(x, float), config.seeds), *each
    )
    return Engine(dynamics, len(arms) * config.seeds, members=members)


def _predictions(setting: Setting):
    """(plain inputs, held-out inputs), state -> probabilities [examples, classes]."""
    import jax

    from optsde.run.evaluation import statistics

    task = setting.task

    def predict(shared, state):
        plain, inputs = shared
        seen = statistics(task.model, state.params, plain, 512, task.prepare)
        variables = {"params": state.params} | ({"statistics": seen} if seen else {})
        return jax.nn.softmax(task.model.apply(variables, task.prepare(inputs)))

    return predict


def _cosine(a, b):
    import optax

    return optax.tree.vdot(a, b) / (optax.tree.norm(a) * optax.tree.norm(b))


def _where(due, new, old):
    import jax
    import jax.numpy as jnp

    return jax.tree.map(lambda x, y: jnp.where(due, x, y), new, old)


def _halfway(a, b):
    """Leaf by leaf and replica by replica, the mean of the two directions."""
    import jax
    import jax.numpy as jnp

    def unit(x):
        axes = tuple(range(1, x.ndim))
        return x / jnp.sqrt(jnp.sum(x**2, axes, keepdims=True))

    return jax.tree.map(lambda x, y: unit(x) + unit(y), a, b)


def _partners(params, replicas: int):
    """Each replica's parameters replaced by those of the other one of its pair.

    Pairs are 0 and 1, 2 and 3, …: no run is in two of them, so they are independent.
    """
    import jax

    def swap(x):
        host = np.array(x)
        host[:replicas] = host[np.arange(replicas) ^ 1]
        return jax.device_put(host, x.sharding)

    return jax.tree.map(swap, params)


def _apart(predictions: np.ndarray) -> np.ndarray:
    """[pairs]: mean total variation between the predictions of two runs."""
    return 0.5 * np.abs(predictions[::2] - predictions[1::2]).sum(-1).mean(-1)
