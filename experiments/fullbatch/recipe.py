"""The recipes of Geiping et al. (ICLR 2022): settings, plan, gradients, training."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from optsde import gradients
from optsde.data.dataset import Dataset
from optsde.measure.probe import Probe, probe
from optsde.mesh import SplitRule, largest_axis
from optsde.optimizers import HeavyBall
from optsde.plans.plan import Plan
from optsde.plans.schedules import warmup_cosine
from optsde.run import Task
from optsde.study import Group, RunDir, require, setting, tasks
from optsde.study.arms import Arm
from optsde.study.arms import train as train_arms
from optsde.study.probes import ProbeSettings, build_probes, with_spikes, writer
from optsde.study.runs import ArmRuns
from optsde.study.tasks import TaskSettings

KINKS = (
    "note: on ReLU the penalty's finite difference is not the Hessian times the "
    "gradient, since it crosses kinks; --config.penalty_form=exact is"
)
OFF = "0 (off) or more"


class Row(Group):
    """Settings of a row."""

    steps: int = setting(3000, "steps of a run", at_least=1)
    batch_size: int = setting(
        0, "examples in a step", zero="the full batch", at_least=0
    )
    block: int = setting(
        128, "examples that share BatchNorm's statistics, and a penalty", at_least=1
    )
    at_once: int = setting(1, "blocks in one pass", at_least=1)
    shuffle: bool = setting(False, "blocks of a full batch drawn anew at each step")
    lr: float = setting(0.1, "largest learning rate", above=0)
    warmup: float = setting(
        0.0, "steps of the warm-up", at_least=0, at_most=1e9, needs=f"{OFF}, up to 1e9"
    )
    cosine: float = setting(
        3000.0,
        "steps from the end of warm-up until the lr would be 0",
        above=0,
        at_most=1e9,
    )
    clip: float = setting(0.0, "largest norm of the gradient", at_least=0, needs=OFF)
    penalty: float = setting(
        0.0, "strength of the penalty on a block's gradient", at_least=0, needs=OFF
    )

    def demands(self):
        yield from super().demands()
        fine = self.batch_size == 0 or not self.shuffle
        yield fine, "shuffle", "a full batch (batch_size=0)"


class Shared(TaskSettings, ProbeSettings):
    """Settings that all rows of a run have in common."""

    augment: str = setting(
        "live",
        "the data's own augmentation: in each step, or copies of it",
        one_of=("live", "none", "frozen"),
        needs="live, none or frozen",
    )
    copies: int = setting(10, "of each example, where augment is frozen", at_least=1)
    momentum: float = setting(0.9, "Nesterov's", at_least=0, below=1)
    weight_decay: float = setting(
        5e-4, "added to the gradient, on all parameters", at_least=0
    )
    penalty_form: str = setting(
        "forward", "of its Hessian times gradient", one_of=gradients.penalty.FORMS
    )
    running_mean: bool = setting(False, "the average over blocks of the published runs")
    seeds: int = setting(1, "runs of each row", at_least=1)
    log_every: int = setting(10, "steps between rows of metrics", at_least=1)
    evaluate_every: int = setting(100, "steps between evaluations", at_least=1)
    checkpoint_every: int = setting(
        100, "steps between checkpoints; 0: by the clock", at_least=0, needs=OFF
    )
    probe_every: int = setting(100, "steps between probes", at_least=1)
    stream: bool = setting(
        False, "keep the training set on the host, for one too large for a device"
    )
    sharded: bool = setting(
        False, "split parameters and optimizer over the devices that share a seed"
    )
    dataset = "cifar10"
    model = "resnet18"
    options = {"dtype": "float32"}

    def table(self) -> Mapping[str, Row]:
        """Returns the rows that are trained, by name."""
        return {}

    def demands(self):
        text = self.model == "transformer"
        yield not text or self.augment == "none", "augment", "none for text"
        yield from super().demands()
        for name in ("evaluate_every", "probe_every"):
            idle = name == "probe_every" and not self.probes
            fine = idle or getattr(self, name) % self.log_every == 0
            yield fine, name, f"a multiple of log_every={self.log_every}"
        full = any(row.batch_size == 0 for row in self.table().values())
        allowed = "rows with a batch_size above 0, not a full batch"
        yield not (self.stream and full), "stream", allowed


def build_task(s: Shared, dataset: Dataset | None = None) -> Task:
    """Returns the task of all rows."""
    task = tasks.build_task(s, dataset, copies=s.copies, stream=s.stream)
    for name, row in s.table().items():
        place = "batch_size" if row is s else f"rows.{name}.batch_size"
        allowed = f"at most the {task.size} training examples"
        require(row.batch_size <= task.size, place, row.batch_size, allowed)
    return task


def split_rule(s: Shared) -> SplitRule | None:
    """Returns how parameters are split over the devices of a seed, None: not at all."""
    return largest_axis if s.sharded else None


def build_plan(s: Shared, row: Row, size: int) -> Plan:
    """Returns the published optimizer: Nesterov, L2 on all parameters, clip before."""
    return Plan(
        optimizer=HeavyBall(
            lr=row.lr, beta=s.momentum, nesterov=True, l2=s.weight_decay
        ),
        batch_size=row.batch_size or size,
        horizon=row.steps,
        schedule=warmup_cosine(row.warmup, row.warmup + row.cosine),
        clip=row.clip or None,
    ).checked()


def build_sampler(s: Shared, row: Row, plan: Plan, task: Task) -> gradients.Sampler:
    """Returns minibatches of epochs or the full batch, in blocks, with the penalty."""
    options: dict[str, Any] = dict(
        group=row.block, at_once=row.at_once, augment=task.augment
    )
    if row.batch_size:
        sampler = gradients.epochs(task.losses, task.train, **options)
    else:
        options |= dict(shuffle=row.shuffle, running_mean=s.running_mean)
        sampler = gradients.full_batch(task.losses, task.train, **options)
    if not row.penalty:
        return sampler
    penalty = gradients.Penalty(row.penalty, plan.rate, s.penalty_form)
    return gradients.penalized(sampler, penalty)


def train(
    s: Shared, row: Row, task: Task, rundir: RunDir, folder: Path, name: str
) -> ArmRuns:
    """Trains a row, goes on with it, or reads it; returns its metrics."""
    if differences_cross_kinks(s, row, task.net.module):
        print(KINKS, file=sys.stderr)
    if row.warmup >= row.steps:
        words = f"the warm-up of {row.warmup:g} steps outlasts its {row.steps}"
        print(f"note: {name}: {words}: lr={row.lr:g} is not reached", file=sys.stderr)
    plan = build_plan(s, row, task.size)
    sampler = build_sampler(s, row, plan, task)

    def probes(arm: Arm) -> list[Probe]:
        rate = probe(lambda _, state: {"lr": jnp.asarray(plan.rate(state.time))})
        asked = build_probes(s, plan, task, sampler, row.block)
        evaluation = task.evaluation(times=s.evaluate_every)
        return [evaluation, rate, *(p.at(s.probe_every) for p in asked)]

    runs = train_arms(
        [Arm(name, plan)],
        sampler,
        task.init,
        jax.random.split(jax.random.key(s.seed), s.seeds),
        keep=rundir.once_all,
        every=s.log_every,
        probes=probes,
        folder=folder,
        checkpoint_every=s.checkpoint_every or None,
        writer=writer(s, folder / "metrics.jsonl"),
        sharded=split_rule(s),
    )
    return with_spikes(s, runs)[name]


def differences_cross_kinks(s: Shared, row: Row, model: nn.Module | None) -> bool:
    """Tells whether the penalty is a finite difference on a net that is not smooth."""
    kinked = getattr(model, "activation", None) is nn.relu
    return bool(row.penalty) and s.penalty_form != "exact" and kinked
