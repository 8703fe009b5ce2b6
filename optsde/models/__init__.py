"""Models: nets as pure functions, Linen modules of our own, losses of each example.

`build` knows our own by name. Nets of other libraries come as a `Net`, which
`from_linen`, `from_nnx` and `from_equinox` make of a module.
"""

from optsde.models.adapters import from_equinox, from_linen, from_nnx, net_of
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
from optsde.models.net import Net
from optsde.models.norm import BatchNorm, GroupNorm, LayerNorm
from optsde.models.normalised import NormalisedMLP
from optsde.models.registry import build
from optsde.models.resnet import PreResNet, ResNet
from optsde.models.small import DigitsNet, SmallConv, TwoConv
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
    "Net",
    "NormalisedMLP",
    "PreResNet",
    "ResNet",
    "SmallConv",
    "Transformer",
    "TwoConv",
    "build",
    "cross_entropy",
    "from_equinox",
    "from_linen",
    "from_nnx",
    "init_params",
    "net_of",
    "squared_error",
    "supervised",
    "token_cross_entropy",
]
