"""LAMB: Adam's direction of each parameter, as long as the parameter itself."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from optsde.optimizers.adam import Adam
from optsde.optimizers.base import Optimizer, register
from optsde.optimizers.ito import Limit
from optsde.optimizers.rules import Memory, Power
from optsde.types import Scalar


def trusted(u: jax.Array, x: jax.Array) -> jax.Array:
    """Returns u·‖x‖/‖u‖ of one parameter, and u where either norm is 0."""
    length, norm = jnp.linalg.norm(x.ravel()), jnp.linalg.norm(u.ravel())
    some = (length > 0) & (norm > 0)
    return u * jnp.where(some, length / jnp.where(some, norm, 1), 1).astype(u.dtype)


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class LAMB(Optimizer):
    """LAMB: θ ← θ − lr·‖θ‖·u/‖u‖,  u = m̂/(√v̂+ε) + ρ θ  (You et al. 2020, 1904.00962).

    m̂ and v̂ are Adam's, and norms are of one parameter, as a matrix or a bias; where one
    of them is 0, ‖θ‖/‖u‖ counts as 1. It is `optax.lamb`, whose weight_decay is the
    `inner_decay` ρ here. `weight_decay` and `absolute_decay` act outside of the norms,
    as on any other optimizer.

    Rule: ‖u‖ is divided out, and m̂/√v̂ with it grows by √κ while its *direction* has one
    law at every batch if 1 − b1 and 1 − b2 grow by κ. So lr·κ, and ρ·√κ. The published
    lr·√κ is right only where the decays stay as they are, their memories are short in
    everything that changes, and noise makes up m̂: then the direction is that of noise,
    as SignSGD's is.

    SDE: Adam's of m, v and the weights, with dθ = −lr·‖θ‖·u/‖u‖ dt.

    >>> transform = LAMB(lr=0.1).transform()
    >>> params, grads = jnp.array([3.0, 4.0]), jnp.array([1.0, -1.0])
    >>> updates, state = transform.update(grads, transform.init(params), params)
    >>> print(updates)  # of length 0.1 · 5
    [-0.35355338  0.35355338]
    """

    lr: Scalar = 1e-3
    b1: Scalar = 0.9
    b2: Scalar = 0.999
    eps: Scalar = 1e-6
    eps_root: Scalar = 0.0
    inner_decay: Scalar = 0.0
    noise_exponent: ClassVar[int] = 1
    jumps: ClassVar[bool] = True
    rule = {
        "lr": Power(1, "the step has one length, and κ times fewer steps go as far"),
        "b1": Memory(),
        "b2": Memory(),
        "eps": Power(-0.5, "ε is compared with √v"),
        "eps_root": Power(-1, "ε inside the root is compared with v"),
        "inner_decay": Power(0.5, "ρθ is compared with m/√v, which grows by √κ"),
    }
    state_rule = Adam.state_rule

    def _adam(self) -> Adam:
        return Adam(b1=self.b1, b2=self.b2, eps=self.eps, eps_root=self.eps_root)

    def direction(self) -> optax.GradientTransformation:
        return self._adam().direction()

    def limit(self, keep_signal: bool = False) -> Limit:
        return self._adam().limit(keep_signal)

    def _velocity(self, u, x):
        return super()._velocity(trusted(u + self.inner_decay * x, x), x)
