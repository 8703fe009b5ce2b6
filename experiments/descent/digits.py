"""Many small nets on digits in one compiled ensemble: what the two studies of it share.

A member is a pytree of hyperparameters. Every member has the same seeds, so that what
is compared is paired; one half of them chooses settings, the other judges the choice.
"""

from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments import tasks
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.types import PyTree


def check(config: ConfigDict) -> None:
    for name in ("batch_size", "steps", "train_size"):
        require(config[name] >= 1, config, name, "an integer ≥ 1")
    fits = config.batch_size <= config.train_size
    require(fits, config, "batch_size", f"at most train_size={config.train_size}")
    require(0 <= config.label_noise < 1, config, "label_noise", "a share in [0, 1)")
    fine = config.seeds >= 4 and config.seeds % 2 == 0
    require(fine, config, "seeds", "an even number from 4 on: one half chooses")
    tasks.build_model(config, 10)


def build_task(config: ConfigDict):
    return tasks.build_task(config, tasks.relabelled(config, tasks.load(config)))


def held_out(
    config: ConfigDict, task, plan_of: Callable[[PyTree], optsde.Plan], members: PyTree
) -> dict[str, np.ndarray]:
    """Loss and accuracy on held-out images after the last step, [members, seeds]."""
    import jax
    import jax.numpy as jnp

    from optsde import gradients

    def sampler(batch_size: int):
        return gradients.epochs(task.losses, task.train, batch_size)

    def dynamics(member):
        return optsde.discrete(plan_of(member), sampler, task.init)

    def judge(state):
        prepare = task.prepare
        return run.evaluate(
            task.model, task.loss, state.params, task.plain, task.test, prepare=prepare
        )

    count = len(jax.tree.leaves(members)[0])
    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    each = jnp.tile(jnp.arange(config.seeds), count)
    stacked = jax.tree.map(lambda x: jnp.repeat(x, config.seeds, axis=0), members)
    out = optsde.ensemble(
        dynamics, keys[each], [float(config.steps)], judge, members=stacked
    )
    return {
        name: np.asarray(x, np.float64).reshape(count, config.seeds)
        for name, x in out.values.items()
    }


def finished(
    rundir: RunDir, part: str, train: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """What `train()` gives; read from curves.npz where an earlier run has left it."""
    prefix = f"{part}_"
    held = {
        name.removeprefix(prefix): x
        for name, x in rundir.curves().items()
        if name.startswith(prefix)
    }
    if held:
        print(f"{part}: read from {rundir.path}")
        return held
    found = train()
    rundir.add_curves({prefix + name: x for name, x in found.items()})
    return found


def best(loss: np.ndarray) -> int:
    """The member with the lowest mean over the first half of the seeds."""
    chosen = loss[:, : loss.shape[1] // 2].mean(axis=1)
    return int(np.argmin(np.where(np.isfinite(chosen), chosen, np.inf)))


def judged(loss: np.ndarray) -> np.ndarray:
    """The other half of the seeds, which had no part in the choice."""
    return loss[:, loss.shape[1] // 2 :]
