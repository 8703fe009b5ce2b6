"""What nets are pulsed on: functions of three directions, and digits."""

from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.catapults import full_batch, nets


class Target(NamedTuple):
    """`draw(key, config)` makes one replica's examples to train on and to judge by."""

    title: str
    outputs: int
    draw: Callable[..., tuple[Any, Any]]
    judge: Callable[..., dict[str, Any]]  # (apply, params, held-out) -> numbers
    skill: str  # the number to show besides test_error
    skill_name: str


def rank3(x):
    """x₁x₂ + x₂x₃ + x₁x₃, of variance 3 for standard normal x."""
    a, b, c = x[..., 0], x[..., 1], x[..., 2]
    return a * b + b * c + a * c


DIRECTIONS = 50


def _draw_rank3(key, config):
    import jax

    train, test = jax.random.split(key)
    inputs = (
        jax.random.normal(train, (config.train_size, DIRECTIONS)),
        jax.random.normal(test, (1000, DIRECTIONS)),
    )
    examples, held_out = ((x, rank3(x)[:, None]) for x in inputs)
    return examples, held_out


def _judge_rank3(apply, params, held_out):
    """The error in units of the target's variance; what the net's gradients see."""
    from optsde.measure import feature

    inputs, targets = held_out
    error = ((apply(params, inputs) - targets) ** 2).mean() / targets.var()
    mine = feature.agop(apply, params, inputs)
    true = feature.agop(lambda _, x: rank3(x)[:, None], (), inputs)
    return {"test_error": error, "alignment": feature.alignment(mine, true)}


def _draw_digits(key, config):
    import jax
    import jax.numpy as jnp

    inputs, targets = map(jnp.asarray, nets.centred_digits())
    known = full_batch.HELD_OUT
    chosen = jax.random.permutation(key, known)[: config.train_size]
    return (inputs[chosen], targets[chosen]), (inputs[known:], targets[known:])


def _judge_digits(apply, params, held_out):
    inputs, targets = held_out
    outputs = apply(params, inputs)
    right = outputs.argmax(-1) == targets.argmax(-1)
    error = ((outputs - targets) ** 2).sum(-1).mean()
    return {"test_error": error, "accuracy": 100 * right.mean()}


TARGETS = {
    "rank3": Target(
        "a function of three directions out of fifty",
        1,
        _draw_rank3,
        _judge_rank3,
        "alignment",
        "alignment of gradients (AGOP)",
    ),
    "digits": Target(
        "digits", 10, _draw_digits, _judge_digits, "accuracy", "held-out accuracy, %"
    ),
}
