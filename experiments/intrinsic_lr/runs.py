"""Arms side by side: every arm × seed is a replica of one compiled ensemble.

What is looked at each `every` steps: ‖w‖², loss and error on training images without
augmentation and on held-out ones. The gradient's signal and noise on the unit sphere
come from draws that the run never sees, each `weigh_every` steps, and a look has the
mean of those since the last look.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.intrinsic_lr.setting import Setting
from experiments.launch import UsageError
from experiments.rundir import RunDir
from optsde.optimizers import Optimizer
from optsde.run.loop import DivergedError

Curves = dict[str, np.ndarray]  # quantity -> [seeds, times]; NaN where not looked at
JUDGED = ("train_loss", "train_error", "test_loss", "test_error")


@dataclasses.dataclass(frozen=True)
class Arm:
    name: str
    optimizer: Optimizer
    scale: float = 1.0  # of the initial weights
    drops: tuple[tuple[int, float], ...] = ()  # (step, lr from there on)

    def at(self, step: int) -> Optimizer:
        """The optimizer of the steps from this one on."""
        lr = self.optimizer.lr
        for since, later in self.drops:
            lr = later if step >= since else lr
        return dataclasses.replace(self.optimizer, lr=lr)


def sgd(lr: float, decay: float) -> Optimizer:
    """w ← (1 − lr·decay) w − lr·g."""
    return optsde.SGD(lr=lr, weight_decay=decay)


def report(config: ConfigDict, setting: Setting, arm: Arm) -> None:
    """Print what is scale invariant at the start; refuse a net that is not, wholly."""
    import jax
    import jax.numpy as jnp

    from optsde import gradients, measure

    key = jax.random.key(config.seed)
    plan = optsde.Plan(
        optimizer=arm.optimizer, batch_size=config.batch_size, horizon=config.steps
    )
    found = measure.intrinsic_report(
        plan,
        setting.sampler,
        setting.task.init(key),
        gradients.Draw(key, jnp.int32(0)),
        draws=32,
        blocks=8,
    )
    print(f"{found}\n", flush=True)
    if others := sorted(set(found.kinds) - set(found.invariant)):
        raise UsageError(
            f"--config.model={config.model}: its {', '.join(others)} are not scale "
            "invariant; use a net whose norms have no affine part and whose last layer "
            "is fixed"
        )


def train_arms(
    config: ConfigDict,
    setting: Setting,
    rundir: RunDir,
    arms: Sequence[Arm],
    weighed: Callable[[int], bool] | None = None,
) -> dict[str, Curves]:
    """The curves of each arm, with the same seeds; read where they are finished.

    weighed: which looks have signal and noise, by `config.draws` gradients at a time;
    none has where it is None.
    """
    held = rundir.curves()
    if not all(f"{arm.name}/step" in held for arm in arms):
        rundir.add_curves(_trained(config, setting, arms, weighed))
        held = rundir.curves()
    names = ("square", *JUDGED, "signal", "noise", "step")
    return {arm.name: {n: held[f"{arm.name}/{n}"] for n in names} for arm in arms}


def _trained(config, setting: Setting, arms, weighed) -> dict[str, np.ndarray]:
    import jax
    import jax.numpy as jnp

    engine = engine_of(config, setting, arms)
    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    state = engine.init(jnp.tile(keys, len(arms)))
    judge = engine.each(judge_of(setting), (setting.task.plain, setting.clean))
    weigh = None
    if weighed:
        weigh = engine.each(_weigh(config.draws), setting.sampler(config.batch_size))
    steps = range(0, config.steps + 1, config.every)
    progress = optsde.Progress(f"{config.study:14}")
    progress.begin(0)
    rows, weights = [], {}
    for step in steps:
        row = {n: np.asarray(x) for n, x in judge(state).items()} | weights
        rows.append({n: x[: engine.replicas] for n, x in row.items()})
        if not np.isfinite(row["train_loss"]).all():
            raise DivergedError(f"before step {step}; try a smaller lr")
        progress.update(step, config.steps)
        if step == config.steps:
            break
        if any(step == since for arm in arms for since, _ in arm.drops):
            engine.set_members(members_of(arms, config.seeds, step))
        if weigh and weighed and weighed(step + config.every):
            state, weights = _advance_weighing(config, engine, state, weigh)
        else:
            state, weights = engine.advance(state, (), config.every)[0], {}
    return _by_arm(rows, arms, config.seeds) | {
        f"{arm.name}/step": np.array(steps) for arm in arms
    }


def _advance_weighing(config: ConfigDict, engine, state, weigh):
    """(state, mean signal and noise) from this look to the next."""
    seen = []
    for _ in range(0, config.every, config.weigh_every):
        state, _ = engine.advance(state, (), config.weigh_every)
        seen.append({n: np.asarray(x) for n, x in weigh(state).items()})
    return state, {n: np.mean([row[n] for row in seen], axis=0) for n in seen[0]}


def engine_of(config: ConfigDict, setting: Setting, arms: Sequence[Arm]):
    """Replicas are arms × seeds; a single arm has its data as an argument."""
    import jax

    from optsde.dynamics import Engine

    base = optsde.Plan(
        optimizer=arms[0].optimizer,
        batch_size=config.batch_size,
        horizon=config.steps,
    )

    def dynamics(member):
        optimizer, scale = member

        def start(key):
            return jax.tree.map(lambda x: scale * x, setting.task.init(key))

        own = dataclasses.replace(base, optimizer=optimizer)
        return optsde.discrete(own, setting.sampler, start)

    if len(arms) == 1 and not arms[0].drops:
        return Engine(dynamics((arms[0].optimizer, arms[0].scale)), config.seeds)
    members = members_of(arms, config.seeds, 0)
    return Engine(dynamics, len(arms) * config.seeds, members=members)


def members_of(arms: Sequence[Arm], seeds: int, step: int):
    """(optimizers, scales), stacked, as they are from this step on."""
    import jax
    import jax.numpy as jnp

    each = [(arm.at(step), arm.scale) for arm in arms]
    return jax.tree.map(lambda *x: jnp.repeat(jnp.array(x, float), seeds), *each)


def judge_of(setting: Setting):
    """(plain inputs, clean examples), state -> ‖w‖², losses and errors."""
    from optsde.run import evaluate

    task = setting.task

    def judge(shared, state):
        import optax

        plain, clean = shared
        said = {"square": optax.tree.norm(state.params, squared=True)}
        for name, examples in ("train", clean), ("test", task.test):
            found = evaluate(
                task.model,
                task.loss,
                state.params,
                plain,
                examples,
                prepare=task.prepare,
            )
            said[f"{name}_loss"] = found["loss"]
            said[f"{name}_error"] = 1 - found["accuracy"]
        return said

    return judge


def _weigh(draws: int):
    """oracle, state -> signal and noise of one batch, on the unit sphere."""
    from optsde.gradients import Draw
    from optsde.measure import gradient_noise

    def weigh(oracle, state):
        import optax

        draw = Draw(state.key, state.step)
        levels = gradient_noise(oracle, state.params, draw, draws, blocks=8).total()
        square = optax.tree.norm(state.params, squared=True)
        return {"signal": square * levels.signal, "noise": square * levels.noise}

    return weigh


def _by_arm(rows: list[Curves], arms: Sequence[Arm], seeds: int) -> Curves:
    """One array for each arm and quantity, [seeds, times]."""
    out = {}
    for number, arm in enumerate(arms):
        mine = slice(number * seeds, (number + 1) * seeds)
        nothing = np.full(seeds, np.nan)
        for name in ("square", *JUDGED, "signal", "noise"):
            seen = [row[name][mine] if name in row else nothing for row in rows]
            out[f"{arm.name}/{name}"] = np.stack(seen, axis=1)
    return out


# ---- reading curves


def effective_lr(arm: Arm, curves: Curves) -> np.ndarray:
    """gain/‖w‖² [seeds, times], at the lr of the steps that come."""
    from optsde.measure import intrinsic_rates

    gains = [float(intrinsic_rates(arm.at(step)).gain) for step in curves["step"]]
    return np.array(gains) / curves["square"]


def mean_over(curves: Curves, values, first: float, last: float = np.inf) -> np.ndarray:
    """[seeds]: the mean over the looks from step `first` to `last`, both included."""
    steps = curves["step"]
    inside = (first <= steps) & (steps <= last)
    if not inside.any():
        raise ValueError(f"no look from step {first:g} to {last:g}")
    return np.nanmean(np.asarray(values)[:, inside], axis=1)
