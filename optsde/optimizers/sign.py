"""SignSGD and Signum: only the sign of the gradient, or of its average, is used."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from optsde.optimizers.base import Optimizer, register
from optsde.optimizers.ito import Limit
from optsde.optimizers.moments import standardized
from optsde.optimizers.rules import Memory, Power
from optsde.optimizers.sgd import Momentum, Velocity
from optsde.types import Scalar


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class SignSGD(Optimizer):
    """Sign descent, θ ← θ − lr·sign(g)  (Bernstein et al. 2018): `optax.sign_sgd`.

    Rule: lr·√κ. SDE for Gaussian noise, dominated by it:
    dθ = −lr·(√(2/π) ∇f/√Σ dt + dB), where B has the correlations of the gradient noise
    and unit variance; the correlations are exact for diagonal Σ. `keep_signal` gives
    the form of Compagnoni et al. (2024),
    dθ = −lr·(erf(∇f/√(2Σ)) dt + √(1 − erf²) dB). The drift depends on the noise's
    density at zero, so that SVAG, whose mix has another shape of noise, approaches this
    SDE only where the gradient noise is Gaussian: under Laplace noise SVAG's drift is
    √(π/2) = 1.25 times the SDE's, that of a difference of two draws.

    >>> import jax.numpy as jnp
    >>> transform = SignSGD(lr=0.1).transform()
    >>> params, grads = jnp.array([1.0, 2.0]), jnp.array([3.0, -4.0])
    >>> updates, state = transform.update(grads, transform.init(params), params)
    >>> print(params + updates)
    [0.9 2.1]
    """

    lr: Scalar = 1e-3
    rule = {"lr": Power(0.5, "the sign's noise adds up as √steps at any batch")}

    def direction(self) -> optax.GradientTransformation:
        return optax.stateless(lambda grads, params: jax.tree.map(jnp.sign, grads))

    def limit(self, keep_signal: bool = False) -> Limit:
        def mean_sign(g, s):
            ratio = standardized(g, s)
            if keep_signal:
                return jax.lax.erf(ratio / math.sqrt(2))
            return ratio * math.sqrt(2 / math.pi)

        def drift(state, mean, variance):
            return jax.tree.map(mean_sign, mean, variance), state

        def noise(state, mean, variance, kick, spare):
            unit = jax.tree.map(standardized, kick, variance)
            if keep_signal:
                drift = jax.tree.map(mean_sign, mean, variance)
                unit = jax.tree.map(lambda b, u: b * jnp.sqrt(1 - u * u), unit, drift)
            return unit, state

        return Limit(drift, noise)


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Signum(Optimizer):
    """Signum: m ← β m + (1−β) g,  θ ← θ − lr·sign(m)  (Bernstein et al. 2018).

    Rule: sign(m) does not shrink with the noise, so lr follows the memory, lr·κ.
    SDE: dθ = −lr·sign(m) dt,  dm = (1−β)((∇f − m) dt + Σ^{1/2} dW). The mean gradient
    enters m alike at every κ and nothing of it vanishes, so that `keep_signal` changes
    nothing. In optax it is `ema(β, debias=False)`, then `scale_by_sign()`.

    >>> import jax.numpy as jnp
    >>> transform = Signum(lr=0.1).transform()
    >>> params, grads = jnp.array([1.0, 2.0]), jnp.array([3.0, -4.0])
    >>> updates, state = transform.update(grads, transform.init(params), params)
    >>> print(params + updates)
    [0.9 2.1]
    """

    lr: Scalar = 1e-3
    beta: Scalar = 0.9
    noise_exponent: ClassVar[int] = 1
    jumps: ClassVar[bool] = True
    rule = {
        "lr": Power(
            1, "sign(m) lasts for a memory of m, which has κ times fewer steps"
        ),
        "beta": Memory(),
    }

    def _momentum(self) -> Momentum:
        return Momentum(lr=self.lr, beta=self.beta)

    def direction(self) -> optax.GradientTransformation:
        momentum = self._momentum().direction()

        def update(updates, state, params=None):
            m, state = momentum.update(updates, state)
            return jax.tree.map(jnp.sign, m), state

        return optax.GradientTransformation(momentum.init, update)

    def limit(self, keep_signal: bool = False) -> Limit:
        momentum = self._momentum().limit()

        def drift(state: Velocity, mean, variance):
            m, flow = momentum.drift(state, mean, variance)
            return jax.tree.map(jnp.sign, m), flow

        return Limit(drift, momentum.noise)
