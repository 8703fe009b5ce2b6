"""Shampoo: fourth roots of the second moments of a gradient's rows and columns."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optsde.optimizers.base import Optimizer, ema, register
from optsde.optimizers.factors import (
    Factors,
    check_one_share,
    independent,
    inverse_root,
    of_signal,
    squares,
    wide_matrix,
)
from optsde.optimizers.ito import Limit
from optsde.optimizers.moments import debias, debias_or
from optsde.optimizers.rules import Memory, Power
from optsde.types import PyTree, Scalar


class ShampooState(NamedTuple):
    m: PyTree  # like params
    factors: Factors  # averages of GGᵀ and GᵀG
    m_weight: jax.Array  # scalar, 1 − b1^k
    weight: jax.Array  # scalar, 1 − b2^k


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Shampoo(Optimizer):
    """Shampoo: θ ← θ − lr·(L̂+ε)^(−1/4) m̂ (R̂+ε)^(−1/4), with L of GGᵀ and R of GᵀG.

    L ← b2 L + (1−b2) GGᵀ,  R ← b2 R + (1−b2) GᵀG,  m ← b1 m + (1−b1) G, and m̂, L̂, R̂
    are divided by their weights 1 − b^k. Gupta, Koren and Singer (2018) sum GGᵀ up and
    have no m. Averages, bias corrections and an ε (`eps_root`) of the units of L̂ are
    those of Distributed Shampoo (Shi et al. 2023, arXiv 2309.06497); here without
    blocks, grafting or coupled iterations, and with roots renewed in each step.

    Parameters are matrices as `as_matrix` has them, so that a kernel of a convolution
    has two factors and not four. A vector has R alone, to the power −1/2. Leave
    embeddings and all that is too long for its square to others: see `Groups`.

    Rule: L and R fall by κ and each fourth root by κ^¼, so that lr·√κ, ε/κ, and 1 − b1
    and 1 − b2 grow by κ, as for Adam. SDE: dθ = −lr·(L̂+ε)^(−1/4) m̂ (R̂+ε)^(−1/4) dt,
    dm = (1−b1)((∇f − m) dt + dM),  dL = (1−b2)(d[M, Mᵀ] − L dt), and so R, where M has
    the noise Σ^{1/2} dW as a matrix and [M, Mᵀ] is its quadratic variation.

    >>> transform = Shampoo(lr=1.0).transform()
    >>> params, grads = jnp.zeros((2, 2)), jnp.diag(jnp.array([3.0, -4.0]))
    >>> updates, state = transform.update(grads, transform.init(params), params)
    >>> print((params + updates).round())  # the first step is along U Vᵀ of G = U S Vᵀ
    [[-1.  0.]
     [ 0.  1.]]
    """

    lr: Scalar = 1e-3
    b1: Scalar = 0.9
    b2: Scalar = 0.999
    eps_root: Scalar = 1e-12
    jumps: ClassVar[bool] = True
    rule = {
        "lr": Power(0.5, "each fourth root shrinks by κ^¼, which lengthens the step"),
        "b1": Memory(),
        "b2": Memory(),
        "eps_root": Power(-1, "ε inside the roots is compared with L and R"),
    }
    state_rule = {"factors": -1}

    def _step(self, m: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
        """Returns the direction of one parameter."""
        matrix = wide_matrix(m)
        if m.ndim < 2:
            u = matrix @ inverse_root(right, 2, self.eps_root)
        else:
            u = inverse_root(left, 4, self.eps_root) @ matrix
            u = u @ inverse_root(right, 4, self.eps_root)
        return u.reshape(m.shape).astype(m.dtype)

    def direction(self) -> optax.GradientTransformation:
        def init(params):
            zeros = optax.tree.zeros_like(params)
            return ShampooState(zeros, squares(zeros), jnp.zeros(()), jnp.zeros(()))

        def update(updates, state, params=None):
            state = ShampooState(
                m=ema(state.m, updates, self.b1),
                factors=ema(state.factors, squares(updates), self.b2),
                m_weight=ema(state.m_weight, jnp.ones(()), self.b1),
                weight=ema(state.weight, jnp.ones(()), self.b2),
            )
            m = debias(state.m, state.m_weight)
            factors = debias(state.factors, state.weight)
            return jax.tree.map(self._step, m, *factors), state

        return optax.GradientTransformation(init, update)

    def limit(self, keep_signal: bool = False) -> Limit:
        c1, c2 = 1 - self.b1, 1 - self.b2

        def drift(state, mean, variance):
            signal = of_signal(mean, keep_signal)
            flow = ShampooState(
                m=jax.tree.map(lambda g, m: c1 * (g - m), mean, state.m),
                factors=jax.tree.map(lambda s, x: c2 * (s - x), signal, state.factors),
                m_weight=c1 * (1 - state.m_weight),
                weight=c2 * (1 - state.weight),
            )
            m = debias_or(state.m, state.m_weight, mean)
            at_start = jax.tree.map(jnp.add, signal, independent(variance))
            factors = debias_or(state.factors, state.weight, at_start)
            return jax.tree.map(self._step, m, *factors), flow

        def noise(state, mean, variance, kick, spare):
            still = optax.tree.zeros_like(state)
            dm = jax.tree.map(lambda k: c1 * k, kick)
            return optax.tree.zeros_like(kick), still._replace(m=dm)

        def variation(state, step):
            added = jax.tree.map(lambda s: c2 * s, squares(step))
            return optax.tree.zeros_like(state)._replace(factors=added)

        return Limit(drift, noise, variation)

    def rescale_state(self, state, kappa, new, signal=0.0):
        check_one_share(signal)
        return super().rescale_state(state, kappa, new, signal)
