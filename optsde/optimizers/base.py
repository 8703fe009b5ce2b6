"""The base class of optimizers: an update, a scaling rule and an SDE in one place.

A family turns gradients g into a *direction* u; learning rate lr, schedule s(t) and the
three weight decays are the same for all families and stand here:

    θ ← θ − s(t) · (lr · (b(t) u + λ θ) + w θ),     u = direction(g + l2 · θ)

where a plan may lengthen the direction alone by a boost b(t), which is 1 but under the
signal rule, and may differ from leaf to leaf.

A family is one file: a frozen, keyword-only dataclass with `@register`. It must define

- its hyperparameters, as fields. Those annotated `bool` are static, all others traced
  (but for one that sets shapes, which has jax's metadata `static=True`);
- `direction()`: an optax transform from gradient to direction. Memory of past gradients
  is a `NamedTuple` of arrays like the parameters;
- `limit(keep_signal)`: drift and noise of the SDE, and what its state takes of squared
  increments where diag Σ is not enough;
- `rule`: how each field follows κ, as `Power(exponent, why)` or `Memory()`.

It may define

- `noise_exponent`: 1 where SVAG(ℓ) is κ = 1/ℓ; the default 2 stands for κ = 1/ℓ²;
- `jumps = True`, where its SDE holds under stable noise too: nothing is divided by the
  variance of noise that enters in the same step;
- `decays_at(kappa, memory)`, `lr_factor(kappa, decays)`: a rule that is no table;
- `state_rule`, `rescale_state(…)`: how its state follows κ when a run switches;
- `checked()`: what its hyperparameters need, and `checked_start()`: what its SDE needs
  of them besides;
- `micro_batches(noise_gain)`, where the direction takes `squares.Squares`;
- `average()`, where gradients are taken elsewhere than at what is evaluated;
- `preconditioner(state, params)` and `response(state)`, together, where the direction
  is P⁻¹ Σ_k c_k g_{t−k}: they give stability threshold, critical lr, the noise's weight
  and the prediction of how far the rule holds. With `adaptive = True` where P² counts
  the square of the mean gradient, by a share that grows with κ; then also
  `preconditioner_memory()`, over how many steps, and `pooled(squares)`, where several
  entries of a parameter share one P;
- `intrinsic_rates(lr)`, where steps are orthogonal to scale-invariant weights. Families
  with P = 1 inherit it from `Descent`.

An optimizer that lacks one of the last three, as sign methods do, returns None.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from optsde.checks import ABOVE_0, BELOW_1, check_number, is_number
from optsde.optimizers.ito import ItoSystem, Limit
from optsde.optimizers.response import Rates, Response
from optsde.optimizers.rules import Memory, Power, check_memory, faded, rate, remember
from optsde.squares import shifted
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
    """Registers a family by its lower-case name, and as a pytree of hyperparameters.

    Fields of type `bool`, and those with jax's metadata `static=True`, are static; all
    others are leaves of the pytree.
    """
    fields = dataclasses.fields(cls)
    static = [
        field.name
        for field in fields
        if field.type in (bool, "bool") or field.metadata.get("static", False)
    ]
    traced = [field.name for field in fields if field.name not in static]
    jax.tree_util.register_dataclass(cls, data_fields=traced, meta_fields=static)
    REGISTRY[cls.__name__.lower()] = cls
    return cls


def by_name(name: str) -> type["Optimizer"]:
    """Returns the registered family of this lower-case name."""
    if name not in REGISTRY:
        allowed = ", ".join(sorted(REGISTRY))
        raise ValueError(f"optimizer {name!r} is not known; one of: {allowed}")
    return REGISTRY[name]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
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

    adaptive: ClassVar[bool] = False
    """Whether P² is E g² of a batch, of which the signal's share grows with κ."""

    moves: ClassVar[bool] = True
    """Whether parameters move at all; `Frozen` ones do not, and follow no rule."""

    jumps: ClassVar[bool] = False
    """Whether its SDE is the limit under noise that jumps, too, and has no variance."""

    rule: ClassVar[Mapping[str, Power | Memory]] = {}
    """How each hyperparameter follows κ. Decays of the weights are in `rescaled`."""

    state_rule: ClassVar[Mapping[str, float]] = {}
    """Powers of κ by which fields of the state follow a switch in mid-run."""

    def direction(self) -> optax.GradientTransformation:
        """Returns the family's own part of the update: gradient in, direction out."""
        raise NotImplementedError(f"{type(self).__name__} must define direction()")

    def limit(self, keep_signal: bool = False) -> Limit:
        """Returns the family's own part of the SDE, from the gradient's moments."""
        raise NotImplementedError(f"{type(self).__name__} must define limit()")

    def by_group(self) -> Mapping[str, "Optimizer"]:
        """Returns the optimizer of each group of parameters: itself, of all."""
        return {"": self}

    def representative(self) -> "Optimizer":
        """Returns the optimizer to predict by, where `Groups` have one: itself."""
        return self

    def relative_lr(self, params: PyTree) -> PyTree:
        """Returns the lr of parameters in that of the first group: 1 for all."""
        return 1.0

    def single(self) -> "Optimizer":
        """Returns the optimizer of all parameters, where `Groups` refuse: itself."""
        return self

    def times_lr(self, factor: Scalar) -> Self:
        """Returns the optimizer with its lr multiplied by a factor."""
        return dataclasses.replace(self, lr=self.lr * factor)

    def decays_weights(self) -> bool:
        """Returns whether weights decay apart from the gradient, at any of its values.

        Hyperparameters must be numbers or arrays of them, not traced.
        """
        decays = self.weight_decay, self.absolute_decay
        return any(float(np.max(decay)) > 0 for decay in decays)

    def average(self) -> Any:
        """Returns the average of a run's parameters to evaluate, None for themselves.

        It exists where gradients are taken elsewhere; a plan takes it as it takes EMA.
        """
        return None

    def micro_batches(self, noise_gain: float = 1.0) -> int | None:
        """Returns how many micro-batches of a draw the direction takes the squares of.

        None where it takes the gradient alone. `noise_gain` is that of the plan.
        """
        return None

    def preconditioner(self, state: PyTree, params: PyTree) -> PyTree | None:
        """Returns P > 0 like `params`, by which the direction is divided, or None.

        `state` is the family's own. Averages that are still empty count as 1.
        """
        return None

    def preconditioner_memory(self) -> Scalar:
        """Returns over how many steps P averages: 0 if it is fixed, ∞ if it sums."""
        return 0.0

    def pooled(self, squares: jax.Array) -> jax.Array:
        """Returns what v has of one parameter's squares: themselves, entry by entry.

        A mean over entries that share a v keeps the axes, so that it still divides.
        """
        return squares

    def response(self, state: PyTree = None) -> Response | None:
        """Returns the direction's response to gradients with P fixed, or None.

        `state` is the family's own, for bias corrections; None stands for a time long
        after the start, when they have worn off.
        """
        return None

    def intrinsic_rates(self, lr: Scalar | None = None) -> Rates | None:
        """Returns the rates for scale-invariant weights at `lr`, or None.

        They exist where steps are orthogonal to such weights, that is where P = 1.
        """
        return None

    def transform(
        self,
        schedule: Schedule | None = None,
        dt: float = 1.0,
        boost: Schedule | None = None,
    ) -> optax.GradientTransformation:
        """Returns the optax transform, whose steps read the schedule at their time.

        Time is the clock's in the state: `init` starts it at 0, a step adds `dt`, and
        after a switch it goes on from where it stood.
        """
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
            if boost is not None:
                u = multiplied(boost(state.clock.time), u)
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
        *,
        memory: str = "linear",
        boost: Schedule | None = None,
    ) -> ItoSystem:
        """The limit κ → 0 as an Itô system; its time t counts steps of this optimizer.

        SDEs of RMSprop and Adam are those of Malladi et al. (2022), with `keep_signal`
        those of Compagnoni et al. (2024, arXiv 2411.15958): `moments.second_moment`.

        `keep_signal` keeps the terms by which the mean gradient enters at the base
        batch and which vanish with κ (its share of v, the saturation of a sign): with
        it the SDE is closer to the base run, without it to SVAG. Where nothing of it
        vanishes, as in SGD, its momenta and Signum, it changes nothing.

        `memory` is that of `rescaled`, whose limit it is: with "linear" a memory is
        forgotten at the rate 1 − β, with "power" at −ln β.
        """
        self.checked_start()
        limiting = self.in_the_limit(memory)
        limit = limiting.limit(keep_signal)

        def speed(t):
            return 1.0 if schedule is None else schedule(t * dt)

        def theirs(state):  # a heavy ball's velocity is shorter by its 1 − β
            return self.rescale_state(state, 1.0, limiting)

        def ours(dstate):
            return limiting.rescale_state(dstate, 1.0, self)

        def drift(t, params, state, mean, variance):
            mean = self._coupled(mean, params)
            u, dstate = limit.drift(theirs(state), mean, variance)
            u = u if boost is None else multiplied(boost(t * dt), u)
            s = speed(t)
            flow = jax.tree.map(lambda u, x: -s * limiting._velocity(u, x), u, params)
            return flow, ours(dstate)

        def noise(t, params, state, mean, variance, kick, spare):
            mean = self._coupled(mean, params)
            u, dstate = limit.noise(theirs(state), mean, variance, kick, spare)
            u = u if boost is None else multiplied(boost(t * dt), u)
            s = speed(t)

            def moved(u, x):
                return (-s * limiting.lr * limiting._sized(u, x)).astype(u.dtype)

            return jax.tree.map(moved, u, params), ours(dstate)

        taken_up = limit.variation
        if taken_up is None:
            return ItoSystem(self.direction().init, drift, noise)

        def variation(params, state, mean, kick, h):
            mean = self._coupled(mean, params)
            step = jax.tree.map(lambda g, k: h * g + k, mean, kick)
            return ours(taken_up(theirs(state), step))

        return ItoSystem(self.direction().init, drift, noise, variation)

    def _coupled(self, grads: PyTree, params: PyTree) -> PyTree:
        """Returns g + l2·θ."""
        if not _present(self.l2):
            return grads
        return shifted(grads, jax.tree.map(lambda x: self.l2 * x, params))

    def _sized(self, u: jax.Array, x: jax.Array) -> jax.Array:
        """Returns what lr multiplies of the direction of one parameter: all of it."""
        return u

    def _velocity(self, u: jax.Array, x: jax.Array) -> jax.Array:
        """Returns lr · (u + λ x) + w x, without the terms that are switched off."""
        u = self._sized(u, x)
        if _present(self.weight_decay):
            u = u + self.weight_decay * x
        velocity = self.lr * u
        if _present(self.absolute_decay):
            velocity = velocity + self.absolute_decay * x
        return velocity

    def rescaled(self, kappa: Scalar, memory: str = "linear") -> Self:
        """Returns this optimizer for κ times the batch (κ < 1: nearer to the SDE).

        `memory="linear"` takes 1 − β to κ(1 − β); `"power"` takes β to β**κ, which
        agrees to first order and is never negative. The weights shrink by the same
        factor per sample, so λ·lr and the absolute decay are multiplied by κ.
        """
        check_memory(memory)
        return self._rescaled(kappa, self.decays_at(kappa, memory))

    def in_the_limit(self, memory: str) -> Self:
        """Returns the optimizer whose linear SDE is the limit in this form of memory.

        It has the decay 1 − r for each `rate` r (negative where −ln β is above 1), and
        the lr that belongs to it.
        """
        check_memory(memory)
        if memory == "linear":
            return self
        names = self.decays()
        return self._rescaled(
            1.0, {n: 1 - rate(n, getattr(self, n), memory) for n in names}
        )

    def _rescaled(self, kappa: Scalar, decays: Mapping[str, Scalar]) -> Self:
        """Returns this optimizer at κ, where the decays are those given."""
        factor = self.lr_factor(kappa, decays)
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

    @classmethod
    def decays(cls) -> tuple[str, ...]:
        """Returns the names of the hyperparameters that are decays of a memory."""
        return tuple(name for name, law in cls.rule.items() if isinstance(law, Memory))

    def decays_at(self, kappa: Scalar, memory: str) -> dict[str, Scalar]:
        """Returns the decays at κ, by name; refuses those without any memory left."""
        return {n: remember(n, getattr(self, n), kappa, memory) for n in self.decays()}

    def lr_factor(self, kappa: Scalar, decays: Mapping[str, Scalar]) -> Scalar:
        """Returns the factor of lr at κ, where the decays are those given."""
        law = self.rule["lr"]
        assert isinstance(law, Power)
        return kappa**law.exponent

    def rescale_state(
        self, state: PyTree, kappa: Scalar, new: Any, signal: PyTree = 0.0
    ) -> PyTree:
        """Returns the family's state for going on as `new` = self.rescaled(κ).

        Of a second moment N + G, `signal` is the share q = G/(N + G) of the mean
        gradient, which the larger batch does not make smaller: N/κ + G is
        (N + G)(1 + q(κ − 1))/κ, and a sum of κ times fewer terms is κ times less.
        """

        def followed(x, q, power):
            return (x * kappa**power * (1 + q * (kappa - 1))).astype(x.dtype)

        changes = {}
        for name, power in self.state_rule.items():
            old = getattr(state, name)
            shares = jax.tree.broadcast(signal, old)
            changes[name] = jax.tree.map(partial(followed, power=power), old, shares)
        return state._replace(**changes) if changes else state

    def response_at(self, kappa: ArrayLike, memory: str = "linear") -> Response | None:
        """Returns the response with the decays of κ (numbers or an array), or None.

        Where the linear form has no memory left, the decay is 0.

        >>> from optsde import Adam
        >>> [float(Adam(b1=0.5).response_at(k).share) for k in (0.5, 1, 1e6)]
        [0.14285714285714285, 0.3333333333333333, 1.0]
        """
        check_memory(memory)
        old = {name: float(getattr(self, name)) for name in self.decays()}
        new = {name: faded(beta, kappa, memory) for name, beta in old.items()}
        return dataclasses.replace(self, **new).response()

    def stability_threshold(self, state: PyTree = None) -> Scalar | None:
        """Returns the largest curvature at which the linearized update is stable.

        The curvature is an eigenvalue of P^-½ (H + l2) P^-½, with P of `preconditioner`
        held fixed and H the Hessian of the loss: where l2 is set, the update sees that
        of f + l2/2·|θ|². At the threshold θ → −θ, and with the gain a/friction of the
        `response` to alternating gradients −1 = 1 − lr·(gain·h + λ) − w, so

            h = (2 − lr·λ − w) / (lr·gain).

        Decoupled decays λ and w lower it, by little. A schedule multiplies lr and w.
        These are the thresholds of Cohen et al. (2021, 2022). `state` is the family's
        own, for bias corrections. None where the family has no response.

        >>> from optsde import HeavyBall, Lion
        >>> round(HeavyBall(lr=0.1, beta=0.9).stability_threshold(), 6)
        38.0
        >>> Lion(lr=0.1).stability_threshold() is None
        True
        """
        response = self.response(state)
        if response is None:
            return None
        gain = response.alternating / response.friction
        decay = self.lr * self.weight_decay + self.absolute_decay
        return (2 - decay) / (self.lr * gain)

    def critical_lr(self, sharpness: Scalar, state: PyTree = None) -> Scalar | None:
        """Returns the lr whose stability threshold is this curvature, or None.

        >>> from optsde import SGD
        >>> SGD().critical_lr(sharpness=8.0)
        0.25
        """
        response = self.response(state)
        if response is None:
            return None
        gain = response.alternating / response.friction
        return (2 - self.absolute_decay) / (gain * sharpness + self.weight_decay)

    def checked(self) -> Self:
        """Returns itself if all hyperparameters make sense; else names one that fails.

        Traced values are taken as they are.
        """
        decays = self.decays()
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if isinstance(field.default, bool):
                if not isinstance(value, bool):
                    raise ValueError(f"{name}={value!r}: needs True or False")
                continue
            if name in decays:
                check_number(name, value, "0 ≤ decay < 1", -1e-9, BELOW_1)
            elif name == "lr":
                needs = "a positive number" if is_number(value) else NEEDS_RATE
                check_number(name, value, needs, ABOVE_0)
            else:
                check_number(name, value, "a number ≥ 0", 0)
        return self

    def checked_start(self) -> Self:
        """Returns itself if its SDE has a start; else says what to set.

        A discrete run counts its first gradient in v before it divides by it, so that
        its v may start from nothing. The SDE cannot: `moments.refuse_empty_start`.
        Traced values are taken as they are.
        """
        return self


NEEDS_RATE = (
    "a positive number; a schedule is the plan's, as Plan(schedule="
    "schedules.absolute(rates, lr)), and rates of parts of a net are Groups'"
)


def ema(old: PyTree, new: PyTree, decay: Scalar) -> PyTree:
    """Returns decay · old + (1 − decay) · new, in the dtype of old."""
    return jax.tree.map(
        lambda o, n: (decay * o + (1 - decay) * n).astype(o.dtype), old, new
    )


def multiplied(factors: PyTree, tree: PyTree) -> PyTree:
    """Returns the tree multiplied by a number, or by one for each leaf."""
    factors = jax.tree.broadcast(factors, tree)
    return jax.tree.map(lambda c, x: (c * x).astype(x.dtype), factors, tree)


def _present(value: Scalar) -> bool:
    """Tells whether a term is there, and not switched off by a plain zero."""
    return not (isinstance(value, int | float) and value == 0)
