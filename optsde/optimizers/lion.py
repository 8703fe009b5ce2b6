"""Lion: the sign of an average that leans towards the newest gradient."""

import dataclasses
import math
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optsde.optimizers.base import Optimizer, ema, register
from optsde.optimizers.ito import Limit
from optsde.optimizers.moments import standardized
from optsde.optimizers.rules import Memory, Power, check_memory
from optsde.optimizers.sgd import Velocity
from optsde.types import Scalar


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Lion(Optimizer):
    """Lion: θ ← θ − lr·sign(b1 m + (1−b1) g),  m ← b2 m + (1−b2) g  (Chen et al. 2023).

    It is `optax.lion`. No rule is exact. This one matches the mean of the sign under
    noise: b2 → b2^κ, b1 → b1·b2^(κ−1), lr·√(κ G'/G), where G = (1−b1)² +
    b1²(1−b2)/(1+b2) is the share of the gradient's variance that reaches the sign. Both
    decays stay positive at any κ, so there is no linear form. κ < 1 needs b1 ≤ b2.

    SDE for Gaussian noise (κ → 0; a = 1 − b1/b2, G and r = a/√G as above):
    dθ = −lr·(√(2/π) (b1/b2·m + a ∇f)/√(G Σ) dt + r dB),
    dm = −ln b2·((∇f − m) dt + Σ^{1/2} dW),  d⟨B, W⟩ = √(2/π) dt.
    `keep_signal` gives the mean and the variance of a step of the base run given m,
    with x = (b1·m + (1−b1) ∇f)/((1−b1) √Σ):
    dθ = −lr·(erf(x/√2) dt + dB),  d⟨B⟩ = (1 − erf²) dt,  d⟨B, W⟩ = √(2/π) e^(−x²/2) dt.
    As for SignSGD, the drift depends on the noise's density at zero, so that SVAG
    approaches this SDE only where the gradient noise is Gaussian.

    >>> import jax.numpy as jnp
    >>> transform = Lion(lr=0.1).transform()
    >>> params, grads = jnp.array([1.0, 2.0]), jnp.array([3.0, -4.0])
    >>> updates, state = transform.update(grads, transform.init(params), params)
    >>> print(params + updates)
    [0.9 2.1]
    """

    lr: Scalar = 1e-4
    b1: Scalar = 0.9
    b2: Scalar = 0.99
    rule = {
        "lr": Power(0.5, "√κ for the sign's noise, √(G'/G) for the share of it"),
        "b1": Memory("the newest gradient keeps its share of the memory"),
        "b2": Memory(),
    }

    def direction(self) -> optax.GradientTransformation:
        def init(params):
            return Velocity(optax.tree.zeros_like(params))

        def update(updates, state, params=None):
            u = jax.tree.map(jnp.sign, ema(state.m, updates, self.b1))
            return u, Velocity(ema(state.m, updates, self.b2))

        return optax.GradientTransformation(init, update)

    def limit(self, keep_signal: bool = False) -> Limit:
        c, correlation = -jnp.log(self.b2), math.sqrt(2 / math.pi)
        kept = self.b1 if keep_signal else self.b1 / self.b2
        newest = 1 - kept
        spread = newest if keep_signal else jnp.sqrt(_share(self.b1, self.b2))

        def leaning(m, g, s):
            """Returns the mean of what the sign is taken of, in its deviations."""
            return standardized(kept * m + newest * g, s) / spread

        def mean_sign(m, g, s):
            x = leaning(m, g, s)
            return jax.lax.erf(x / math.sqrt(2)) if keep_signal else correlation * x

        def sign_noise(m, g, s, k, z):
            x = leaning(m, g, s) if keep_signal else jnp.zeros_like(m)
            shared = correlation * jnp.exp(-x * x / 2)  # of the sign and the gradient
            own = 1 - jax.lax.erf(x / math.sqrt(2)) ** 2 - shared**2
            own = jnp.where(s > 0, jnp.sqrt(jnp.maximum(own, 0)) * z, 0)
            return newest / spread * (shared * standardized(k, s) + own)

        def drift(state, mean, variance):
            u = jax.tree.map(mean_sign, state.m, mean, variance)
            return u, Velocity(jax.tree.map(lambda g, m: c * (g - m), mean, state.m))

        def noise(state, mean, variance, kick, spare):
            u = jax.tree.map(sign_noise, state.m, mean, variance, kick, spare)
            return u, Velocity(jax.tree.map(lambda k: c * k, kick))

        return Limit(drift, noise)

    def checked_start(self) -> Self:
        """Returns itself if κ → 0 has a limit, which needs b1 ≤ b2 and b2 > 0."""
        concrete = not any(isinstance(x, jax.core.Tracer) for x in (self.b1, self.b2))
        if concrete and np.any(np.greater(self.b1, self.b2) | np.equal(self.b2, 0)):
            raise ValueError(
                f"b1={self.b1}, b2={self.b2}: the SDE of Lion needs b1 ≤ b2 and "
                "b2 > 0, else b1·b2^(κ−1) leaves [0, 1) as κ → 0"
            )
        return self

    def in_the_limit(self, memory):
        """Returns itself: its SDE is that of the powers, whatever the word."""
        check_memory(memory)
        return self

    def decays_at(self, kappa, memory):
        """Returns b1·b2^(κ−1) and b2^κ; there is no linear form."""
        concrete = not any(
            isinstance(x, jax.core.Tracer) for x in (kappa, self.b1, self.b2)
        )
        if concrete and np.any(kappa < 1) and np.any(np.greater(self.b1, self.b2)):
            raise ValueError(
                f"b1={self.b1}, b2={self.b2}: at kappa={kappa:g} < 1 (SVAG, smaller "
                "batches) Lion needs b1 ≤ b2, else b1 would leave [0, 1)"
            )
        return {"b1": self.b1 * self.b2 ** (kappa - 1), "b2": self.b2**kappa}

    def lr_factor(self, kappa, decays):
        """Returns √(κ G'/G)."""
        return (kappa * _share(**decays) / _share(self.b1, self.b2)) ** 0.5


def _share(b1: Scalar, b2: Scalar) -> Scalar:
    """Returns G, the share of the gradient's variance that reaches the sign."""
    return (1 - b1) ** 2 + b1**2 * (1 - b2) / (1 + b2)
