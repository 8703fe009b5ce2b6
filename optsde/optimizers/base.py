"""What every optimizer is: an update, a scaling rule and an SDE, told once.

A family's file says how a gradient becomes a *direction* u and what that does to its
state, in discrete time (`direction`) and in the limit (`limit`). The rest is the same
for all of them and stands here:

    θ ← θ − s(t) · (lr · (u + λ θ) + w θ),     u = direction(g + l2 · θ)
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optsde.optimizers.ito import ItoSystem, Limit
from optsde.optimizers.rules import Memory, Power, check_memory, remember
from optsde.optimizers.stability import Stability
from optsde.types import PyTree, Scalar, Schedule


class Clock(NamedTuple):
    """The time of a run, in base steps: `count` steps of length `dt` after `origin`.

    Time is a product and never a sum, so that it does not drift.

        >>> clock = Clock.start(0.5)
        >>> float(clock.tick().tick().time)
        1.0
    """

    count: jax.Array  # int32
    origin: jax.Array  # float
    dt: jax.Array  # float

    @classmethod
    def start(cls, dt: Scalar, origin: Scalar = 0.0) -> "Clock":
        """Returns a clock that stands at `origin` and goes on in steps of `dt`."""
        return cls(jnp.int32(0), jnp.asarray(origin, float), jnp.asarray(dt, float))

    @property
    def time(self) -> jax.Array:
        return self.origin + self.count * self.dt

    def paced(self, dt: float) -> "Clock":
        """Returns the clock at the same time, which goes on in steps of `dt`."""
        other = self.dt != dt
        return Clock(
            jnp.where(other, 0, self.count),
            jnp.where(other, self.time, self.origin),
            jnp.full_like(self.dt, dt),
        )

    def tick(self) -> "Clock":
        """Returns the clock one step later."""
        return self._replace(count=self.count + 1)


class OptimizerState(NamedTuple):
    """The state of an optimizer in a run, discrete or in the limit."""

    clock: Clock
    direction: PyTree  # the family's own state


REGISTRY: dict[str, type["Optimizer"]] = {}


def register(cls: type["Optimizer"]) -> type["Optimizer"]:
    """Make a family known by its lower-case name, and its hyperparameters traceable.

    Fields of type `bool` are static; all others are leaves of the pytree.
    """
    fields = dataclasses.fields(cls)
    static = [field.name for field in fields if field.type in (bool, "bool")]
    traced = [field.name for field in fields if field.name not in static]
    jax.tree_util.register_dataclass(cls, data_fields=traced, meta_fields=static)
    REGISTRY[cls.__name__.lower()] = cls
    return cls


def by_name(name: str) -> type["Optimizer"]:
    """The registered family of that name."""
    if name not in REGISTRY:
        allowed = ", ".join(sorted(REGISTRY))
        raise ValueError(f"optimizer {name!r} is not known; one of: {allowed}")
    return REGISTRY[name]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(Stability):
    """A family's hyperparameters; a pytree, so that they can be traced and stacked.

    Every family shrinks weights in the same three ways, all off by default:
    `l2` adds l2·θ to the gradient (torch's `weight_decay` of SGD and Adam),
    `weight_decay` is decoupled and multiplied by lr (AdamW of optax and torch),
    `absolute_decay` is decoupled and not multiplied by lr (Loshchilov and Hutter).
    The schedule multiplies lr and the absolute decay alike.
    """

    lr: Scalar
    l2: Scalar = 0.0
    weight_decay: Scalar = 0.0
    absolute_decay: Scalar = 0.0

    noise_exponent: ClassVar[int] = 2
    """SVAG(ℓ) is a rescaling by κ = ℓ**−noise_exponent."""

    rule: ClassVar[Mapping[str, Power | Memory]] = {}
    """How each hyperparameter follows κ. Decays of the weights are in `rescaled`."""

    state_rule: ClassVar[Mapping[str, float]] = {}
    """Powers of κ by which fields of the state follow a switch in mid-run."""

    def direction(self) -> optax.GradientTransformation:
        """The family's own part of the update: gradient in, direction out."""
        raise TypeError(f"{type(self).__name__} does not define direction()")

    def limit(self, keep_signal: bool = False) -> Limit:
        """The family's own part of the SDE: mean, variance and noise in, flow out."""
        raise TypeError(f"{type(self).__name__} does not define limit()")

    def preconditioner(self, state: PyTree, params: PyTree) -> PyTree:
        """The P by which the family divides: θ moves by lr·m/P. Like params.

        `state` is the family's own, `plan.clock(state.optimizer).direction`. Averages
        that hold nothing yet count as 1.
        """
        raise TypeError(
            f"{type(self).__name__} does not define preconditioner(state, params); "
            "sign methods and Lion have none"
        )

    def transform(
        self, schedule: Schedule | None = None, dt: float = 1.0
    ) -> optax.GradientTransformation:
        """The optax transform; step k happens at time k·dt of the schedule."""
        direction = self.direction()

        def init(params: PyTree) -> OptimizerState:
            return OptimizerState(Clock.start(dt), direction.init(params))

        def update(updates, state, params=None):
            if params is None:
                raise ValueError(
                    "update(updates, state, params) needs params: pass them as the "
                    "third argument, even where no weight decay is set"
                )
            grads = self._coupled(updates, params)
            u, inner = direction.update(grads, state.direction, params)
            s = 1.0 if schedule is None else schedule(state.clock.time)
            change = jax.tree.map(
                lambda u, x: (-s * self._velocity(u, x)).astype(x.dtype), u, params
            )
            return change, OptimizerState(state.clock.tick(), inner)

        return optax.GradientTransformation(init, update)

    def sde(
        self,
        schedule: Schedule | None = None,
        dt: float = 1.0,
        keep_signal: bool = False,
    ) -> ItoSystem:
        """The limit κ → 0 as an Itô system; its time t counts steps of this optimizer.

        `keep_signal` keeps the terms by which the mean gradient enters at the base
        batch and which vanish with κ (its share of v, the saturation of a sign): with
        it the SDE is closer to the base run, without it to SVAG.
        """
        limit = self.limit(keep_signal)

        def speed(t):
            return 1.0 if schedule is None else schedule(t * dt)

        def drift(t, params, state, mean, variance):
            u, dstate = limit.drift(state, self._coupled(mean, params), variance)
            s = speed(t)
            flow = jax.tree.map(lambda u, x: -s * self._velocity(u, x), u, params)
            return flow, dstate

        def noise(t, params, state, mean, variance, kick, spare):
            mean = self._coupled(mean, params)
            u, dstate = limit.noise(state, mean, variance, kick, spare)
            s = speed(t)
            return jax.tree.map(lambda u: -s * self.lr * u, u), dstate

        return ItoSystem(self.direction().init, drift, noise)

    def _coupled(self, grads: PyTree, params: PyTree) -> PyTree:
        """g + l2·θ."""
        if not _present(self.l2):
            return grads
        return jax.tree.map(lambda g, x: g + self.l2 * x, grads, params)

    def _velocity(self, u: jax.Array, x: jax.Array) -> jax.Array:
        """lr · (u + λ x) + w x, without the terms that are switched off."""
        if _present(self.weight_decay):
            u = u + self.weight_decay * x
        velocity = self.lr * u
        if _present(self.absolute_decay):
            velocity = velocity + self.absolute_decay * x
        return velocity

    def rescaled(self, kappa: Scalar, memory: str = "linear") -> Self:
        """The same optimizer at κ times the batch (κ < 1: nearer to the SDE).

        `memory="linear"` takes 1 − β to κ(1 − β); `"power"` takes β to β**κ, which
        agrees to first order and is never negative. The weights shrink by the same
        factor per sample, so λ·lr and the absolute decay are multiplied by κ.
        """
        check_memory(memory)
        decays = self._rescaled_decays(kappa, memory)
        factor = self._lr_factor(kappa, decays)
        powers = {
            name: getattr(self, name) * kappa**law.exponent
            for name, law in self.rule.items()
            if isinstance(law, Power) and name != "lr"
        }
        return dataclasses.replace(
            self,
            lr=self.lr * factor,
            weight_decay=self.weight_decay * (kappa / factor),
            absolute_decay=self.absolute_decay * kappa,
            **decays,
            **powers,
        )

    def checked(self) -> Self:
        """Itself, if every hyperparameter makes sense; else an error that names it.

        Traced values are taken as they are.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool | jax.core.Tracer):
                continue
            low, high = np.min(value), np.max(value)
            if isinstance(self.rule.get(field.name), Memory):
                fine, needs = low > -1e-9 and high < 1, "0 ≤ decay < 1"
            elif field.name == "lr":
                fine, needs = low > 0 and high < np.inf, "a positive number"
            else:
                fine, needs = low >= 0 and high < np.inf, "a number ≥ 0"
            if not fine:
                raise ValueError(f"{field.name}={value}: needs {needs}")
        return self

    def _rescaled_decays(self, kappa: Scalar, memory: str) -> dict[str, Scalar]:
        names = [name for name, law in self.rule.items() if isinstance(law, Memory)]
        return {n: remember(n, getattr(self, n), kappa, memory) for n in names}

    def _lr_factor(self, kappa: Scalar, decays: Mapping[str, Scalar]) -> Scalar:
        del decays
        law = self.rule["lr"]
        assert isinstance(law, Power)
        return kappa**law.exponent

    def rescale_state(self, state: PyTree, kappa: Scalar, new: Self) -> PyTree:
        """The family's state for going on as `new` = self.rescaled(κ) in mid-run."""
        del new
        changes = {
            name: jax.tree.map(lambda x, p=power: x * kappa**p, getattr(state, name))
            for name, power in self.state_rule.items()
        }
        return state._replace(**changes) if changes else state


def ema(old: PyTree, new: PyTree, decay: Scalar) -> PyTree:
    """decay · old + (1 − decay) · new, in the dtype of old."""
    return jax.tree.map(
        lambda o, n: (decay * o + (1 - decay) * n).astype(o.dtype), old, new
    )


def _present(value: Scalar) -> bool:
    """False for a term that is switched off by a plain zero."""
    return not (isinstance(value, int | float) and value == 0)
