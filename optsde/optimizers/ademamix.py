"""AdEMAMix: Adam with a second, much longer memory of the gradient."""

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
    precondition,
    second_moment,
    square,
)
from optsde.optimizers.rules import Memory, Power
from optsde.types import PyTree, Scalar


class AdEMAMixState(NamedTuple):
    m: PyTree  # like params; the short memory
    slow: PyTree  # like params; the long memory
    v: PyTree  # like params
    m_weight: jax.Array  # scalar, 1 − b1^k
    v_weight: jax.Array  # scalar, 1 − b2^k


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdEMAMix(Optimizer):
    """AdEMAMix: Adam, and α times an older average (Pagliardini et al. 2024).

    m ← b1 m + (1−b1) g,  n ← b3 n + (1−b3) g,  v ← b2 v + (1−b2) g²,
    θ ← θ − lr·(m̂ + α n)/(√(v̂+eps_root)+eps), where m̂ and v̂ are divided by their weights
    as in Adam, and n is not: it fills from zero. It is `optax.contrib.ademamix` with
    numbers for b3 and α (arXiv 2409.03137). The paper lets both grow at first, which is
    left out here: a plan has a schedule of lr alone. With α = 0 it is Adam.

    Rule: Adam's; 1 − b3 grows by κ too, and α stays. SDE:
    dθ = −lr·P⁻¹(m̂ + α n) dt,  dn = (1−b3)((∇f − n) dt + Σ^{1/2} dW), and dm, dv, dγ and
    P are Adam's.

    A filter of two memories has no `response` of three numbers, so that stability
    threshold and prediction refuse. Nor is it Adam at (1+α)·lr: where a curvature is
    followed faster than n fills, noise keeps up less of the loss, by up to 1+α.

    >>> import jax.numpy as jnp
    >>> transform = AdEMAMix(lr=0.1, b3=0.9, alpha=5.0, eps=1.0).transform()
    >>> params, grads = jnp.array([1.0, 2.0]), jnp.array([3.0, -4.0])
    >>> updates, state = transform.update(grads, transform.init(params), params)
    >>> print(params + updates)
    [0.8875 2.12  ]
    """

    lr: Scalar = 1e-3
    b1: Scalar = 0.9
    b2: Scalar = 0.999
    b3: Scalar = 0.9999
    alpha: Scalar = 5.0
    eps: Scalar = 1e-8
    eps_root: Scalar = 0.0
    jumps: ClassVar[bool] = True
    rule = {
        "lr": Power(0.5, "√v shrinks by √κ, which lengthens the step by √κ already"),
        "b1": Memory(),
        "b2": Memory(),
        "b3": Memory(),
        "alpha": Power(0, "both memories average the gradient, at any batch"),
        "eps": Power(-0.5, "ε is compared with √v"),
        "eps_root": Power(-1, "ε inside the root is compared with v"),
    }
    state_rule = {"v": -1}

    def direction(self) -> optax.GradientTransformation:
        def init(params):
            zeros = optax.tree.zeros_like(params)
            return AdEMAMixState(zeros, zeros, zeros, jnp.zeros(()), jnp.zeros(()))

        def update(updates, state, params=None):
            state = AdEMAMixState(
                m=ema(state.m, updates, self.b1),
                slow=ema(state.slow, updates, self.b3),
                v=ema(state.v, square(updates), self.b2),
                m_weight=ema(state.m_weight, jnp.ones(()), self.b1),
                v_weight=ema(state.v_weight, jnp.ones(()), self.b2),
            )
            m = self._mixed(debias(state.m, state.m_weight), state.slow)
            v = debias(state.v, state.v_weight)
            return precondition(m, v, self.eps, self.eps_root), state

        return optax.GradientTransformation(init, update)

    def _mixed(self, m: PyTree, slow: PyTree) -> PyTree:
        return jax.tree.map(lambda m, n: m + self.alpha * n, m, slow)

    def limit(self, keep_signal: bool = False) -> Limit:
        c1, c2, c3 = 1 - self.b1, 1 - self.b2, 1 - self.b3

        def drift(state, mean, variance):
            second = second_moment(mean, variance, keep_signal)
            flow = AdEMAMixState(
                m=jax.tree.map(lambda g, m: c1 * (g - m), mean, state.m),
                slow=jax.tree.map(lambda g, n: c3 * (g - n), mean, state.slow),
                v=jax.tree.map(lambda s, v: c2 * (s - v), second, state.v),
                m_weight=c1 * (1 - state.m_weight),
                v_weight=c2 * (1 - state.v_weight),
            )
            m = self._mixed(debias_or(state.m, state.m_weight, mean), state.slow)
            v = debias_or(state.v, state.v_weight, second)
            return precondition(m, v, self.eps, self.eps_root), flow

        def noise(state, mean, variance, kick, spare):
            still = optax.tree.zeros_like(state)
            dm = jax.tree.map(lambda k: c1 * k, kick)
            dn = jax.tree.map(lambda k: c3 * k, kick)
            return optax.tree.zeros_like(kick), still._replace(m=dm, slow=dn)

        return Limit(drift, noise)
