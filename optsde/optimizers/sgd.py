"""Gradient descent and its momenta: SGD, Momentum (EMA form), HeavyBall.

Plain descent is SGD with an oracle that sees the full batch. At κ times the batch the
lr grows by κ, and a momentum keeps its memory in samples. In the heavy-ball form, where
the velocity is a sum and not an average, that means lr·κ²: v is shorter by κ.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import optax

from optsde.optimizers.base import Optimizer, ema, register
from optsde.optimizers.ito import Limit
from optsde.optimizers.moments import filled
from optsde.optimizers.rules import Memory, Power
from optsde.types import PyTree, Scalar


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """θ ← θ − lr·g.    SDE: dθ = −lr·(∇f dt + Σ^{1/2} dW).

    Linear scaling: lr·κ (Goyal et al. 2017; Li, Malladi and Arora 2021).
    """

    lr: Scalar = 0.1
    noise_exponent: ClassVar[int] = 1
    rule = {"lr": Power(1, "κ times fewer steps must go as far")}

    def direction(self) -> optax.GradientTransformation:
        return optax.identity()

    def preconditioner(self, state, params):
        return filled(params, 1)

    def alternating_gain(self, state=None):
        return 1.0

    def limit(self, keep_signal: bool = False) -> Limit:
        return Limit(
            drift=lambda state, mean, variance: (mean, state),
            noise=lambda state, mean, variance, kick, spare: (kick, state),
        )


class Velocity(NamedTuple):
    m: PyTree  # like params


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Momentum(Optimizer):
    """m ← β m + (1−β) g,  θ ← θ − lr·m.

    SDE: dθ = −lr·m dt,  dm = (1−β)(∇f − m) dt + (1−β) Σ^{1/2} dW.
    Nesterov's form steps along β m + (1−β) g; its look-ahead is of order κ and has no
    place in the SDE.
    """

    lr: Scalar = 0.1
    beta: Scalar = 0.9
    nesterov: bool = False
    noise_exponent: ClassVar[int] = 1
    rule = {"lr": Power(1, "κ times fewer steps must go as far"), "beta": Memory()}

    def direction(self) -> optax.GradientTransformation:
        def init(params):
            return Velocity(optax.tree.zeros_like(params))

        def update(updates, state, params=None):
            m = ema(state.m, updates, self.beta)
            u = ema(m, updates, self.beta) if self.nesterov else m
            return u, Velocity(m)

        return optax.GradientTransformation(init, update)

    def preconditioner(self, state, params):
        return filled(params, 1)

    def alternating_gain(self, state=None):
        m = (1 - self.beta) / (1 + self.beta)
        return self.beta * m + (1 - self.beta) if self.nesterov else m

    def limit(self, keep_signal: bool = False) -> Limit:
        c = 1 - self.beta

        def drift(state, mean, variance):
            dm = jax.tree.map(lambda g, m: c * (g - m), mean, state.m)
            return state.m, Velocity(dm)

        def noise(state, mean, variance, kick, spare):
            return optax.tree.zeros_like(kick), Velocity(
                jax.tree.map(lambda k: c * k, kick)
            )

        return Limit(drift, noise)


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class HeavyBall(Optimizer):
    """v ← β v + g,  θ ← θ − lr·v: torch's SGD(momentum) and `optax.sgd(momentum)`.

    It is Momentum with lr/(1−β) for lr. SDE: dθ = −lr·v dt,
    dv = (∇f − (1−β) v) dt + Σ^{1/2} dW.
    """

    lr: Scalar = 0.01
    beta: Scalar = 0.9
    nesterov: bool = False
    noise_exponent: ClassVar[int] = 1
    rule = {
        "lr": Power(2, "κ for the longer step, κ for the shorter velocity"),
        "beta": Memory(),
    }

    def direction(self) -> optax.GradientTransformation:
        trace = optax.trace(self.beta, self.nesterov)

        def init(params):
            return Velocity(optax.tree.zeros_like(params))

        def update(updates, state, params=None):
            u, (v,) = trace.update(updates, optax.TraceState(state.m))  # type: ignore
            return u, Velocity(optax.tree.cast_like(v, state.m))

        return optax.GradientTransformation(init, update)

    def preconditioner(self, state, params):
        return filled(params, 1)

    def alternating_gain(self, state=None):
        v = 1 / (1 + self.beta)
        return self.beta * v + 1 if self.nesterov else v

    def limit(self, keep_signal: bool = False) -> Limit:
        def drift(state, mean, variance):
            dv = jax.tree.map(lambda g, v: g - (1 - self.beta) * v, mean, state.m)
            return state.m, Velocity(dv)

        def noise(state, mean, variance, kick, spare):
            return optax.tree.zeros_like(kick), Velocity(kick)

        return Limit(drift, noise)

    def _lr_factor(self, kappa, decays):
        return kappa * ((1 - decays["beta"]) / (1 - self.beta))

    def rescale_state(self, state, kappa, new):
        shorter = (1 - self.beta) / (1 - new.beta)
        return Velocity(jax.tree.map(lambda v: v * shorter, state.m))
