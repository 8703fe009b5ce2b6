"""From a config of experiments.fullbatch to a task, a plan and its gradients."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from ml_collections import ConfigDict

import optsde
from experiments.launch import UsageError
from optsde.schedules import warmup_cosine

PUBLISHED_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet152")


@dataclasses.dataclass(frozen=True)
class Run:
    """One row, ready to be made an engine."""

    plan: optsde.Plan
    task: Any  # optsde.train.Task
    dynamics: Any  # optsde.dynamics.Dynamics


def check(config: ConfigDict) -> None:
    """Refuse settings that cannot be run, before anything is compiled or written."""
    for name in ("seeds", "log_every", "evaluate_every", "copies", "statistics"):
        _require(config[name] >= 1, config, name, "an integer ≥ 1")
    _require(config.train_size >= 0, config, "train_size", "an integer ≥ 0 (0: all)")
    for name in ("checkpoint_every", "test_size"):
        _require(config[name] >= 0, config, name, "0 or more")
    _require(
        config.augment in ("live", "none", "frozen"),
        config,
        "augment",
        "live, none or frozen",
    )
    _require(
        config.dataset != "text" or config.augment == "none",
        config,
        "augment",
        "none for text",
    )
    _require(
        config.evaluate_every % config.log_every == 0,
        config,
        "evaluate_every",
        f"a multiple of log_every={config.log_every}",
    )
    forms = ("forward", "central", "exact")
    _require(
        config.penalty_form in forms,
        config,
        "penalty_form",
        f"one of {', '.join(forms)}",
    )
    known = {"tensorboard", "wandb"}
    _require(set(config.writers) <= known, config, "writers", "tensorboard, wandb")
    if "rows" in config:
        _require(config.seeds >= 2, config, "seeds", "at least 2, for standard errors")
    for name, row in rows_of(config).items():
        prefix = f"rows.{name}." if "rows" in config else ""
        _check_row(row, prefix)
        fine = row.batch_size > 0 or not row.stream
        _require(fine, row, "stream", "a batch_size above 0, not a full batch", prefix)
    build_model(config, 10)


def _check_row(row: ConfigDict, prefix: str) -> None:
    for name in ("steps", "block", "at_once"):
        _require(row[name] >= 1, row, name, "an integer ≥ 1", prefix)
    for name in ("batch_size", "warmup", "clip", "penalty"):
        _require(row[name] >= 0, row, name, "0 (off) or more", prefix)
    for name in ("lr", "cosine"):
        _require(row[name] > 0, row, name, "a positive number", prefix)
    fine = row.batch_size == 0 or not row.shuffle
    _require(fine, row, "shuffle", "a full batch (batch_size=0)", prefix)


def _require(holds: bool, config, name: str, allowed: str, prefix: str = "") -> None:
    if not holds:
        raise UsageError(f"--config.{prefix}{name}={config[name]}: needs {allowed}")


def rows_of(config: ConfigDict) -> dict[str, ConfigDict]:
    """Every row with all its settings; a preset of one row has one."""
    if "rows" not in config:
        return {"run": config}
    shared = {k: v for k, v in config.items() if k != "rows"}
    return {name: ConfigDict(shared | dict(row)) for name, row in config.rows.items()}


def build_model(config: ConfigDict, classes: int):
    """The model; shortcuts of ResNets are pooled before their 1×1 convolution."""
    from optsde import models

    options = dict(config.options)
    if config.model in PUBLISHED_RESNETS:
        options.setdefault("downsample", "avgpool")
    try:
        return models.build(config.model, classes, **options)
    except (ValueError, TypeError) as error:
        raise UsageError(f"--config.model={config.model}: {error}") from None


def load(config: ConfigDict):
    """The data set of the config."""
    from optsde import data

    options = {}
    if config.dataset == "text":
        options["context"] = config.options.length
    size = config.train_size or None
    try:
        return data.load(
            config.dataset, train_size=size, subset=config.subset, **options
        )
    except ValueError as error:
        raise UsageError(f"--config.dataset={config.dataset}: {error}") from None


def build_task(config: ConfigDict, dataset):
    """The data on the device as it is stored, changed and scaled inside the step."""
    import jax
    import jax.numpy as jnp

    from optsde import data, models, train

    examples, augment = dataset.train, _augmentation(dataset.name)
    if config.augment == "frozen":
        examples = data.frozen(examples, augment, config.copies, config.seed)
    held_out = tuple(x[: config.test_size or None] for x in dataset.test)
    plain = dataset.train[0][: config.statistics]
    held_out, plain = jax.tree.map(jnp.asarray, (held_out, plain))
    if config.stream:
        examples = data.Stream(data.Arrays(*examples))
    else:
        examples = jax.tree.map(jnp.asarray, examples)
    text = dataset.train[1].ndim == 2
    return train.Task(
        model=build_model(config, dataset.classes),
        loss=models.token_cross_entropy if text else models.cross_entropy,
        train=examples,
        test=held_out,
        plain=plain,
        prepare=dataset.normalise,
        augment=augment if config.augment == "live" else None,
    )


def _augmentation(name: str):
    """Shifts, and mirroring where a mirrored picture means the same."""
    from optsde import data

    if name.startswith("cifar"):
        return data.compose(data.crop(4), data.flip())
    return data.crop(1 if name == "digits" else 2)


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
    return Run(plan, task, optsde.discrete(plan, sampler, task.init))
