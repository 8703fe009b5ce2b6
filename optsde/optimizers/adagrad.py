"""AdaGrad: the sum of squared gradients sets the step.

At κ times the batch the noise that fills s is κ times smaller in variance and is added
κ times less often, so s is κ² smaller at the same time and the step κ times longer by
itself: lr stays, and what is compared with s follows it.
"""

import dataclasses
import math
from typing import ClassVar, NamedTuple, Self

import jax
import optax

from optsde.optimizers.base import Optimizer, register
from optsde.optimizers.ito import Limit
from optsde.optimizers.moments import (
    denominator,
    filled,
    precondition,
    refuse_empty_start,
    second_moment,
)
from optsde.optimizers.response import Response
from optsde.optimizers.rules import Power
from optsde.types import PyTree, Scalar


class AdaGradState(NamedTuple):
    s: PyTree  # like params, Σ g²


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaGrad(Optimizer):
    """AdaGrad: s ← s + g²,  θ ← θ − lr·g/(√(s + eps_root) + eps)  (Duchi et al. 2011).

    SDE: dθ = −lr·P⁻¹(∇f dt + Σ^{1/2} dW),  ds = diag Σ dt,  P = √(s + eps_root) + eps.
    Rule: lr stays, ε falls by κ. `optax.adagrad` has its ε inside the root (`eps_root`)
    and starts s at 0.1, as TensorFlow does and as `s0` does here. torch's Adagrad is
    this one without its `lr_decay`, and starts from s0 = 0. An SDE cannot start there,
    since its noise lr² ∫ Σ/s dt diverges: set s0 of the order of the noise variance of
    one batch.

    >>> import jax.numpy as jnp
    >>> transform = AdaGrad(lr=0.1, eps=1.0, s0=0.0).transform()
    >>> params, grads = jnp.array([1.0, 2.0]), jnp.array([3.0, -4.0])
    >>> updates, state = transform.update(grads, transform.init(params), params)
    >>> print(params + updates)
    [0.925 2.08 ]
    """

    lr: Scalar = 0.01
    eps: Scalar = 1e-8
    eps_root: Scalar = 0.0
    s0: Scalar = 0.1
    adaptive: ClassVar[bool] = True
    rule = {
        "lr": Power(0, "√s shrinks by κ, which lengthens the step by κ already"),
        "eps": Power(-1, "ε is compared with √s"),
        "eps_root": Power(-2, "ε inside the root is compared with s"),
        "s0": Power(-2, "s sums κ times fewer squares, each κ times smaller"),
    }
    state_rule = {"s": -2}

    def checked_start(self) -> Self:
        remedy = "set s0 > 0, of the order of the noise variance of one batch"
        refuse_empty_start("s0", self.s0, self.eps, self.eps_root, remedy)
        return self

    def direction(self) -> optax.GradientTransformation:
        def init(params):
            return AdaGradState(filled(params, self.s0))

        def update(updates, state, params=None):
            s = jax.tree.map(lambda s, g: (s + g * g).astype(s.dtype), state.s, updates)
            return precondition(updates, s, self.eps, self.eps_root), AdaGradState(s)

        return optax.GradientTransformation(init, update)

    def preconditioner(self, state, params):
        return denominator(state.s, self.eps, self.eps_root)

    def preconditioner_memory(self):
        return math.inf

    def response(self, state=None):
        return Response()

    def limit(self, keep_signal: bool = False) -> Limit:
        def drift(state, mean, variance):
            ds = second_moment(mean, variance, keep_signal)
            u = precondition(mean, state.s, self.eps, self.eps_root)
            return u, AdaGradState(ds)

        def noise(state, mean, variance, kick, spare):
            u = precondition(kick, state.s, self.eps, self.eps_root)
            return u, optax.tree.zeros_like(state)

        return Limit(drift, noise)
