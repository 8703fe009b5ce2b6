"""Held-out loss of many small nets, which are one compiled ensemble.

A member is a pytree of hyperparameters. Every member has the same seeds, so that what
is compared is paired; one half of them chooses settings, the other judges the choice.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from optsde import gradients
from optsde.run import Progress, Task, fit
from optsde.study import Seeds, require, setting
from optsde.study.tasks import LabelSettings
from optsde.types import PyTree


class HeldOutSettings(LabelSettings, Seeds):
    """Settings of a study of held-out loss: digits, few, some of them wrong."""

    batch_size: int = setting(32, "examples in a step", at_least=1)
    steps: int = setting(400, "of each run", at_least=1)
    options = {"dtype": "float32", "hidden": (32,)}
    train_size = 256
    label_noise = 0.2
    statistics = 1
    seeds = 16

    def demands(self):
        yield from super().demands()
        fine = self.seeds >= 4 and self.seeds % 2 == 0
        yield fine, "seeds", "an even number from 4 on: one half chooses"


def train(
    s: HeldOutSettings,
    task: Task,
    plan_of: Callable[[PyTree], optsde.Plan],
    members: PyTree,
    draw: Callable = gradients.epochs,
) -> dict[str, np.ndarray]:
    """Returns loss and accuracy on held-out examples at the end, [members, seeds].

    Batches are drawn by `draw`, `gradients.epochs` or `gradients.minibatch`.
    """
    fine = s.batch_size <= task.size
    require(fine, "batch_size", s.batch_size, f"at most {task.size} training examples")
    sampler = draw(task.losses, task.train, augment=task.augment)

    def dynamics(member):
        return optsde.discrete(plan_of(member), sampler, task.init)

    count = len(jax.tree.leaves(members)[0])
    keys = jnp.tile(jax.random.split(jax.random.key(s.seed), s.seeds), count)
    metrics = fit(
        dynamics,
        keys,
        s.steps,
        probes=[task.evaluation(times=[s.steps])],
        members=jax.tree.map(lambda x: jnp.repeat(x, s.seeds, axis=0), members),
        stop_at_divergence=False,
        progress=Progress(f"{s.study()}, {count} × {s.seeds} runs"),
    ).metrics
    return {
        name: np.asarray(metrics[f"test_{name}"].values, float).reshape(count, s.seeds)
        for name in ("loss", "accuracy")
    }


def best(loss: np.ndarray) -> int:
    """Returns the member with the lowest mean over the first half of the seeds."""
    chosen = loss[:, : loss.shape[1] // 2].mean(axis=1)
    return int(np.argmin(np.where(np.isfinite(chosen), chosen, np.inf)))


def judged(loss: np.ndarray) -> np.ndarray:
    """Returns the other half of the seeds, which had no part in the choice."""
    return loss[:, loss.shape[1] // 2 :]
