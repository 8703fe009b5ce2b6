"""Models by name."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from optsde.checks import check_count
from optsde.models.densenet import DenseNet
from optsde.models.mlp import MLP
from optsde.models.normalised import NormalisedMLP
from optsde.models.resnet import PreResNet, ResNet
from optsde.models.small import DigitsNet, SmallConv, TwoConv
from optsde.models.transformer import Transformer
from optsde.models.vgg import VGG


def _mlp(
    classes: int,
    hidden: Sequence[int] = (64,),
    activation: Callable = nn.relu,
    parametrization: str = "standard",
    dtype: Any = None,
    use_bias: bool = True,
) -> MLP:
    return MLP((*hidden, classes), activation, parametrization, dtype, use_bias)


def _resnet(*blocks: int, bottleneck: bool = False) -> Callable[..., ResNet]:
    return functools.partial(ResNet, blocks=blocks, bottleneck=bottleneck)


def _cifar_resnet(depth: int) -> Callable[..., ResNet]:
    blocks = ((depth - 2) // 6,) * 3
    return functools.partial(ResNet, blocks=blocks, width=16, downsample="pad")


def _preresnet(depth: int) -> Callable[..., PreResNet]:
    return functools.partial(PreResNet, blocks=((depth - 2) // 6,) * 3)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": _mlp,
    "normalised_mlp": NormalisedMLP,
    "digitsnet": DigitsNet,
    "smallconv": SmallConv,
    "twoconv": TwoConv,
    "resnet18": _resnet(2, 2, 2, 2),
    "resnet34": _resnet(3, 4, 6, 3),
    "resnet50": _resnet(3, 4, 6, 3, bottleneck=True),
    "resnet152": _resnet(3, 8, 36, 3, bottleneck=True),
    "resnet20": _cifar_resnet(20),
    "resnet32": _cifar_resnet(32),
    "resnet56": _cifar_resnet(56),
    "resnet110": _cifar_resnet(110),
    "preresnet20": _preresnet(20),
    "preresnet32": _preresnet(32),
    "preresnet56": _preresnet(56),
    "preresnet110": _preresnet(110),
    "densenet121": DenseNet,
    "vgg16": functools.partial(VGG, blocks=(2, 2, 3, 3, 3)),
    "vgg19": functools.partial(VGG, blocks=(2, 2, 4, 4, 4)),
    "transformer": Transformer,
}

ACTIVATIONS = {
    "relu": nn.relu,
    "silu": nn.silu,
    "gelu": nn.gelu,
    "softplus": nn.softplus,
    "tanh": nn.tanh,
    "identity": lambda x: x,
}


COUNTS = {"blocks", "depth", "heads", "hidden", "length", "width"}
"""Options that are numbers of something, or lists of them."""


def build(name: str, classes: int, **options) -> nn.Module:
    """A model by its name; options are the fields of its class.

    An activation may be given by name. For a transformer `classes` is the number of
    tokens.

    >>> model = build("resnet18", 10, norm="group", dtype="bfloat16")
    """
    if name not in MODELS:
        raise ValueError(f"model {name!r} is none of {', '.join(MODELS)}")
    make = MODELS[name]
    allowed = set(inspect.signature(make).parameters) - {"classes", "parent", "name"}
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise ValueError(
            f"{name} has no option {', '.join(unknown)}: "
            f"it takes {', '.join(sorted(allowed))}"
        )
    activation = options.get("activation")
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation {activation!r} is none of {', '.join(ACTIVATIONS)}"
            )
        options["activation"] = ACTIVATIONS[activation]
    check_count("classes", classes)
    for option in sorted(COUNTS & options.keys()):
        value = options[option]
        fine = np.ndim(value) <= 1 and all(_counts(x) for x in np.ravel(value))
        if not fine:
            raise ValueError(f"{option}={value!r}: needs whole numbers ≥ 1")
    return make(classes=classes, **options)


def _counts(x: Any) -> bool:
    return bool(np.issubdtype(x.dtype, np.integer) and x >= 1)
