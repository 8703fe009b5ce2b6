"""Muon: the orthogonal factor of the momentum of each matrix."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from optsde.optimizers.base import Optimizer, register
from optsde.optimizers.ito import Limit
from optsde.optimizers.orthogonal import (
    GUARD,
    as_matrix,
    newton_schulz,
    orthogonal_factor,
)
from optsde.optimizers.rules import Memory, Power
from optsde.optimizers.sgd import Momentum, Velocity
from optsde.types import Scalar


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Muon(Optimizer):
    """Muon: m ← β m + (1−β) g,  θ ← θ − lr·c·msign(β m + (1−β) g).

    It is that of Jordan et al. (2024): msign(U S Vᵀ) = U Vᵀ, nearly, by five steps of
    `newton_schulz`; by a singular value decomposition where `exact`. Parameters are
    matrices as `as_matrix` has them; of a vector msign is m/‖m‖. Without `nesterov` the
    step is along msign(m). Of a layer from `in` to `out`, c = √max(1, out/in), and with
    `match_rms` it is .2·√max(in, out), by which an entry moves about as far as Adam's
    does (Liu et al. 2025, arXiv 2502.16982).

    On matrices it is torch's Muon, which has Newton–Schulz in bfloat16, and
    `optax.contrib.muon`, whose `nesterov` has bias corrections besides, as Nadam's.
    Both papers leave vectors, embeddings and the last layer to AdamW: see `Groups`.

    Rule: m has one law at every batch if 1 − β grows by κ, and so has any function of
    it, so that lr·κ, as for Signum. SDE: dθ = −lr·c·msign(m) dt,
    dm = (1−β)((∇f − m) dt + Σ^{1/2} dW). What Nesterov's form looks ahead is of order κ
    and has no place in it, and `keep_signal` changes nothing.

    >>> transform = Muon(lr=0.1, exact=True).transform()
    >>> params, grads = jnp.zeros((2, 2)), jnp.diag(jnp.array([3.0, -4.0]))
    >>> updates, state = transform.update(grads, transform.init(params), params)
    >>> print(params + updates)
    [[-0.1  0. ]
     [ 0.   0.1]]
    """

    lr: Scalar = 0.02
    beta: Scalar = 0.95
    nesterov: bool = True
    match_rms: bool = False
    exact: bool = False
    noise_exponent: ClassVar[int] = 1
    jumps: ClassVar[bool] = True
    rule = {
        "lr": Power(1, "msign(m) lasts for a memory of m, of κ times fewer steps"),
        "beta": Memory(),
    }

    def _momentum(self) -> Momentum:
        return Momentum(lr=self.lr, beta=self.beta, nesterov=self.nesterov)

    def _step(self, m: jax.Array) -> jax.Array:
        """Returns c·msign(m) of one parameter."""
        matrix = as_matrix(m)
        inputs, outputs = matrix.shape
        if m.ndim < 2:
            factor = matrix / (jnp.linalg.norm(matrix) + GUARD)
        else:
            factor = (orthogonal_factor if self.exact else newton_schulz)(matrix)
        longest = 0.2 * max(inputs, outputs) ** 0.5
        c = longest if self.match_rms else max(1, outputs / inputs) ** 0.5
        return c * factor.reshape(m.shape)

    def direction(self) -> optax.GradientTransformation:
        momentum = self._momentum().direction()

        def update(updates, state, params=None):
            m, state = momentum.update(updates, state)
            return jax.tree.map(self._step, m), state

        return optax.GradientTransformation(momentum.init, update)

    def limit(self, keep_signal: bool = False) -> Limit:
        momentum = self._momentum().limit()

        def drift(state: Velocity, mean, variance):
            m, flow = momentum.drift(state, mean, variance)
            return jax.tree.map(self._step, m), flow

        return Limit(drift, momentum.noise)
