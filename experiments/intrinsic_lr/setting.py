"""The data and the net of these studies, and what their settings must satisfy."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments import tasks
from experiments.launch import require


class Setting(NamedTuple):
    task: Any  # run.Task
    clean: Any  # training examples without augmentation, to be judged on
    sampler: Any  # batch size -> oracle


def check_run(config: ConfigDict) -> None:
    """What studies that train on data have in common, as far as each has it."""
    for name in ("train_size", "test_size", "subset"):
        require(config[name] >= 0, config, name, "an integer ≥ 0")
    for name in ("batch_size", "every", "judged", "statistics"):
        fine = name not in config or config[name] >= 1
        require(fine, config, name, "an integer ≥ 1")
    require(config.seeds >= 2, config, "seeds", "at least 2, for intervals")
    choices = ("edges", "live", "none")
    require(config.augment in choices, config, "augment", f"one of {choices}")
    if "draws" in config:
        fine = config.draws >= 16 and config.draws % 8 == 0
        require(fine, config, "draws", "a multiple of 8 from 16 on")
        require(
            config.weigh_every >= 1 and config.every % config.weigh_every == 0,
            config,
            "weigh_every",
            f"a number that divides every = {config.every}",
        )
    if "window" in config:
        window = "a share of the run, from which on averages are taken, in [0, 1)"
        require(0 <= config.window < 1, config, "window", window)
    check_multiple(config, "steps")
    if "hidden" in config.options:
        widths = tuple(config.options.hidden)
        fine = len(widths) > 0 and min(widths) >= 1
        require(fine, config.options, "hidden", "one or more widths", "options.")
    tasks.build_model(config, 10)


def check_multiple(config: ConfigDict, *names: str) -> None:
    """Times at which something changes are times at which the run is looked at."""
    for name in names:
        require(
            config[name] >= config.every and config[name] % config.every == 0,
            config,
            name,
            f"a multiple of every = {config.every}",
        )


def check_arms(config: ConfigDict, *names: str) -> None:
    """Settings that are lists, an entry for each arm."""
    for name in names:
        require(len(config[name]) >= 1, config, name, "at least one number")
        require(
            len(config[name]) == len(config[names[0]]),
            config,
            name,
            f"as many numbers as {names[0]} has, {len(config[names[0]])}",
        )
        require(min(config[name]) > 0, config, name, "positive numbers")


def build(config: ConfigDict) -> Setting:
    """The task that the config describes."""
    import jax
    import jax.numpy as jnp

    from optsde import gradients

    dataset = tasks.load(config)
    clean = tuple(part[: config.judged] for part in dataset.train)
    if config.augment == "edges":
        dataset = dataclasses.replace(dataset, train=shifted(dataset.train))
    task = tasks.build_task(config, dataset)
    if config.centred:
        middle = task.prepare(task.plain).mean(axis=0)
        task = dataclasses.replace(task, prepare=partial(_centre, task.prepare, middle))

    def sampler(batch_size: int):
        """Draws with replacement; a batch is one group of BatchNorm."""
        return gradients.minibatch(
            task.losses, task.train, batch_size, group=batch_size, augment=task.augment
        )

    return Setting(task, jax.tree.map(jnp.asarray, clean), sampler)


def _centre(prepare, middle, x):
    """The inputs without the mean image, as BatchNorm on them would make them."""
    x = prepare(x)
    return x - middle.reshape(1, *middle.shape)


def shifted(examples):
    """Each image at the nine shifts by up to a pixel, edges repeated; unshifted first.

    A draw from them is a draw of an image and a shift.
    """
    images, labels = examples
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    corners = sorted(((i, j) for i in range(3) for j in range(3)), key=(1, 1).__ne__)
    copies = [padded[:, i : i + height, j : j + width] for i, j in corners]
    return np.concatenate(copies), np.tile(labels, 9)
