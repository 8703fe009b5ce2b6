"""Optimizers as torch, optax and Hugging Face name and parametrize them, read as ours.

Frameworks give one name to different updates: torch's Adam(weight_decay) is `l2` here,
its SGD(momentum) is `HeavyBall`, optax's rmsprop has its ε inside the root. There is a
function for each of their optimizers, with their arguments and defaults, which returns
ours.
"""

import dataclasses
import inspect
from collections.abc import Callable

from optsde.optimizers import (
    REGISTRY,
    SGD,
    AdaGrad,
    Adam,
    HeavyBall,
    Lion,
    Momentum,
    Optimizer,
    RMSprop,
    SignSGD,
)


def _sgd(lr=0.1, momentum=0.0, nesterov=False, **decays: float) -> Optimizer:
    if momentum:
        return HeavyBall(lr=lr, beta=momentum, nesterov=nesterov, **decays)
    if nesterov:
        raise ValueError("nesterov=True with momentum=0: give it a momentum")
    return SGD(lr=lr, **decays)


def _own_sgd(
    lr=0.1,
    momentum=0.0,
    nesterov=False,
    l2=0.0,
    weight_decay=0.0,
    absolute_decay=0.0,
):
    decays = dict(l2=l2, weight_decay=weight_decay, absolute_decay=absolute_decay)
    return _sgd(lr, momentum, nesterov, **decays)


def _torch_sgd(lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    if not dampening:
        return _sgd(lr, momentum, nesterov, l2=weight_decay)
    if dampening != momentum or nesterov:
        raise ValueError(
            f"dampening={dampening:g} with momentum={momentum:g}: a rule is known for "
            "dampening=0, and for dampening=momentum without nesterov"
        )
    return Momentum(lr=lr, beta=momentum, l2=weight_decay)


def _torch_adam(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    b1, b2 = betas
    return Adam(lr=lr, b1=b1, b2=b2, eps=eps, l2=weight_decay)


def _torch_adamw(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
    b1, b2 = betas
    return Adam(lr=lr, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)


def _torch_rmsprop(lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0):
    return RMSprop(lr=lr, beta=alpha, eps=eps, l2=weight_decay, bias_correction=False)


def _torch_adagrad(lr=1e-2, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10):
    return AdaGrad(lr=lr, s0=initial_accumulator_value, eps=eps, l2=weight_decay)


def _optax_sgd(learning_rate=0.1, momentum=0.0, nesterov=False):
    return _sgd(learning_rate, momentum, nesterov)


def _optax_adamw(
    learning_rate=1e-3, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, weight_decay=1e-4
):
    return Adam(
        lr=learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
        weight_decay=weight_decay,
    )


def _optax_adam(learning_rate=1e-3, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0):
    return _optax_adamw(learning_rate, b1, b2, eps, eps_root, weight_decay=0.0)


def _optax_rmsprop(
    learning_rate=1e-3,
    decay=0.9,
    eps=1e-8,
    initial_scale=0.0,
    eps_in_sqrt=True,
    bias_correction=False,
):
    return RMSprop(
        lr=learning_rate,
        beta=decay,
        eps=0.0 if eps_in_sqrt else eps,
        eps_root=eps if eps_in_sqrt else 0.0,
        v0=initial_scale,
        bias_correction=bias_correction,
    )


def _optax_adagrad(learning_rate=1e-2, initial_accumulator_value=0.1, eps=1e-7):
    return AdaGrad(
        lr=learning_rate, s0=initial_accumulator_value, eps=0.0, eps_root=eps
    )


def _optax_lion(learning_rate=1e-4, b1=0.9, b2=0.99, weight_decay=1e-3):
    return Lion(lr=learning_rate, b1=b1, b2=b2, weight_decay=weight_decay)


def _optax_sign_sgd(learning_rate=1e-3):
    return SignSGD(lr=learning_rate)


def _hf_adamw(
    learning_rate=5e-5,
    adam_beta1=0.9,
    adam_beta2=0.999,
    adam_epsilon=1e-8,
    weight_decay=0.0,
):
    return _torch_adamw(
        learning_rate, (adam_beta1, adam_beta2), adam_epsilon, weight_decay
    )


_THEIRS: dict[str, dict[str, Callable[..., Optimizer]]] = {
    "torch": {
        "adam": _torch_adam,
        "adamw": _torch_adamw,
        "sgd": _torch_sgd,
        "rmsprop": _torch_rmsprop,
        "adagrad": _torch_adagrad,
    },
    "optax": {
        "adam": _optax_adam,
        "adamw": _optax_adamw,
        "sgd": _optax_sgd,
        "rmsprop": _optax_rmsprop,
        "adagrad": _optax_adagrad,
        "lion": _optax_lion,
        "sign_sgd": _optax_sign_sgd,
    },
    "hf": {"adamw": _hf_adamw, "adamw_torch": _hf_adamw},
}

FRAMEWORKS = ("optsde", *_THEIRS)
"""Whose words can be read; "hf" is Hugging Face's `TrainingArguments`."""


def readings(framework: str) -> dict[str, Callable[..., Optimizer]]:
    """Returns functions from a framework's settings to our optimizers, by its names.

    >>> readings("torch")["sgd"](lr=0.1, momentum=0.9) == HeavyBall(lr=0.1, beta=0.9)
    True
    """
    if framework in _THEIRS:
        return _THEIRS[framework]
    return {**REGISTRY, "adamw": Adam, "sgd": _own_sgd}


def example(family: type[Optimizer]) -> Optimizer:
    """Returns an optimizer of a family, at 0.5 where it has no defaults."""
    needed = (
        field.name
        for field in dataclasses.fields(family)
        if field.default is dataclasses.MISSING
    )
    return family(**dict.fromkeys(needed, 0.5))


def called(family: type[Optimizer]) -> list[str]:
    """Returns what frameworks call a family.

    >>> called(HeavyBall)
    ['torch sgd with momentum', 'optax sgd with momentum']
    """
    names = []
    for framework, known in _THEIRS.items():
        for name, reading in known.items():
            if type(reading()) is family:
                names.append(f"{framework} {name}")
            if "momentum" in inspect.signature(reading).parameters:
                with_momentum = type(reading(momentum=0.9))
                if with_momentum is family:
                    names.append(f"{framework} {name} with momentum")
    return names
