"""The problem that the studies share: two-layer nets in NTK form on centred images.

f(x) = V φ(W x/√d)/√m with all weights from N(0, 1) and no biases, trained on the loss
(1/n) Σ|f − y|², whose critical learning rate is n/‖K‖.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from optsde import data, models
from optsde.data.dataset import Dataset, Examples
from optsde.measure import ntk
from optsde.run import Task
from optsde.study import Seeds, UsageError, require, setting
from optsde.types import PyTree

FIXED = (
    "its critical learning rate n/‖K‖ is that of |f − y|² on a two-layer net in NTK "
    "form; give data of your own by --config.dataset"
)


class NetSettings(Seeds):
    """Settings of a study of one net, whose seeds have images of their own."""

    dataset: str = setting("digits", "name or path, see optsde.data.load")
    width: int = setting(256, "of the hidden layer", at_least=1)
    train_size: int = setting(256, "images that a seed trains on", at_least=2)
    seeds = 8


def build_task(s: NetSettings, activation: str | Callable = "relu") -> Task:
    """Returns the net of the settings on their images, with the loss |f − y|²."""
    train, test = jax.tree.map(jnp.asarray, images("dataset", s.dataset))
    model = two_layer(s.width, train[1].shape[1], activation)
    return Task(model, squared_distance, train, test, plain=train[0])


# ---- images


def load(setting: str, name: str) -> Dataset:
    """Returns a set of images, for the named setting."""
    try:
        dataset = data.load(name)
    except ValueError as error:
        says = str(error).removeprefix(f"{name}: ")
        raise UsageError(f"--config.{setting}={name}: {says}") from None
    fine = not dataset.is_text and dataset.classes is not None
    require(fine, setting, name, "images or features, with labels")
    return dataset


def images(setting: str, name: str) -> tuple[Examples, Examples]:
    """Returns the (training, held-out) examples of a set, for the named setting."""
    dataset = load(setting, name)
    known = len(dataset.train[0])
    inputs, targets = centred(dataset)
    return (inputs[:known], targets[:known]), (inputs[known:], targets[known:])


def centred(dataset: Dataset, count: int | None = None) -> Examples:
    """Returns a set's images [n, d], or its first `count`, and one-hot targets [n, c].

    One mean and one standard deviation for all pixels: to standardize each pixel would
    blow up those that hardly ever change.
    """
    pixels, labels = (
        np.concatenate(parts)[:count]
        for parts in zip(dataset.train, dataset.test, strict=True)
    )
    inputs = pixels.reshape(len(pixels), -1).astype(np.float32)
    inputs = (inputs - inputs.mean()) / inputs.std()
    return inputs, np.eye(dataset.outputs, dtype=np.float32)[labels]


# ---- nets


def two_layer(width: int, outputs: int, activation: str | Callable = "relu"):
    """Returns the net as a Linen module."""
    return models.build(
        "mlp",
        outputs,
        hidden=(width,),
        activation=activation,
        parametrization="ntk",
        use_bias=False,
    )


def apply_of(model) -> Callable:
    """Returns (params, x [n, d]) -> outputs [n, c]."""
    return lambda params, x: model.apply({"params": params}, x)


def initial(key, model, inputs, antisymmetric: bool = False) -> PyTree:
    """Returns the net's first parameters; of even width, where antisymmetric.

    Antisymmetric (Zhang et al. 2020): W = [W₁; W₁] and V = [V₁, −V₁], so that the
    function is zero, while the kernel is that of a net of half the width.
    """
    params = models.init_params(model, key, inputs[:1])
    if not antisymmetric:
        return params
    first, last = (params[name]["kernel"] for name in ("Dense_0", "Dense_1"))
    half = first.shape[1] // 2
    if 2 * half != first.shape[1]:
        raise ValueError(f"width {first.shape[1]} must be even to be antisymmetric")
    first, last = first[:, :half], last[:half]
    return {
        "Dense_0": {"kernel": jnp.concatenate([first, first], axis=1)},
        "Dense_1": {"kernel": jnp.concatenate([last, -last], axis=0)},
    }


# ---- the loss and its critical rate


def squared_distance(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns |f − y|² of each example."""
    return 2 * models.squared_error(outputs, targets)


def losses_of(model) -> Callable:
    """Returns (params, (inputs, targets)) -> |f − y|² of each example, for samplers."""
    return models.supervised(model, squared_distance)


def critical_lr(apply: ntk.Apply, params: PyTree, inputs: jax.Array):
    """Returns n/‖K‖, by power iteration."""
    value, _ = ntk.norm(apply, params, inputs, iterations=100)
    return ntk.critical_lr(value, len(inputs), loss="mean")
