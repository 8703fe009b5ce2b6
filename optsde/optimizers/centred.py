"""Adam whose v is the variance of the gradient, without its mean's square."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from optsde.optimizers.adam import Adam
from optsde.optimizers.base import register


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class CentredAdam(Adam):
    """Adam with v from the distances of gradients to their average.

    With m̂ the average before g came, which has ρ times the variance of g,

        v ← b2 v + (1−b2) (g − m̂)²/(1+ρ),   ρ = (1−b1)/(1+b1) · (2−γ)/γ,   γ = 1 − b1^k,

    and the rest is Adam's; the first step has no average and takes g². It is AdaBelief
    (Zhuang et al. 2020, arXiv 2010.07468) with m̂ for its m and with the factor 1/(1+ρ),
    by which E v = diag Σ where ∇f changes slowly. So the mean gradient has no share in
    v that grows with κ, as it has in Adam's, where √κ needs noise that dominates.

    SDE: Adam's. What the lag of m̂ adds to v vanishes with κ, and `keep_signal` changes
    nothing.

    >>> transform = CentredAdam(lr=0.1, b1=0.0, b2=0.0, eps=1.0).transform()
    >>> params, grads = jnp.array([1.0]), [jnp.array([3.0]), jnp.array([5.0])]
    >>> _, state = transform.update(grads[0], transform.init(params), params)
    >>> updates, _ = transform.update(grads[1], state, params)
    >>> print(updates)  # −0.1 · 5/(√((5 − 3)²/2) + 1)
    [-0.20710678]
    """

    adaptive: ClassVar[bool] = False
    jumps: ClassVar[bool] = False  # a jump stays in m̂, and counts in v again

    def _entering(self, updates, state):
        weight = state.m_weight
        started = weight > 0
        safe = jnp.where(started, weight, 1)
        rho = (1 - self.b1) / (1 + self.b1) * (2 - safe) / safe
        share = jnp.where(started, 1 / (1 + rho), 1)

        def square(g, m):
            distance = g - jnp.where(started, m / safe, 0)
            return (share * distance**2).astype(g.dtype)

        return updates, jax.tree.map(square, updates, state.m)

    def _second_moment(self, mean, variance, keep_signal):
        return variance
