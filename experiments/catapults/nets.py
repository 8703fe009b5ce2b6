"""What the studies share: two-layer nets in NTK form, the digits, critical rates.

f(x) = V φ(W x/√d)/√m with all weights from N(0, 1) and no biases, trained on the loss
(1/n) Σ|f − y|², whose critical learning rate is n/‖K‖.
"""

from collections.abc import Callable
from typing import Any

import numpy as np


def centred_digits() -> tuple[np.ndarray, np.ndarray]:
    """(inputs [1797, 64], one-hot targets [1797, 10]) of all digits."""
    return centred("digits")


def centred(name: str, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """All images of a set, or its first `count`, and their classes as one-hot rows.

    One mean and one standard deviation for all pixels: to standardize each pixel would
    blow up those that hardly ever change.
    """
    from optsde import data

    dataset = data.load(name)
    images, labels = (
        np.concatenate(parts)[:count]
        for parts in zip(dataset.train, dataset.test, strict=True)
    )
    inputs = images.reshape(len(images), -1).astype(np.float32)
    inputs = (inputs - inputs.mean()) / inputs.std()
    return inputs, np.eye(dataset.classes, dtype=np.float32)[labels]


def two_layer(width: int, outputs: int, activation: str | Callable = "relu"):
    """The net as a model, called by `model.apply({"params": params}, x)`."""
    from optsde import models

    return models.build(
        "mlp",
        outputs,
        hidden=(width,),
        activation=activation,
        parametrization="ntk",
        use_bias=False,
    )


def apply_of(model) -> Callable:
    """(params, x [n, d]) -> outputs [n, c]."""
    return lambda params, x: model.apply({"params": params}, x)


def initial(key, model, inputs, antisymmetric: bool = False) -> Any:
    """The net's first parameters; of even width, where antisymmetric.

    Antisymmetric (Zhang et al. 2020): W = [W₁; W₁] and V = [V₁, −V₁], so that the
    function is zero, while the kernel is that of a net of half the width.
    """
    import jax.numpy as jnp

    from optsde import models

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


def losses_of(model) -> Callable:
    """(params, (inputs, targets)) -> |f − y|² of each example, for oracles."""
    from optsde import models

    return models.supervised(model, lambda f, y: 2 * models.squared_error(f, y))


def critical_lr(apply: Callable, params, inputs, iterations: int = 100):
    """n/‖K‖, by power iteration."""
    from optsde.measure import ntk

    value, _ = ntk.norm(apply, params, inputs, iterations=iterations)
    return ntk.critical_lr(value, len(inputs), loss="mean")
