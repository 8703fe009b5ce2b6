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
from optsde.optimizers.response import Rates, Response
from optsde.optimizers.rules import Memory, Power
from optsde.types import PyTree, Scalar


class Descent(Optimizer):
    """The base class of families whose direction is a filter of gradients, P = 1."""

    noise_exponent: ClassVar[int] = 1
    jumps: ClassVar[bool] = True

    def preconditioner(self, state, params):
        return filled(params, 1)

    def intrinsic_rates(self, lr: Scalar | None = None) -> Rates | None:
        """Returns the rates for scale-invariant weights at `lr`, by default its own.

        The friction of a velocity makes what is in the gradient, l2 too, 1/friction
        times larger, and not what is decoupled: for the heavy ball λ_e is lr·l2/(1−β),
        but lr·weight_decay. A schedule multiplies lr and the absolute decay alike.
        """
        response = self.response()
        if response is None:
            return None
        lr = self.lr if lr is None else lr
        gain = lr / response.friction
        decoupled = lr * self.weight_decay
        absolute = self.absolute_decay * (lr / self.lr)
        return Rates(gain, gain * self.l2 + decoupled + absolute, response.share)


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD(Descent):
    """Stochastic gradient descent, θ ← θ − lr·g.

    SDE: dθ = −lr·(∇f dt + Σ^{1/2} dW)  (Li, Tai and E 2017). Rule: linear scaling, lr·κ
    (Goyal et al. 2017; Li, Malladi and Arora 2021). It is `optax.sgd` and torch's SGD
    without momentum.

    >>> import jax.numpy as jnp
    >>> transform = SGD(lr=0.1).transform()
    >>> params, grads = jnp.array([1.0, 2.0]), jnp.array([2.0, -4.0])
    >>> updates, state = transform.update(grads, transform.init(params), params)
    >>> print(params + updates)
    [0.8 2.4]
    """

    lr: Scalar = 0.1
    rule = {"lr": Power(1, "κ times fewer steps must go as far")}

    def direction(self) -> optax.GradientTransformation:
        return optax.identity()

    def limit(self, keep_signal: bool = False) -> Limit:
        return Limit(
            drift=lambda state, mean, variance: (mean, state),
            noise=lambda state, mean, variance, kick, spare: (kick, state),
        )

    def response(self, state=None):
        return Response()


class Velocity(NamedTuple):
    m: PyTree  # like params


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Momentum(Descent):
    """Momentum that is an average: m ← β m + (1−β) g,  θ ← θ − lr·m.

    SDE: dθ = −lr·m dt,  dm = (1−β)(∇f − m) dt + (1−β) Σ^{1/2} dW. Rule: lr·κ, and 1 − β
    grows by κ too. With `nesterov`, steps go along β m + (1−β) g; what that looks ahead
    is of order κ and has no place in the SDE. It is `optax.ema(β, debias=False)` before
    the step, and torch's SGD with `dampening=momentum`, but for torch's first step.

    >>> import jax.numpy as jnp
    >>> transform = Momentum(lr=0.1, beta=0.5).transform()
    >>> params, grads = jnp.array([1.0, 2.0]), jnp.array([2.0, -4.0])
    >>> updates, state = transform.update(grads, transform.init(params), params)
    >>> print(params + updates)
    [0.9 2.2]
    """

    lr: Scalar = 0.1
    beta: Scalar = 0.9
    nesterov: bool = False
    rule = {"lr": Power(1, "κ times fewer steps must go as far"), "beta": Memory()}

    def direction(self) -> optax.GradientTransformation:
        def init(params):
            return Velocity(optax.tree.zeros_like(params))

        def update(updates, state, params=None):
            m = ema(state.m, updates, self.beta)
            u = ema(m, updates, self.beta) if self.nesterov else m
            return u, Velocity(m)

        return optax.GradientTransformation(init, update)

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

    def response(self, state=None):
        m = (1 - self.beta) / (1 + self.beta)
        if not self.nesterov:
            return Response(m)
        return Response(self.beta * m + (1 - self.beta), lead=self.beta)


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class HeavyBall(Momentum):
    """Momentum that is a sum: v ← β v + g,  θ ← θ − lr·v  (Polyak 1964).

    It is torch's SGD(momentum) and `optax.sgd(momentum)`, both also with `nesterov`,
    and Momentum with lr/(1−β) for lr. SDE: dθ = −lr·v dt,
    dv = (∇f − (1−β) v) dt + Σ^{1/2} dW. Rule: lr·κ², and 1 − β grows by κ.

    >>> import jax.numpy as jnp
    >>> transform = HeavyBall(lr=0.1, beta=0.5).transform()
    >>> params, grads = jnp.array([1.0, 2.0]), jnp.array([2.0, -4.0])
    >>> updates, state = transform.update(grads, transform.init(params), params)
    >>> print(params + updates)
    [0.8 2.4]
    """

    lr: Scalar = 0.01
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

    def limit(self, keep_signal: bool = False) -> Limit:
        def drift(state, mean, variance):
            dv = jax.tree.map(lambda g, v: g - (1 - self.beta) * v, mean, state.m)
            return state.m, Velocity(dv)

        def noise(state, mean, variance, kick, spare):
            return optax.tree.zeros_like(kick), Velocity(kick)

        return Limit(drift, noise)

    def response(self, state=None):
        return super().response()._replace(friction=1 - self.beta)

    def lr_factor(self, kappa, decays):
        """Returns κ for the longer step, times 1/κ' for the shorter velocity."""
        return kappa * ((1 - decays["beta"]) / (1 - self.beta))

    def rescale_state(self, state, kappa, new, signal=0.0):
        shorter = (1 - self.beta) / (1 - new.beta)
        return Velocity(jax.tree.map(lambda v: v * shorter, state.m))
