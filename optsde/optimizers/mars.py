"""MARS: Adam of gradients that lean towards their last change."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optsde.optimizers.base import Optimizer, ema, register
from optsde.optimizers.ito import Limit
from optsde.optimizers.moments import debias, debias_or, precondition, square
from optsde.optimizers.rules import Memory, Power
from optsde.types import PyTree, Scalar


class MARSState(NamedTuple):
    m: PyTree  # like params
    v: PyTree  # like params
    last: PyTree  # like params; the gradient of the step before
    m_weight: jax.Array  # scalar, 1 − b1^k
    v_weight: jax.Array  # scalar, 1 − b2^k


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class MARS(Optimizer):
    """MARS-AdamW of one gradient a step  (Yuan et al. 2024, arXiv 2411.10438).

    With g₋ the gradient of the step before (in the first step g itself),

        c = g + a (g − g₋),   m ← b1 m + (1−b1) c,   v ← b2 v + (1−b2) c²,

    and the rest is Adam's. `correction` is a = γ·b1/(1−b1), of which the paper gives
    γ = .025: a = .475 at b1 = .95. It is the paper's approximate form, without its clip
    of c to norm 1; the exact form takes both gradients from one batch, which no oracle
    here does. The authors' code has g₋ = 0 in the first step, and so a first m̂ of
    (1+a) g, which at κ times the batch lasts κ times as long.

    Rule: Adam's, and a stays, that is γ·κ·b1/b1' for b1' at κ. c has the variance
    ((1+a)² + a²) Σ, and √v falls by √κ only if this factor stays: with γ as it was, a
    would fall by κ, and lr·√κ be too long by the root of what this factor lost. m is
    (1−γ) times the average of g and γ g, as in quasi-hyperbolic momentum, so that what
    the correction looks ahead is of order κ, and gone in the limit. SDE: Adam's, with
    dv = (1−b2)(((1+a)² + a²) diag Σ − v) dt.

    The mean gradient enters v once, and the noise by that factor, so that threshold
    and prediction, which know one v, refuse.

    >>> transform = MARS(lr=0.1, b1=0.0, b2=0.0, correction=0.5, eps=1.0).transform()
    >>> params, grads = jnp.array([1.0]), [jnp.array([3.0]), jnp.array([5.0])]
    >>> _, state = transform.update(grads[0], transform.init(params), params)
    >>> updates, _ = transform.update(grads[1], state, params)
    >>> print(updates)  # −0.1 · 6/(6 + 1)
    [-0.08571429]
    """

    lr: Scalar = 3e-3
    b1: Scalar = 0.95
    b2: Scalar = 0.99
    correction: Scalar = 0.475
    eps: Scalar = 1e-8
    jumps: ClassVar[bool] = True
    rule = {
        "lr": Power(0.5, "√v shrinks by √κ, which lengthens the step by √κ already"),
        "b1": Memory(),
        "b2": Memory(),
        "correction": Power(
            0, "noise enters v by one factor, so that γ grows as 1 − b1 does"
        ),
        "eps": Power(-0.5, "ε is compared with √v"),
    }
    state_rule = {"v": -1}

    def direction(self) -> optax.GradientTransformation:
        def init(params):
            zeros = optax.tree.zeros_like(params)
            return MARSState(zeros, zeros, zeros, jnp.zeros(()), jnp.zeros(()))

        def update(updates, state, params=None):
            a = jnp.where(state.m_weight > 0, self.correction, 0)

            def corrected(g, last):
                return (g + a * (g - last)).astype(g.dtype)

            c = jax.tree.map(corrected, updates, state.last)
            state = MARSState(
                m=ema(state.m, c, self.b1),
                v=ema(state.v, square(c), self.b2),
                last=updates,
                m_weight=ema(state.m_weight, jnp.ones(()), self.b1),
                v_weight=ema(state.v_weight, jnp.ones(()), self.b2),
            )
            m = debias(state.m, state.m_weight)
            v = debias(state.v, state.v_weight)
            return precondition(m, v, self.eps, 0.0), state

        return optax.GradientTransformation(init, update)

    def limit(self, keep_signal: bool = False) -> Limit:
        c1, c2 = 1 - self.b1, 1 - self.b2
        share = (1 + self.correction) ** 2 + self.correction**2

        def second_moment(g, s):
            return share * s + g * g if keep_signal else share * s

        def drift(state, mean, variance):
            second = jax.tree.map(second_moment, mean, variance)
            flow = MARSState(
                m=jax.tree.map(lambda g, m: c1 * (g - m), mean, state.m),
                v=jax.tree.map(lambda s, v: c2 * (s - v), second, state.v),
                last=optax.tree.zeros_like(state.last),
                m_weight=c1 * (1 - state.m_weight),
                v_weight=c2 * (1 - state.v_weight),
            )
            m = debias_or(state.m, state.m_weight, mean)
            v = debias_or(state.v, state.v_weight, second)
            return precondition(m, v, self.eps, 0.0), flow

        def noise(state, mean, variance, kick, spare):
            still = optax.tree.zeros_like(state)
            dm = jax.tree.map(lambda k: c1 * k, kick)
            return optax.tree.zeros_like(kick), still._replace(m=dm)

        return Limit(drift, noise)
