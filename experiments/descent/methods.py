"""The nine methods of the pictures, each an optimizer of optsde at a function's lr."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import optsde
from experiments.descent.functions import Function


class Method(NamedTuple):
    title: str
    make: Callable[[float, float], optsde.Optimizer]  # (lr, stride), see Function


METHODS = {
    "gd": Method("Gradient descent", lambda lr, stride: optsde.SGD(lr=lr)),
    "momentum": Method(
        "Momentum", lambda lr, stride: optsde.HeavyBall(lr=lr, beta=0.9)
    ),
    "nesterov": Method(
        "Nesterov",
        lambda lr, stride: optsde.HeavyBall(lr=lr, beta=0.9, nesterov=True),
    ),
    # Its steps shrink as 1/√t, so it begins with longer ones.
    "adagrad": Method(
        "AdaGrad", lambda lr, stride: optsde.AdaGrad(lr=3 * stride, s0=0.0)
    ),
    "rmsprop": Method(
        "RMSprop", lambda lr, stride: optsde.RMSprop(lr=stride, beta=0.9)
    ),
    "adam": Method("Adam", lambda lr, stride: optsde.Adam(lr=stride, b1=0.9, b2=0.99)),
    "adamw": Method(
        "AdamW, λ = 0.3",
        lambda lr, stride: optsde.Adam(lr=stride, b1=0.9, b2=0.99, weight_decay=0.3),
    ),
    "signsgd": Method("SignSGD", lambda lr, stride: optsde.SignSGD(lr=stride)),
    "lion": Method("Lion", lambda lr, stride: optsde.Lion(lr=stride, b1=0.9, b2=0.99)),
}


def optimizers(names: Iterable[str], function: Function) -> dict[str, optsde.Optimizer]:
    """Returns the methods of these names, with the learning rates of the function."""
    return {name: METHODS[name].make(function.lr, function.stride) for name in names}


def longest_step(b1: float, b2: float) -> float:
    """Returns the supremum of Adam's |m̂|/√v̂ over all sequences of gradients.

    By Cauchy and Schwarz (1−b1)/√((1−b2)(1−b1²/b2)), which gradients that grow as
    (b2/b1)^t approach. The (1−b1)/√(1−b2) of Kingma and Ba is for a single gradient
    after zeros, and is smaller.
    """
    return (1 - b1) / ((1 - b2) * (1 - b1**2 / b2)) ** 0.5
