"""RMSprop, in each of the forms that papers and libraries call by that name."""

import dataclasses
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optsde.optimizers.base import Optimizer, ema, register
from optsde.optimizers.ito import Limit
from optsde.optimizers.moments import (
    debias,
    debias_or,
    denominator,
    filled,
    precondition,
    refuse_empty_start,
    second_moment,
    square,
)
from optsde.optimizers.response import Response
from optsde.optimizers.rules import Memory, Power
from optsde.types import PyTree, Scalar


class RMSpropState(NamedTuple):
    v: PyTree  # like params
    weight: jax.Array  # scalar, 1 − β^k


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class RMSprop(Optimizer):
    """RMSprop: v ← β v + (1−β) g²,  θ ← θ − lr·g/(√(v + eps_root) + eps).

    The defaults are those of the experiments of Malladi et al. (2022): bias correction
    and the current v, that is Adam with b1 = 0. Their analysis has neither
    (`bias_correction=False, lagged=True`: the step divides by the v of the step before,
    which must not start at zero: set `v0`). `optax.rmsprop` and TensorFlow put ε inside
    the root (`eps_root`), without bias correction; torch's RMSprop puts it outside.

    SDE: dθ = −lr·P⁻¹(∇f dt + Σ^{1/2} dW),  dv = (1−β)(diag Σ − v) dt. It needs the bias
    correction or v0 > 0: from v = 0 its noise diverges. Rule: lr·√κ, and 1 − β grows
    by κ.

    >>> import jax.numpy as jnp
    >>> transform = RMSprop(lr=0.1, eps=1.0).transform()
    >>> params, grads = jnp.array([1.0, 2.0]), jnp.array([3.0, -4.0])
    >>> updates, state = transform.update(grads, transform.init(params), params)
    >>> print(params + updates)
    [0.925 2.08 ]
    """

    lr: Scalar = 1e-3
    beta: Scalar = 0.99
    eps: Scalar = 1e-8
    eps_root: Scalar = 0.0
    v0: Scalar = 0.0
    bias_correction: bool = True
    lagged: bool = False
    adaptive: ClassVar[bool] = True
    rule = {
        "lr": Power(0.5, "√v shrinks by √κ, which lengthens the step by √κ already"),
        "beta": Memory(),
        "eps": Power(-0.5, "ε is compared with √v"),
        "eps_root": Power(-1, "ε inside the root is compared with v"),
        "v0": Power(-1, "v is the variance of a batch κ times larger"),
    }
    state_rule = {"v": -1}

    def checked(self) -> Self:
        super().checked()
        if isinstance(self.v0, jax.core.Tracer):
            return self
        zero = np.min(self.v0) == 0
        if self.lagged and not self.bias_correction and zero:
            raise ValueError(
                f"v0={self.v0}: a lagged v without bias correction divides the first "
                "step by √v0; set v0 > 0, such as the variance of the gradient"
            )
        if self.bias_correction and np.max(self.v0) > 0:
            raise ValueError(
                f"v0={self.v0}: bias correction is for a v that starts from 0; set "
                "v0=0 or bias_correction=False"
            )
        return self

    def checked_start(self) -> Self:
        if not self.bias_correction:
            remedy = (
                "set bias_correction=True or v0 > 0, such as the gradient's variance"
            )
            refuse_empty_start("v0", self.v0, self.eps, self.eps_root, remedy)
        return self

    def direction(self) -> optax.GradientTransformation:
        def init(params):
            return RMSpropState(filled(params, self.v0), jnp.zeros(()))

        def update(updates, state, params=None):
            new = RMSpropState(
                ema(state.v, square(updates), self.beta),
                ema(state.weight, jnp.ones(()), self.beta),
            )
            used = state if self.lagged else new
            v = used.v
            if self.bias_correction and self.lagged:
                v = debias_or(v, used.weight, square(updates))
            elif self.bias_correction:
                v = debias(v, used.weight)
            return precondition(updates, v, self.eps, self.eps_root), new

        return optax.GradientTransformation(init, update)

    def preconditioner(self, state, params):
        v = state.v
        if self.bias_correction:
            v = debias_or(v, state.weight, filled(params, 1))
        return denominator(v, self.eps, self.eps_root)

    def preconditioner_memory(self):
        return 1 / (1 - self.beta)

    def response(self, state=None):
        return Response()

    def limit(self, keep_signal: bool = False) -> Limit:
        c = 1 - self.beta

        def estimate(state, at_start):
            if not self.bias_correction:
                return state.v
            return debias_or(state.v, state.weight, at_start)

        def drift(state, mean, variance):
            second = second_moment(mean, variance, keep_signal)
            dv = jax.tree.map(lambda s, v: c * (s - v), second, state.v)
            v = estimate(state, second)
            flow = RMSpropState(dv, c * (1 - state.weight))
            return precondition(mean, v, self.eps, self.eps_root), flow

        def noise(state, mean, variance, kick, spare):
            v = estimate(state, second_moment(mean, variance, keep_signal))
            still = optax.tree.zeros_like(state)
            return precondition(kick, v, self.eps, self.eps_root), still

        return Limit(drift, noise)
