"""From a config of experiments.fullbatch to a task, a plan and its gradients."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from ml_collections import ConfigDict

import optsde
from experiments import probes
from experiments.launch import require
from experiments.tasks import build_model
from optsde.plans.schedules import warmup_cosine


@dataclasses.dataclass(frozen=True)
class Run:
    """One row, ready to be made an engine."""

    plan: optsde.Plan
    task: Any  # optsde.run.Task
    sampler: Callable
    dynamics: Any  # optsde.dynamics.Dynamics


def check(config: ConfigDict) -> None:
    """Refuse settings that cannot be run, before anything is compiled or written."""
    for name in ("seeds", "log_every", "evaluate_every", "copies", "statistics"):
        require(config[name] >= 1, config, name, "an integer ≥ 1")
    require(config.train_size >= 0, config, "train_size", "an integer ≥ 0 (0: all)")
    for name in ("checkpoint_every", "test_size"):
        require(config[name] >= 0, config, name, "0 or more")
    require(
        config.augment in ("live", "none", "frozen"),
        config,
        "augment",
        "live, none or frozen",
    )
    require(
        config.dataset != "text" or config.augment == "none",
        config,
        "augment",
        "none for text",
    )
    require(
        config.evaluate_every % config.log_every == 0,
        config,
        "evaluate_every",
        f"a multiple of log_every={config.log_every}",
    )
    forms = ("forward", "central", "exact")
    require(
        config.penalty_form in forms,
        config,
        "penalty_form",
        f"one of {', '.join(forms)}",
    )
    probes.check(config)
    known = {"tensorboard", "wandb"}
    require(set(config.writers) <= known, config, "writers", "tensorboard, wandb")
    if "rows" in config:
        require(config.seeds >= 2, config, "seeds", "at least 2, for standard errors")
    for name, row in rows_of(config).items():
        prefix = f"rows.{name}." if "rows" in config else ""
        _check_row(row, prefix)
        fine = row.batch_size > 0 or not row.stream
        require(fine, row, "stream", "a batch_size above 0, not a full batch", prefix)
    build_model(config, 10)


def _check_row(row: ConfigDict, prefix: str) -> None:
    for name in ("steps", "block", "at_once"):
        require(row[name] >= 1, row, name, "an integer ≥ 1", prefix)
    for name in ("batch_size", "warmup", "clip", "penalty"):
        require(row[name] >= 0, row, name, "0 (off) or more", prefix)
    for name in ("lr", "cosine"):
        require(row[name] > 0, row, name, "a positive number", prefix)
    fine = row.batch_size == 0 or not row.shuffle
    require(fine, row, "shuffle", "a full batch (batch_size=0)", prefix)


def rows_of(config: ConfigDict) -> dict[str, ConfigDict]:
    """Every row with all its settings; a preset of one row has one."""
    if "rows" not in config:
        return {"run": config}
    shared = {k: v for k, v in config.items() if k != "rows"}
    return {name: ConfigDict(shared | dict(row)) for name, row in config.rows.items()}


def differences_cross_kinks(config: ConfigDict, model) -> bool:
    """Whether the penalty is a finite difference on a network that is not smooth."""
    import flax.linen as nn

    kinked = getattr(model, "activation", None) is nn.relu
    return bool(config.penalty) and config.penalty_form != "exact" and kinked


def build_plan(config: ConfigDict, size: int) -> optsde.Plan:
    """The published optimizer: Nesterov, L2 on all parameters, clip before both."""
    return optsde.Plan(
        optimizer=optsde.HeavyBall(
            lr=config.lr, beta=config.momentum, nesterov=True, l2=config.weight_decay
        ),
        batch_size=config.batch_size or size,
        horizon=config.steps,
        schedule=warmup_cosine(config.warmup, config.warmup + config.cosine),
        clip=config.clip or None,
    ).checked()


def build_run(config: ConfigDict, task) -> Run:
    from optsde import gradients

    size = task.size
    plan = build_plan(config, size)
    penalty = None
    if config.penalty:
        penalty = gradients.Penalty(config.penalty, plan.rate, config.penalty_form)
    options: dict[str, Any] = dict(
        group=config.block,
        at_once=config.at_once,
        augment=task.augment,
        penalty=penalty,
    )
    if config.batch_size:
        sampler: Callable = partial(
            gradients.epochs, task.losses, task.train, **options
        )
    else:
        options |= dict(shuffle=config.shuffle, running_mean=config.running_mean)
        sampler = lambda batch: gradients.full_batch(  # noqa: E731
            task.losses, task.train, **options
        )
    return Run(plan, task, sampler, optsde.discrete(plan, sampler, task.init))
