"""Adam and AdamW: one class, since AdamW is Adam with `weight_decay`."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optsde.optimizers.base import Optimizer, ema, register
from optsde.optimizers.ito import Limit
from optsde.optimizers.moments import (
    debias,
    debias_or,
    denominator,
    filled,
    precondition,
    second_moment,
    square,
)
from optsde.optimizers.response import Response
from optsde.optimizers.rules import Memory, Power
from optsde.types import PyTree, Scalar


class AdamState(NamedTuple):
    m: PyTree  # like params
    v: PyTree  # like params; of AdamMini one number for each block
    m_weight: jax.Array  # scalar, 1 − b1^k
    v_weight: jax.Array  # scalar, 1 − b2^k


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam, and AdamW where `weight_decay` is set (Kingma and Ba 2015).

    m ← b1 m + (1−b1) g,  v ← b2 v + (1−b2) g²,  θ ← θ − lr·m̂/(√(v̂+eps_root)+eps), where
    m̂ and v̂ are the averages divided by their weights γ = 1 − b^k. It is `optax.adam`
    and `optax.adamw`, and torch's without `eps_root`; torch's Adam(weight_decay) is
    `l2`. Rule: lr·√κ, and 1 − b1 and 1 − b2 grow by κ (Malladi et al. 2022).

    SDE (Malladi et al. 2022): dθ = −lr·P⁻¹m̂ dt, dm = (1−b1)((∇f − m) dt + Σ^{1/2} dW),
    dv = (1−b2)(diag Σ − v) dt, dγ = (1−b)(1−γ) dt. Their analysis divides by the v of
    the step before; to first order that is the same limit.

    >>> import jax.numpy as jnp
    >>> transform = Adam(lr=0.1, eps=1.0).transform()
    >>> params, grads = jnp.array([1.0, 2.0]), jnp.array([3.0, -4.0])
    >>> updates, state = transform.update(grads, transform.init(params), params)
    >>> print(params + updates)
    [0.925 2.08 ]
    """

    lr: Scalar = 1e-3
    b1: Scalar = 0.9
    b2: Scalar = 0.999
    eps: Scalar = 1e-8
    eps_root: Scalar = 0.0
    adaptive: ClassVar[bool] = True
    jumps: ClassVar[bool] = True
    rule = {
        "lr": Power(0.5, "√v shrinks by √κ, which lengthens the step by √κ already"),
        "b1": Memory(),
        "b2": Memory(),
        "eps": Power(-0.5, "ε is compared with √v"),
        "eps_root": Power(-1, "ε inside the root is compared with v"),
    }
    state_rule = {"v": -1}

    def direction(self) -> optax.GradientTransformation:
        def init(params):
            zeros = optax.tree.zeros_like(params)
            v = jax.tree.map(self.pooled, zeros)
            return AdamState(zeros, v, jnp.zeros(()), jnp.zeros(()))

        def update(updates, state, params=None):
            grad, squares = self._entering(updates, state)
            state = AdamState(
                m=ema(state.m, grad, self.b1),
                v=ema(state.v, squares, self.b2),
                m_weight=ema(state.m_weight, jnp.ones(()), self.b1),
                v_weight=ema(state.v_weight, jnp.ones(()), self.b2),
            )
            m = debias(state.m, state.m_weight)
            v = debias(state.v, state.v_weight)
            return precondition(m, v, self.eps, self.eps_root), state

        return optax.GradientTransformation(init, update)

    def _entering(self, updates: PyTree, state: AdamState) -> tuple[PyTree, PyTree]:
        """Returns what enters m, and what enters v."""
        return updates, square(updates)

    def _second_moment(self, mean: PyTree, variance: PyTree, keep_signal: bool):
        """Returns the mean of what enters v, in the SDE."""
        return second_moment(mean, variance, keep_signal)

    def preconditioner(self, state, params):
        v = debias_or(state.v, state.v_weight, filled(params, 1))
        return denominator(v, self.eps, self.eps_root)

    def preconditioner_memory(self):
        return 1 / (1 - self.b2)

    def response(self, state=None):
        """Returns the response of m̂, that is of m/γ with the γ of the next step.

        Cohen et al. (2022) count this γ = 1 − b1^k to P instead, which is the same.
        """
        m = (1 - self.b1) / (1 + self.b1)
        if state is None:
            return Response(m)
        return Response(m, friction=ema(state.m_weight, jnp.ones(()), self.b1))

    def limit(self, keep_signal: bool = False) -> Limit:
        c1, c2 = 1 - self.b1, 1 - self.b2

        def drift(state, mean, variance):
            second = self._second_moment(mean, variance, keep_signal)
            flow = AdamState(
                m=jax.tree.map(lambda g, m: c1 * (g - m), mean, state.m),
                v=jax.tree.map(lambda s, v: c2 * (s - v), second, state.v),
                m_weight=c1 * (1 - state.m_weight),
                v_weight=c2 * (1 - state.v_weight),
            )
            m = debias_or(state.m, state.m_weight, mean)
            v = debias_or(state.v, state.v_weight, second)
            return precondition(m, v, self.eps, self.eps_root), flow

        def noise(state, mean, variance, kick, spare):
            still = optax.tree.zeros_like(state)
            dm = jax.tree.map(lambda k: c1 * k, kick)
            return optax.tree.zeros_like(kick), still._replace(m=dm)

        return Limit(drift, noise)
