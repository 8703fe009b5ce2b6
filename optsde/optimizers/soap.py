"""SOAP: Adam in the eigenvectors of Shampoo's factors."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optsde.optimizers.base import Optimizer, ema, register
from optsde.optimizers.factors import (
    Factors,
    check_one_share,
    eigenbasis,
    of_signal,
    squares,
    wide_matrix,
)
from optsde.optimizers.ito import Limit
from optsde.optimizers.moments import debias_or, filled
from optsde.optimizers.rules import Memory, Power
from optsde.types import PyTree, Scalar


class SOAPState(NamedTuple):
    m: PyTree  # like params
    v: PyTree  # like params; of the gradient's entries in the eigenvectors
    factors: Factors  # averages of GGᵀ and GᵀG
    bases: Factors  # their eigenvectors
    m_weight: jax.Array  # scalar, 1 − b1^(k−1)
    v_weight: jax.Array  # scalar, 1 − b2^(k−1)
    weight: jax.Array  # scalar, 1 − b2^k


def turned(x: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
    """Returns P_Lᵀ X P_R of one parameter X, in its own shape and dtype."""
    return (left.T @ wide_matrix(x) @ right).reshape(x.shape).astype(x.dtype)


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class SOAP(Optimizer):
    """SOAP: θ ← θ − lr·Q_L ((Q_Lᵀ m̂ Q_R)/(√v̂+ε)) Q_Rᵀ  (Vyas et al. 2024, 2409.11321).

    Q_L and Q_R are the eigenvectors of Shampoo's factors L and R of the steps *before*,
    v ← b2 v + (1−b2) (Q_Lᵀ G Q_R)², by entry, and m is the average of G as in Adam. The
    first step moves nothing and fills L and R alone, as the authors' does. Here the
    eigenvectors are computed in each step, where the authors renew them every 10 steps,
    by one power iteration; ε is added to √v̂ and not to √v.

    Parameters are matrices as `as_matrix` has them. A vector is turned too, as by the
    authors' `precondition_1d`; they leave vectors to Adam, and the longest sides
    unturned, for which there are `Groups`.

    Rule: Adam's, lr·√κ and ε/√κ, since eigenvectors do not change where L and R fall by
    κ. SDE: Adam's of m, and of v with d[M] in place of diag Σ dt, where M has the noise
    Q_Lᵀ (Σ^{1/2} dW) Q_R; L and R as Shampoo's.

    >>> transform = SOAP(lr=0.1).transform()
    >>> params, grads = jnp.zeros((2, 2)), jnp.diag(jnp.array([3.0, -4.0]))
    >>> _, state = transform.update(grads, transform.init(params), params)
    >>> updates, state = transform.update(grads, state, params)
    >>> print(params + updates)
    [[-0.1  0. ]
     [ 0.   0.1]]
    """

    lr: Scalar = 3e-3
    b1: Scalar = 0.95
    b2: Scalar = 0.95
    eps: Scalar = 1e-8
    jumps: ClassVar[bool] = False  # a run turns a jump by the eigenvectors before it
    rule = {
        "lr": Power(0.5, "√v shrinks by √κ, which lengthens the step by √κ already"),
        "b1": Memory(),
        "b2": Memory(),
        "eps": Power(-0.5, "ε is compared with √v"),
    }
    state_rule = {"v": -1, "factors": -1}

    def _direction(self, m: PyTree, v: PyTree, bases: Factors) -> PyTree:
        def step(m, v, left, right):
            u = turned(m, left, right) / (jnp.sqrt(v) + self.eps)
            return turned(u, left.T, right.T)

        return jax.tree.map(step, m, v, *bases)

    def direction(self) -> optax.GradientTransformation:
        def init(params):
            zeros, none = optax.tree.zeros_like(params), jnp.zeros(())
            factors = squares(zeros)
            axes = jax.tree.map(lambda a: jnp.eye(len(a), dtype=a.dtype), factors)
            return SOAPState(zeros, zeros, factors, axes, none, none, none)

        def update(updates, state, params=None):
            started = state.weight > 0
            bases = state.bases
            g = jax.tree.map(lambda g: jnp.where(started, g, 0), updates)
            factors = ema(state.factors, squares(updates), self.b2)
            state = SOAPState(
                m=ema(state.m, g, self.b1),
                v=ema(state.v, _squared(g, bases), self.b2),
                factors=factors,
                bases=jax.tree.map(eigenbasis, factors),
                m_weight=ema(state.m_weight, started, self.b1),
                v_weight=ema(state.v_weight, started, self.b2),
                weight=ema(state.weight, jnp.ones(()), self.b2),
            )
            m = debias_or(state.m, state.m_weight, filled(g, 0))
            v = debias_or(state.v, state.v_weight, filled(g, 1))
            return self._direction(m, v, bases), state

        return optax.GradientTransformation(init, update)

    def limit(self, keep_signal: bool = False) -> Limit:
        c1, c2 = 1 - self.b1, 1 - self.b2

        def drift(state, mean, variance):
            bases = state.bases
            signal = of_signal(mean, keep_signal)
            in_v = _squared(mean, bases) if keep_signal else filled(mean, 0)
            flow = SOAPState(
                m=jax.tree.map(lambda g, m: c1 * (g - m), mean, state.m),
                v=jax.tree.map(lambda s, v: c2 * (s - v), in_v, state.v),
                factors=jax.tree.map(lambda s, x: c2 * (s - x), signal, state.factors),
                bases=optax.tree.zeros_like(bases),
                m_weight=c1 * (1 - state.m_weight),
                v_weight=c2 * (1 - state.v_weight),
                weight=c2 * (1 - state.weight),
            )
            m = debias_or(state.m, state.m_weight, mean)
            # at t = 0 the bases are the axes
            at_start = jax.tree.map(jnp.add, in_v, variance)
            v = debias_or(state.v, state.v_weight, at_start)
            return self._direction(m, v, bases), flow

        def noise(state, mean, variance, kick, spare):
            still = optax.tree.zeros_like(state)
            dm = jax.tree.map(lambda k: c1 * k, kick)
            return optax.tree.zeros_like(kick), still._replace(m=dm)

        def variation(state, step):
            added = jax.tree.map(lambda s: c2 * s, squares(step))
            # v is turned as the next drift will turn m: its first entry stands alone
            after = jax.tree.map(jnp.add, state.factors, added)
            bases = jax.tree.map(eigenbasis, after)
            dv = jax.tree.map(lambda s: c2 * s, _squared(step, bases))
            moved = jax.tree.map(jnp.subtract, bases, state.bases)
            still = optax.tree.zeros_like(state)
            return still._replace(v=dv, factors=added, bases=moved)

        return Limit(drift, noise, variation)

    def rescale_state(self, state, kappa, new, signal=0.0):
        check_one_share(signal)
        return super().rescale_state(state, kappa, new, signal)


def _squared(tree: PyTree, bases: Factors) -> PyTree:
    """Returns the squares of the entries in the eigenvectors."""
    return jax.tree.map(lambda x, p, q: turned(x, p, q) ** 2, tree, *bases)
