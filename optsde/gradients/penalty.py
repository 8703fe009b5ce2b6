"""The gradient of a block, with the penalty of Geiping et al. (ICLR 2022).

The penalty ½|g_b|² of a block's gradient g_b adds H_b g_b to it, times a coefficient
that follows the learning rate: g_b + (lr_t/4)·strength·H_b g_b, as published. The
product is a finite difference along v = strength·g_b with a step that moves the
parameters by `eps`, or exact.

On a network with kinks (ReLU) the finite difference at eps = 1e-2 is *not* H_b g_b: the
Hessian almost everywhere knows nothing of the kinks, and the difference crosses some.
Take them for two different regularisers; on smooth networks they agree.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from optsde.checks import ABOVE_0, check_function, check_number
from optsde.gradients.oracle import Oracle, Sampler
from optsde.types import PyTree, Scalar

FORMS = ("forward", "central", "exact")


@dataclasses.dataclass(frozen=True)
class Penalty:
    """A penalty's strength s, the learning rate it follows, and the form of H_b g_b.

    `rate(time)` is lr_t at a time in base steps, such as `plan.rate`.

    forward: (∇L(θ + εv) − ∇L(θ))/ε with ε = eps/|v|, one more gradient, as published;
    central: two more gradients; exact: the derivative of the gradient along v.
    """

    strength: float
    rate: Callable[[Any], Scalar]
    form: str = "forward"
    eps: float = 1e-2

    def __post_init__(self):
        if self.form not in FORMS:
            raise ValueError(f"form={self.form!r} is not known; one of: {FORMS}")
        check_number("strength", self.strength, "a number ≥ 0", 0)
        check_number("eps", self.eps, "a positive length", ABOVE_0)
        check_function("rate", self.rate, "time -> lr, such as plan.rate")


def penalized(sampler: Sampler, penalty: Penalty) -> Sampler:
    """Returns the sampler with the penalty's gradient added to that of each group.

    The loss that its oracles return is that of the examples, without the penalty.
    """

    def of_group(loss, params: PyTree, time) -> tuple[jax.Array, PyTree]:
        value_and_grad = jax.value_and_grad(loss)
        value, g = value_and_grad(params)
        v = optax.tree.scale(penalty.strength, g)
        product = _along(value_and_grad, params, g, v, penalty)
        factor = penalty.rate(time) / 4
        return value, jax.tree.map(
            lambda g, h: (g + factor * h).astype(g.dtype), g, product
        )

    def with_penalty(*batch_size: int) -> Oracle:  # a full batch needs none
        return sampler(*batch_size).with_gradient(of_group)

    return with_penalty


def _along(value_and_grad, params: PyTree, g: PyTree, v: PyTree, penalty: Penalty):
    """Returns H v."""
    if penalty.form == "exact":
        return jax.jvp(lambda p: value_and_grad(p)[1], (params,), (v,))[1]
    size = optax.tree.norm(v)
    epsilon = penalty.eps / jnp.where(size > 0, size, 1)

    def moved(by):
        there = jax.tree.map(lambda p, v: (p + by * v).astype(p.dtype), params, v)
        return value_and_grad(there)[1]

    if penalty.form == "forward":
        return jax.tree.map(lambda a, b: (a - b) / epsilon, moved(epsilon), g)
    ahead, behind = moved(epsilon), moved(-epsilon)
    return jax.tree.map(lambda a, b: (a - b) / (2 * epsilon), ahead, behind)
