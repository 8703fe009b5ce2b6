"""From the settings of a config to data, a model and a task, for every study alike."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from experiments.launch import UsageError, require

PUBLISHED_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet152")


def build_model(config: ConfigDict, classes: int):
    """The model; shortcuts of ResNets are pooled before their 1×1 convolution."""
    import jax.numpy as jnp

    from optsde import models

    options = dict(config.options)
    try:
        jnp.dtype(options.get("dtype") or "float32")
    except TypeError:
        allowed = "float32, bfloat16 or float16"
        raise UsageError(
            f"--config.options.dtype={options['dtype']}: needs {allowed}"
        ) from None
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
    if config.model == "transformer":
        options["context"] = config.options.length
    size = config.train_size or None
    try:
        return data.load(
            config.dataset, train_size=size, subset=config.subset, **options
        )
    except ValueError as error:
        raise UsageError(f"--config.dataset={config.dataset}: {error}") from None


def relabelled(config: ConfigDict, dataset):
    """The set, with training labels made rarer or wrong where the config asks that."""
    from optsde import data

    train = dataset.train
    for name, off in (("imbalance", 1.0), ("label_noise", 0.0)):
        labels = train[1].ndim == 1 or config[name] == off
        require(labels, config, name, f"a set of labels ({config.dataset} has none)")
    if config.imbalance < 1:
        train = data.imbalanced(train, config.imbalance)
    if config.label_noise:
        random = np.random.RandomState(config.seed)
        wrong = random.rand(len(train[1])) < config.label_noise
        other = random.randint(dataset.classes, size=len(train[1]))
        train = train[0], np.where(wrong, other, train[1]).astype(train[1].dtype)
    return dataclasses.replace(dataset, train=train)


def build_task(config: ConfigDict, dataset):
    """The data on the device as it is stored, changed and scaled inside the step."""
    import jax
    import jax.numpy as jnp

    from optsde import data, models, run

    examples, augment = dataset.train, _augmentation(dataset)
    if config.augment == "frozen":
        examples = data.frozen(examples, augment, config.copies, config.seed)
    held_out = tuple(x[: config.test_size or None] for x in dataset.test)
    if config.augment == "masked":
        held_out = data.frozen(held_out, augment, copies=1)
    plain = dataset.train[0][: config.statistics]
    held_out, plain = jax.tree.map(jnp.asarray, (held_out, plain))
    if config.get("stream", False):
        examples = data.Stream(data.Arrays(*examples))
    else:
        examples = jax.tree.map(jnp.asarray, examples)
    text = dataset.train[1].ndim == 2
    return run.Task(
        model=build_model(config, dataset.classes),
        loss=models.token_cross_entropy if text else models.cross_entropy,
        train=examples,
        test=held_out,
        plain=plain,
        prepare=dataset.normalise,
        augment=augment if config.augment in ("live", "masked") else None,
    )


def _augmentation(dataset):
    """Shifts, and mirroring where a mirrored picture means the same; masks on text."""
    from optsde import data

    name = dataset.name
    if dataset.train[1].ndim == 2:
        return data.mask_tokens()
    if name.startswith("cifar"):
        return data.compose(data.crop(4), data.flip())
    return data.crop(1 if name == "digits" else 2)
