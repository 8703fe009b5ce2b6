"""Schedule-free SGD and Adam: steps of z, and an average x of it, joined at y.

With c = 1/k in step k,

    z ← z − lr·u(y),    x ← (1 − c) x + c z,    y ← (1 − β) z + β x,

where u is the direction of SGD, or of Adam without momentum, for the gradient at y, and
z takes the decays of the weights and the schedule too. A run's parameters are y. Their
x is the average `ScheduleFreeMean`, which a plan takes as it takes an EMA. Kept are y
and `apart`, z − x: then y moves by

    dy = (1 − β + βc) dz + βc (z − x),      z − x ← (1 − c)(z − x + dz).

The average is over all of the past, with equal weights. So its c falls as 1/t with the
time t in samples, no number of it follows κ, and the limit is dx = (z − x) dt/t.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax

from optsde.checks import BELOW_1, check_number
from optsde.optimizers.averaging import ScheduleFreeMean
from optsde.optimizers.base import Optimizer, register
from optsde.optimizers.ito import ItoSystem, Limit
from optsde.optimizers.rmsprop import RMSprop
from optsde.optimizers.rules import Memory, Power
from optsde.optimizers.sgd import SGD
from optsde.types import PyTree, Scalar, Schedule


class ScheduleFreeState(NamedTuple):
    inner: PyTree  # the memory of the steps of z
    apart: PyTree  # like params; z − x
    steps: jax.Array  # scalar; how many were taken


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleFree(Optimizer):
    """The base class of families whose z takes the steps of another: `inner()`."""

    beta: Scalar = 0.9

    def inner(self) -> Optimizer:
        """Returns the optimizer whose direction z takes."""
        raise NotImplementedError(f"{type(self).__name__} must define inner()")

    def average(self) -> ScheduleFreeMean:
        return ScheduleFreeMean(self.beta)

    def checked(self) -> Self:
        check_number("beta", self.beta, "0 ≤ beta < 1", 0, BELOW_1)
        return super().checked()

    def checked_start(self) -> Self:
        self.inner().checked_start()
        return self

    def direction(self) -> optax.GradientTransformation:
        """Returns the direction of z, which leaves the rest of the state alone."""
        direction = self.inner().direction()

        def init(params):
            apart = optax.tree.zeros_like(params)
            return ScheduleFreeState(direction.init(params), apart, jnp.zeros(()))

        def update(updates, state, params=None):
            u, inner = direction.update(updates, state.inner, params)
            return u, state._replace(inner=inner)

        return optax.GradientTransformation(init, update)

    def limit(self, keep_signal: bool = False) -> Limit:
        """Returns the part of the SDE that moves z."""
        limit = self.inner().limit(keep_signal)

        def drift(state, mean, variance):
            u, inner = limit.drift(state.inner, mean, variance)
            return u, optax.tree.zeros_like(state)._replace(inner=inner)

        def noise(state, mean, variance, kick, spare):
            u, inner = limit.noise(state.inner, mean, variance, kick, spare)
            return u, optax.tree.zeros_like(state)._replace(inner=inner)

        return Limit(drift, noise)

    def transform(
        self,
        schedule: Schedule | None = None,
        dt: float = 1.0,
        boost: Schedule | None = None,
    ) -> optax.GradientTransformation:
        of_z: Any = super().transform(schedule, dt, boost)

        def update(updates, state, params=None):
            moved, state = of_z.update(updates, state, params)
            old = state.direction
            steps = old.steps + 1
            c = 1 / steps
            change = self._joined(c, moved, old.apart)
            apart = jax.tree.map(
                lambda d, e: ((1 - c) * (e + d)).astype(e.dtype), moved, old.apart
            )
            new = old._replace(apart=apart, steps=steps)
            return change, state._replace(direction=new)

        return optax.GradientTransformation(of_z.init, update)

    def _joined(self, c: Scalar, moved: PyTree, apart: PyTree) -> PyTree:
        """Returns (1 − β + βc) dz + βc (z − x)."""
        drawn = self.beta * c
        own = 1 - self.beta + drawn
        return jax.tree.map(
            lambda d, e: (own * d + drawn * e).astype(e.dtype), moved, apart
        )

    def sde(
        self,
        schedule: Schedule | None = None,
        dt: float = 1.0,
        keep_signal: bool = False,
        *,
        memory: str = "linear",
        boost: Schedule | None = None,
    ) -> ItoSystem:
        """Returns dy = (1−β) dz + β (z−x) dt/t and d(z−x) = dz − (z−x) dt/t.

        dz is that of the SDE of `inner`, at y.
        """
        of_z = super().sde(schedule, dt, keep_signal, memory=memory, boost=boost)

        def drift(t, params, state, mean, variance):
            dz, flow = of_z.drift(t, params, state, mean, variance)
            started = state.steps > 0
            c = jnp.where(started, 1 / jnp.where(started, state.steps, 1), 0)
            apart = jax.tree.map(lambda d, e: d - c * e, dz, state.apart)
            dy = jax.tree.map(
                lambda d, e: (1 - self.beta) * d + self.beta * c * e, dz, state.apart
            )
            return dy, flow._replace(apart=apart, steps=jnp.ones(()))

        def noise(t, params, state, mean, variance, kick, spare):
            dz, still = of_z.noise(t, params, state, mean, variance, kick, spare)
            dy = jax.tree.map(lambda d: (1 - self.beta) * d, dz)
            return dy, still._replace(apart=dz)

        return ItoSystem(of_z.init, drift, noise)

    def rescale_state(self, state, kappa, new, signal=0.0):
        inner = self.inner().rescale_state(state.inner, kappa, new.inner(), signal)
        return state._replace(inner=inner, steps=state.steps / kappa)


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleFreeSGD(ScheduleFree):
    """Schedule-free SGD (Defazio et al. 2024, arXiv 2405.15682).

    z ← z − lr·g(y),  x ← (1 − 1/k) x + z/k,  y ← (1−β) z + β x. A run's parameters are
    y; evaluate at x, with `Plan(average=optimizer.average())`. At a constant lr it is
    `optax.contrib.schedule_free_sgd`; while lr warms up, that has `weight_lr_power=0`,
    since all weights of x are equal here. At β = 0, x is Polyak's average of SGD.

    Rule: lr·κ, and β stays: the average is over all samples at any κ. SDE: with
    dz = −lr·(∇f(y) dt + Σ^{1/2} dW), dx = (z − x) dt/t and y = (1−β) z + β x.

    There is no stationary state and no `response`, so that stability threshold and
    prediction refuse.

    >>> import jax.numpy as jnp
    >>> transform = ScheduleFreeSGD(lr=0.1, beta=0.5).transform()
    >>> params, grads = jnp.array([1.0, 2.0]), jnp.array([2.0, -4.0])
    >>> state = transform.init(params)
    >>> for _ in range(2):
    ...     updates, state = transform.update(grads, state, params)
    ...     params = params + updates
    >>> print(params)  # z has moved twice, x has its mean
    [0.65 2.7 ]
    """

    lr: Scalar = 0.1
    noise_exponent: ClassVar[int] = 1
    jumps: ClassVar[bool] = True
    rule = {
        "lr": Power(1, "κ times fewer steps of z must go as far"),
        "beta": Power(0, "x averages z over all samples, and y stays between them"),
    }

    def inner(self):
        return SGD(lr=self.lr)


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleFreeAdam(ScheduleFree):
    """Schedule-free Adam, and AdamW with `weight_decay` (Defazio et al. 2024).

    As ScheduleFreeSGD, with z ← z − lr·g(y)/(√(v̂+eps_root)+eps) and v as Adam has it:
    β in place of b1. At a constant lr it is `optax.contrib.schedule_free_adamw`, where
    z decays by the weights y.

    Rule: lr·√κ, 1 − b2 grows by κ, and β stays. SDE: with RMSprop's dz, taken at y,
    dx = (z − x) dt/t and y = (1−β) z + β x.

    >>> import jax.numpy as jnp
    >>> transform = ScheduleFreeAdam(lr=0.1, beta=0.5, eps=1.0).transform()
    >>> params, grads = jnp.array([1.0, 2.0]), jnp.array([3.0, -4.0])
    >>> updates, state = transform.update(grads, transform.init(params), params)
    >>> print(params + updates)
    [0.925 2.08 ]
    """

    lr: Scalar = 2.5e-3
    b2: Scalar = 0.999
    eps: Scalar = 1e-8
    eps_root: Scalar = 0.0
    rule = {
        "lr": Power(0.5, "√v shrinks by √κ, which lengthens the step by √κ already"),
        "beta": Power(0, "x averages z over all samples, and y stays between them"),
        "b2": Memory(),
        "eps": Power(-0.5, "ε is compared with √v"),
        "eps_root": Power(-1, "ε inside the root is compared with v"),
    }

    def inner(self):
        return RMSprop(lr=self.lr, beta=self.b2, eps=self.eps, eps_root=self.eps_root)
