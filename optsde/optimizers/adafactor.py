"""Adafactor: RMSprop whose v is kept by rows and columns."""

import dataclasses
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optsde.checks import ABOVE_0, check_number
from optsde.optimizers.base import Optimizer, ema, register
from optsde.optimizers.ito import Limit
from optsde.optimizers.moments import debias_or, second_moment, square
from optsde.optimizers.rules import Power
from optsde.types import PyTree, Scalar

GROWTH = 0.8
"""The power of the step with which the memory of v grows; its rule has 1 − .8."""

SMALLEST = 1e-3
"""A parameter whose root mean square is below this moves as if it were this."""


class AdafactorState(NamedTuple):
    rows: PyTree  # like params, with one entry along the longest axis
    columns: PyTree  # like params, with one entry along the second longest, if any
    weight: jax.Array  # scalar, of v's average
    steps: jax.Array  # scalar; how many were taken


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Adafactor(Optimizer):
    """Adafactor, without the clip of its steps (Shazeer and Stern 2018, 1804.04235).

    In step k, with 1 − b2 = min(1, pace·k^−0.8) for r and c,

        r ← b2 r + (1−b2)·(mean of g² + eps over the longest axis),
        c ← b2 c + (1−b2)·(mean of g² + eps over the second longest axis),
        v̂ = r c/(γ·mean r),   θ ← θ − lr·max(.001, rms θ)·g/√v̂,

    so that v̂ of a matrix has its row and column means and one entry is their product;
    of a vector v̂ = v/γ. γ is the weight of the average, 1 at the published pace of 1.
    Where not `relative`, steps are not multiplied by rms θ. It is `optax.adafactor`
    with `clipping_threshold=None` and `min_dim_size_to_factor=1`. The paper's clip of a
    step, its momentum, and its lr that falls as 1/√k are left out: a plan has
    schedules, and docs/theory.md has the rules of the other two.

    Rule: lr·√κ; and pace·κ^0.2, since 1 − b2 must grow by κ while k falls by it. A
    memory of k^0.8 steps grows more slowly than the run, and at pace = 1 it would be
    κ^0.2 times too long in samples: 1.7 times at κ = 16. Relative steps are the same
    at any batch. SDE: dθ = −lr·max(.001, rms θ)·v̂^−½(∇f dt + Σ^½ dW),
    dr = pace·t^−0.8·(row means of diag Σ + eps − r) dt, and dc alike.

    Its P has no one memory, so that stability threshold and prediction refuse.

    >>> transform = Adafactor(lr=0.1).transform()
    >>> params, grads = 2 * jnp.ones((2, 2)), jnp.array([[1.0, -2.0], [3.0, 6.0]])
    >>> updates, state = transform.update(grads, transform.init(params), params)
    >>> print(params + updates)  # g² has the rank 1, and all steps are 10%
    [[1.8 2.2]
     [1.8 1.8]]
    """

    lr: Scalar = 1e-2
    pace: Scalar = 1.0
    eps: Scalar = 1e-30
    relative: bool = True
    rule = {
        "lr": Power(0.5, "√v shrinks by √κ, which lengthens the step by √κ already"),
        "pace": Power(0.2, "1 − b2 = pace·k^−0.8 is to grow by κ where k falls by κ"),
        "eps": Power(-1, "ε is added to g² of a batch κ times larger"),
    }
    state_rule = {"rows": -1, "columns": -1}

    def checked(self) -> Self:
        check_number("pace", self.pace, "a positive number", ABOVE_0)
        return super().checked()

    def _sized(self, u, x):
        if not self.relative:
            return u
        rms = jnp.sqrt(jnp.mean(jnp.square(x)))
        return (u * jnp.maximum(rms, SMALLEST)).astype(u.dtype)

    def direction(self) -> optax.GradientTransformation:
        def init(params):
            rows, columns = _means(optax.tree.zeros_like(params))
            return AdafactorState(rows, columns, jnp.zeros(()), jnp.zeros(()))

        def update(updates, state, params=None):
            steps = state.steps + 1
            b2 = 1 - jnp.minimum(self.pace * steps**-GROWTH, 1)
            rows, columns = _means(self._positive(square(updates)))
            state = AdafactorState(
                rows=ema(state.rows, rows, b2),
                columns=ema(state.columns, columns, b2),
                weight=ema(state.weight, jnp.ones(()), b2),
                steps=steps,
            )
            return _divided(updates, *_debiased(state, rows, columns)), state

        return optax.GradientTransformation(init, update)

    def _positive(self, squares: PyTree) -> PyTree:
        return jax.tree.map(lambda s: s + self.eps, squares)

    def rescale_state(self, state, kappa, new, signal=0.0):
        moved = super().rescale_state(state, kappa, new, signal)
        return moved._replace(steps=state.steps / kappa)

    def limit(self, keep_signal: bool = False) -> Limit:
        def entering(mean, variance):
            second = second_moment(mean, variance, keep_signal)
            return _means(self._positive(second))

        def drift(state, mean, variance):
            rows, columns = entering(mean, variance)
            started = state.steps > 0
            c = self.pace * jnp.where(started, state.steps, 1) ** -GROWTH
            c = jnp.where(started, c, 0)
            flow = AdafactorState(
                rows=jax.tree.map(lambda s, r: c * (s - r), rows, state.rows),
                columns=jax.tree.map(lambda s, r: c * (s - r), columns, state.columns),
                weight=c * (1 - state.weight),
                steps=jnp.ones(()),
            )
            return _divided(mean, *_debiased(state, rows, columns)), flow

        def noise(state, mean, variance, kick, spare):
            both = _debiased(state, *entering(mean, variance))
            return _divided(kick, *both), optax.tree.zeros_like(state)

        return Limit(drift, noise)


def _axes(x: jax.Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the longest axis and the second longest, of a vector ((0,), ())."""
    order = [int(axis) for axis in np.argsort(x.shape)]  # ties as in optax
    return tuple(order[-1:]), tuple(order[-2:-1])


def _means(squares: PyTree) -> tuple[PyTree, PyTree]:
    """Returns the means of each parameter along its longest axis and the second."""

    def along(which):
        def mean(x):
            return jnp.mean(x, axis=_axes(x)[which], keepdims=True)

        return jax.tree.map(mean, squares)

    return along(0), along(1)


def _debiased(
    state: AdafactorState, rows: PyTree, columns: PyTree
) -> tuple[PyTree, PyTree]:
    """Returns both averages by their weight, and what enters them where that is 0."""
    return (
        debias_or(state.rows, state.weight, rows),
        debias_or(state.columns, state.weight, columns),
    )


def _divided(g: PyTree, rows: PyTree, columns: PyTree) -> PyTree:
    """Returns g/√v̂, with v̂ the product of both means over the mean of all."""

    def divide(g, r, c):
        share = r / jnp.mean(r, axis=_axes(g)[1], keepdims=True)
        return g * (jax.lax.rsqrt(share) * jax.lax.rsqrt(c))

    return jax.tree.map(divide, g, rows, columns)
