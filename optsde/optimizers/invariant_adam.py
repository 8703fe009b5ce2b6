"""Batch-size-invariant Adam, whose v is that of a micro-batch at any batch."""

import dataclasses
import math
from typing import ClassVar

import jax

from optsde.optimizers.adam import Adam
from optsde.optimizers.base import register
from optsde.optimizers.moments import second_moment, square
from optsde.optimizers.rules import Memory, Power
from optsde.squares import Squares


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class InvariantAdam(Adam):
    """Adam with v from micro-batches  (Wang and Aitchison 2024, arXiv 2402.18824).

    m averages the gradient, v the squares of the gradients of its `micros`
    micro-batches:

        m ← b1 m + (1−b1) ḡ,   v ← b2 v + (1−b2) mean_j g_j²,   θ ← θ − lr·m̂/(√v̂ + ε)

    With G = (∇f)² and N the variance of a micro-batch's gradient, E of what enters v is
    G + N at any batch of such micro-batches. So lr·κ, 1 − β → κ(1 − β) and ε unchanged
    keep the run with no condition on the noise, where Adam's √κ needs N ≫ κG. At
    `micros=1` it is Adam. A run draws the micro-batches itself, from any sampler; as
    plain optax, an update takes `optsde.squares.Squares`.

    SDE: Adam's, but for dv = (1−b2)(micros·diag Σ + (∇f)² − v) dt, with Σ that of the
    whole step's gradient. Nothing of it vanishes with κ, so `keep_signal` changes
    nothing. Under SVAG(ℓ) `micros` falls by ℓ, as the noise of a step grows: both of
    its draws have the micro-batches of the base run, and v takes them all alike.

    >>> import jax.numpy as jnp
    >>> transform = InvariantAdam(lr=0.1, eps=1.0, micros=2).transform()
    >>> params, grads = jnp.array([1.0, 2.0]), jnp.array([[1.0, -4.0], [7.0, -4.0]])
    >>> mean, square = grads.mean(0), (grads**2).mean(0)
    >>> squares = Squares(mean, mean, square)
    >>> updates, state = transform.update(squares, transform.init(params), params)
    >>> print(params + updates)
    [0.93333334 2.08      ]
    """

    micros: float = dataclasses.field(default=1.0, metadata=dict(static=True))
    adaptive: ClassVar[bool] = False
    jumps: ClassVar[bool] = False  # micros·diag Σ needs a variance
    noise_exponent: ClassVar[int] = 1
    rule = {
        "lr": Power(1, "v is the same at any batch, and κ times fewer steps go as far"),
        "b1": Memory(),
        "b2": Memory(),
        "eps": Power(0, "ε is compared with √v, which stays"),
        "eps_root": Power(0, "ε inside the root is compared with v, which stays"),
        "micros": Power(1, "micro-batches of the same size"),
    }
    state_rule = {}

    def checked(self):
        if not (self.micros > 0 and math.isfinite(self.micros)):
            raise ValueError(f"micros={self.micros}: needs a positive number")
        return super().checked()

    def micro_batches(self, noise_gain: float = 1.0) -> int:
        """Returns micros·noise_gain, a whole number ≥ 1, or refuses."""
        count = self.micros * noise_gain
        if round(count) < 1 or not math.isclose(count, round(count), rel_tol=1e-9):
            raise ValueError(
                f"micros={self.micros:g} in a step whose noise gain is {noise_gain:g} "
                f"makes {count:g} micro-batches, and must make a whole number of them: "
                "give the base run `micros` that κ divides into one"
            )
        return round(count)

    def _entering(self, updates, state):
        if isinstance(updates, Squares):
            return updates.grad, updates.square
        if self.micros != 1:
            raise ValueError(
                f"micros={self.micros:g}: an update needs Squares, of which the square "
                "cannot be made from one gradient; only micros=1 takes that"
            )
        return updates, square(updates)

    def _second_moment(self, mean, variance, keep_signal):
        of_micro_batch = jax.tree.map(lambda s: self.micros * s, variance)
        return second_moment(mean, of_micro_batch, keep_signal=True)
