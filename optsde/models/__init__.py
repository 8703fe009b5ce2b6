"""Models: Linen modules behind init/apply, and losses of each example.

Each is called as `model.apply({"params": params}, x, mask)`; `build` knows the names.
"""

from optsde.models.convnet import SCALE_INVARIANT
from optsde.models.densenet import DenseNet
from optsde.models.layers import Conv, Dense
from optsde.models.losses import (
    cross_entropy,
    init_params,
    squared_error,
    supervised,
    token_cross_entropy,
)
from optsde.models.mlp import MLP
from optsde.models.norm import BatchNorm, GroupNorm, LayerNorm
from optsde.models.normalised import NormalisedMLP
from optsde.models.registry import build
from optsde.models.resnet import PreResNet, ResNet
from optsde.models.small import DigitsNet, SmallConv
from optsde.models.transformer import Transformer
from optsde.models.vgg import VGG

__all__ = [
    "MLP",
    "SCALE_INVARIANT",
    "VGG",
    "BatchNorm",
    "Conv",
    "Dense",
    "DenseNet",
    "DigitsNet",
    "GroupNorm",
    "LayerNorm",
    "NormalisedMLP",
    "PreResNet",
    "ResNet",
    "SmallConv",
    "Transformer",
    "build",
    "cross_entropy",
    "init_params",
    "squared_error",
    "supervised",
    "token_cross_entropy",
]
