"""From settings to data, a model and a task, for every study alike."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from optsde import data, models
from optsde.data.augment import Augment
from optsde.data.dataset import Dataset
from optsde.run import Task
from optsde.study.settings import Seeded, seed_setting, setting
from optsde.study.shapes import UsageError, require

PUBLISHED_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet152")
OF_FEATURES = ("mlp", "normalised_mlp")  # nets that need no images
DTYPES = ("float32", "bfloat16", "float16")


class TaskSettings(Seeded):
    """Settings of a study that trains a net on data."""

    dataset: str = setting("digits", "name or path of the data, see optsde.data.load")
    model: str = setting("mlp", "name of the net, see optsde.models.build")
    options: dict = setting({}, "of the net, see optsde.models.build")
    train_size: int = setting(0, "training examples; 0: all that there are", at_least=0)
    subset: int = seed_setting(0, "which training examples, if not all")
    test_size: int = setting(0, "held-out examples; 0: all", at_least=0)
    augment: str = setting(
        "none",
        "the data's own augmentation in each step; masked tokens, of text",
        one_of=("none", "live", "masked"),
    )
    statistics: int = setting(
        10_000, "training examples that BatchNorm's statistics are of", at_least=1
    )

    def demands(self):
        yield from super().demands()
        text = self.model == "transformer"
        fine = self.augment != ("live" if text else "masked")
        yield fine, "augment", "none, or live for images, masked for text"
        build_model(self, 10)

    def load(self) -> Dataset:
        """Returns the data set, with all its training examples or `train_size`."""
        options = {}
        if self.model == "transformer":
            options["context"] = build_model(self, 10).length
        size = self.train_size or None
        try:
            return data.load(
                self.dataset, train_size=size, subset=self.subset, **options
            )
        except ValueError as error:
            says = str(error).removeprefix(f"{self.dataset}: ")
            raise UsageError(f"--config.dataset={self.dataset}: {says}") from None


class LabelSettings(TaskSettings):
    """Settings of a study whose training labels may be made rarer or wrong."""

    imbalance: float = setting(
        1.0,
        "the rarest class's share of what the commonest has",
        above=0,
        at_most=1,
        needs="a share in (0, 1]",
    )
    label_noise: float = setting(
        0.0,
        "share of training labels that are random",
        at_least=0,
        below=1,
        needs="a share in [0, 1)",
    )

    def load(self) -> Dataset:
        dataset = super().load()
        train = dataset.train
        for name, off in (("imbalance", 1.0), ("label_noise", 0.0)):
            fine = train[1].ndim == 1 or getattr(self, name) == off
            allowed = f"a set of labels ({self.dataset} has none)"
            require(fine, name, getattr(self, name), allowed)
        if self.imbalance < 1:
            train = data.imbalanced(train, self.imbalance)
        if self.label_noise:
            random = np.random.RandomState(self.seed)
            wrong = random.rand(len(train[1])) < self.label_noise
            other = random.randint(dataset.outputs, size=len(train[1]))
            train = train[0], np.where(wrong, other, train[1]).astype(train[1].dtype)
        return dataclasses.replace(dataset, train=train)


def build_model(s: TaskSettings, outputs: int):
    """Returns the net; shortcuts of ResNets are pooled before their 1×1 convolution."""
    options = dict(s.options)
    dtype = options.get("dtype") or "float32"
    require(dtype in DTYPES, "options.dtype", dtype, f"one of {', '.join(DTYPES)}")
    if s.model in PUBLISHED_RESNETS:
        options.setdefault("downsample", "avgpool")
    try:
        return models.build(s.model, outputs, **options)
    except (ValueError, TypeError) as error:
        raise UsageError(f"--config.model={s.model}: {error}") from None


def build_task(
    s: TaskSettings,
    dataset: Dataset | None = None,
    *,
    copies: int = 1,
    stream: bool = False,
) -> Task:
    """Returns the task; data is stored as it comes and scaled inside the step.

    Args:
      dataset: in place of `s.load()`.
      copies: of each example, where `s.augment` is "frozen".
      stream: keep the training set on the host.
    """
    dataset = s.load() if dataset is None else dataset
    fine = s.augment == "none" or dataset.is_text or dataset.is_images
    require(fine, "augment", s.augment, f"none: {s.dataset} has rows of features")
    fine = not dataset.is_text or s.model == "transformer"
    require(fine, "model", s.model, f"transformer: {s.dataset} is text")
    fine = dataset.is_text or dataset.is_images or s.model in OF_FEATURES
    allowed = f"{' or '.join(OF_FEATURES)}: {s.dataset} has rows of features"
    require(fine, "model", s.model, allowed)
    examples, augment = dataset.train, augmentation(dataset)
    if s.augment == "frozen":
        examples = data.frozen(examples, augment, copies, s.seed)
    inputs, targets = dataset.test
    allowed = f"at most the {len(inputs)} held-out examples of {s.dataset}"
    require(s.test_size <= len(inputs), "test_size", s.test_size, allowed)
    test = inputs[: s.test_size or None], targets[: s.test_size or None]
    if s.augment == "masked":
        test = data.frozen(test, augment, copies=1)
    plain = dataset.train[0][: s.statistics]
    test, plain = jax.tree.map(jnp.asarray, (test, plain))
    if stream:
        examples = data.Stream(data.Arrays(*examples))
    else:
        examples = jax.tree.map(jnp.asarray, examples)
    model = build_model(s, dataset.outputs)
    try:  # without computing anything: widths and heads that do not fit
        task = Task(
            model=model,
            loss=loss_of(dataset),
            train=examples,
            test=test,
            plain=plain,
            prepare=dataset.normalise,
            augment=augment if s.augment in ("live", "masked") else None,
        )
        params = jax.eval_shape(lambda: task.init(jax.random.key(0)))
        if not all(x.size for x in jax.tree.leaves(params)):
            raise ValueError("a layer of width 0")
    except (FlaxError, ValueError, TypeError, ZeroDivisionError) as error:
        raise UsageError(f"--config.options: {s.model}: {error}") from None
    return task


def task_of(dataset: Dataset, model: Any, augment: Augment | None = None) -> Task:
    """Returns the task of a net on a data set, with the loss that suits its targets.

    Args:
      model: from inputs as `dataset.normalise` gives them to `dataset.outputs` numbers.
      augment: of training examples, such as `data.flip()`.
    """
    train, test = jax.tree.map(jnp.asarray, (dataset.train, dataset.test))
    return Task(
        model=model,
        loss=loss_of(dataset),
        train=train,
        test=test,
        plain=train[0][:10_000],
        prepare=dataset.normalise,
        augment=augment,
    )


def loss_of(dataset: Dataset) -> models.losses.Loss:
    """Returns cross entropy of labels or tokens, else half the squared error."""
    if dataset.is_text:
        return models.token_cross_entropy
    return models.squared_error if dataset.classes is None else models.cross_entropy


def augmentation(dataset: Dataset) -> Callable:
    """Returns shifts, with mirroring of CIFAR's photographs; masks, on text."""
    if dataset.is_text:
        return data.mask_tokens()
    if dataset.name.startswith("cifar"):
        return data.compose(data.crop(4), data.flip())
    return data.crop(1 if dataset.name in ("digits", "all_digits") else 2)
