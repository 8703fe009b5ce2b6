"""What nets are pulsed on: a function of three directions, and images."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.catapults import nets
from optsde.measure import agop, alignment

RANK3 = "rank3"
DIRECTIONS = 50


class Target(NamedTuple):
    """A function to be learnt, and how well it is."""

    title: str
    size: float  # examples that there are to train on
    outputs: int  # of the net
    draw: Callable[..., tuple[Any, Any]]  # (key, size) -> examples, held-out ones
    evaluate: Callable[..., dict[str, Any]]  # (apply, params, held-out ones) -> numbers
    skill: str  # the number to show besides test_error
    skill_name: str


def target_of(name: str) -> Target:
    """Returns the function of three directions, or the classes of a set of images."""
    return three_directions() if name == RANK3 else classes(name)


def rank3(x):
    """Returns x₁x₂ + x₂x₃ + x₁x₃, of variance 3 for standard normal x."""
    a, b, c = x[..., 0], x[..., 1], x[..., 2]
    return a * b + b * c + a * c


def three_directions() -> Target:
    """Returns the target `rank3`, on normal inputs of fifty dimensions."""

    def draw(key, size):
        train, test = jax.random.split(key)
        inputs = (
            jax.random.normal(train, (size, DIRECTIONS)),
            jax.random.normal(test, (1000, DIRECTIONS)),
        )
        examples, held_out = ((x, rank3(x)[:, None]) for x in inputs)
        return examples, held_out

    def evaluate(apply, params, held_out):
        """The error is in units of the target's variance."""
        inputs, targets = held_out
        error = ((apply(params, inputs) - targets) ** 2).mean() / targets.var()
        mine = agop(apply, params, inputs)
        true = agop(lambda _, x: rank3(x)[:, None], (), inputs)
        return {"test_error": error, "alignment": alignment(mine, true)}

    title = "a function of three directions out of fifty"
    skill = "alignment", "alignment of gradients (AGOP)"
    return Target(title, np.inf, 1, draw, evaluate, *skill)


def classes(name: str) -> Target:
    """Returns the target of the classes of a set of images."""
    train, test = nets.images("target", name)
    count, outputs = train[1].shape

    def draw(key, size):
        chosen = jax.random.permutation(key, count)[:size]
        examples, held_out = jax.tree.map(jnp.asarray, (train, test))
        return tuple(x[chosen] for x in examples), held_out

    def evaluate(apply, params, held_out):
        inputs, targets = held_out
        outputs = apply(params, inputs)
        right = outputs.argmax(-1) == targets.argmax(-1)
        error = ((outputs - targets) ** 2).sum(-1).mean()
        return {"test_error": error, "accuracy": 100 * right.mean()}

    skill = "accuracy", "held-out accuracy, %"
    return Target(name, count, outputs, draw, evaluate, *skill)
