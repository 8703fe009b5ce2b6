"""Plan: what a run is apart from its data; and the one operation on plans, rescaling.

Training at κ times the batch, SVAG at ℓ and the SDE are the same change of a plan, by
κ > 1, κ = ℓ**−2 (ℓ**−1 for SGD-like optimizers) and κ → 0. They differ in who changes
the noise: a larger batch, or a signed mix of two draws (`noise_gain`).

    >>> from optsde import Adam
    >>> plan = Plan(optimizer=Adam(lr=1e-3), batch_size=256, horizon=10_000)
    >>> big = scale(plan, kappa=4)
    >>> big.batch_size, big.steps, round(big.optimizer.lr, 6)
    (1024, 2500, 0.002)
    >>> fine = svag(plan, ell=4)
    >>> fine.batch_size, fine.steps, fine.noise_gain
    (256, 160000, 16.0)
"""

import dataclasses
import math
import operator
from typing import Any, Self

import jax
import numpy as np
import optax
from jax.tree_util import treedef_is_leaf

from optsde.checks import (
    ABOVE_0,
    LARGEST,
    check_count,
    check_function,
    check_number,
    shown,
)
from optsde.mesh import norm
from optsde.optimizers import (
    SWA,
    Average,
    Groups,
    Optimizer,
    Power,
    ScheduleFreeMean,
)
from optsde.optimizers.base import OptimizerState
from optsde.optimizers.elementwise import elementwise
from optsde.optimizers.rules import check_memory
from optsde.plans.schedules import check_multiplier
from optsde.squares import clipped, step_gradient
from optsde.types import PyTree, Scalar, Schedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A run apart from its data.

    horizon: length of the run, in steps of the base run.
    schedule: multiplier of lr as a function of time, in steps of the base run. Of
    learning rates themselves, as optax's schedules give them, `schedules.absolute`
    makes one.
    boost: multiplier of the optimizer's direction as a function of time, one or one for
    each leaf, which leaves the decays of the weights alone; `scale(…, rule="signal")`
    sets it.
    before: an optax transform without state, which the gradient goes through first and
    which is the same at every batch, such as `optax.clip(1.0)`.
    clip: largest global norm of the gradient, applied before the optimizer.
    average: EMA(decay) or SWA(start, every) of the weights, or `optimizer.average()`
    of one that has its own.
    dt: base steps per step; noise_gain: factor of the gradient variance that SVAG's
    signed mix supplies. Only rescaling changes these two.
    """

    optimizer: Optimizer | Groups
    batch_size: int
    horizon: float
    schedule: Schedule | None = None
    clip: Scalar | None = None
    average: Average | None = None
    dt: float = 1.0
    noise_gain: float = 1.0
    boost: Schedule | None = None
    before: optax.GradientTransformation | None = None

    @property
    def steps(self) -> int:
        """The number of steps that reach the horizon."""
        return math.ceil(self.horizon / self.dt - 1e-9)

    def checked(self) -> Self:
        """Returns itself, if every setting makes sense; else raises and names it."""
        if not isinstance(self.optimizer, Optimizer | Groups):
            raise ValueError(
                f"optimizer is a {type(self.optimizer).__name__}: needs one of "
                "optsde's, such as optsde.Adam(lr=1e-3); of an optax chain, "
                "optsde.from_optax makes a plan"
            )
        self.optimizer.checked()
        if self.before is not None and self.optimizer.micro_batches(self.noise_gain):
            raise ValueError(
                "before: is for a gradient, and this optimizer takes the squares of "
                "micro-batches besides, which would go past it; use another optimizer"
            )
        check_count("batch_size", self.batch_size)
        check_number("horizon", self.horizon, "a positive time", ABOVE_0)
        for name in ("schedule", "boost"):
            if (of_time := getattr(self, name)) is not None:
                check_function(name, of_time, "of time, such as schedules.cosine(100)")
        if self.schedule is not None:
            check_multiplier(self.schedule, self.optimizer.lr, self.horizon)
        if not isinstance(self.before, optax.GradientTransformation | None):
            raise ValueError(
                f"before={shown(self.before)}: needs an optax transform, such as "
                "optax.clip(1.0)"
            )
        for name in ("dt", "noise_gain"):
            check_number(name, getattr(self, name), "a positive number", ABOVE_0)
        if self.clip is not None:
            check_number("clip", self.clip, "a positive norm", ABOVE_0)
        if self.average is not None:
            if not isinstance(self.average, Average):
                raise ValueError(
                    f"average={shown(self.average)}: needs EMA(decay) or "
                    "SWA(start, every)"
                )
            self.average.checked()
            self._check_own_average()
            if isinstance(self.average, SWA):
                needs = f"a time up to the horizon, {self.horizon:g}"
                check_number("start", self.average.start, needs, 0, self.horizon)
        if self.steps > LARGEST:
            raise ValueError(
                f"horizon={self.horizon:g} in steps of {self.dt:g} is {self.steps:.3g} "
                f"steps: the clock counts to {LARGEST}; use a shorter horizon or a "
                "smaller ell"
            )
        return self

    def _check_own_average(self) -> None:
        """Refuses the average of a schedule-free optimizer for any other optimizer."""
        if not isinstance(self.average, ScheduleFreeMean):
            return
        for part in self.optimizer.by_group().values():
            if not part.moves:
                continue
            if (own := part.average()) is None:
                raise ValueError(
                    f"average={self.average} is the x of a schedule-free optimizer, "
                    f"which {type(part).__name__} is not: use EMA(decay) or "
                    "SWA(start, every)"
                )
            given, needed = self.average.beta, own.beta
            traced = any(isinstance(beta, jax.core.Tracer) for beta in (given, needed))
            if not traced and not np.array_equal(given, needed):
                raise ValueError(
                    f"average={self.average}: the optimizer has beta={needed}; give "
                    "optimizer.average()"
                )

    def rate(self, time: Scalar) -> PyTree:
        """Returns the learning rate at a time, in base steps, such as `state.time`.

        It is a tree of them, where the boost differs from leaf to leaf.
        """
        rate = self.optimizer.lr
        if self.schedule is not None:
            rate = rate * self.schedule(time)
        if self.boost is None:
            return rate
        return jax.tree.map(lambda boost: rate * boost, self.boost(time))

    def transform(self) -> optax.GradientTransformation:
        """Returns the optax transform: clip, then the optimizer on this plan's clock.

        Its state is an `OptimizerState`, with the clock and the optimizer's memory.
        """
        transform: Any = self.optimizer.transform(self.schedule, self.dt, self.boost)
        name = type(self.optimizer).__name__
        init, update = (
            elementwise(name, f) for f in (transform.init, transform.update)
        )
        before: Any = self.before
        prepare = None if before is None else elementwise("before", before.update)
        largest = self.clip

        def clip_first(grads, state, params=None):
            if prepare is not None:
                grads, _ = prepare(grads, before.init(params), params)
            if largest is not None:
                grads = clipped(grads, norm(step_gradient(grads)), largest)
            return update(grads, state, params)

        return optax.GradientTransformation(init, clip_first)  # type: ignore


def scale(
    plan: Plan,
    kappa: float,
    rule: str = "sde",
    *,
    memory: str = "linear",
    clip: str = "noise",
    boost: Schedule | None = None,
) -> Plan:
    """The plan at κ times its batch: same samples, 1/κ of the steps.

    rule: "sde" (the optimizer's own); "signal", the same with lr·κ·√((N/κ+G)/(N+G)) in
    place of lr·√κ, right also where the signal G of a batch is not small beside its
    noise N (Adam, RMSprop; ε must be small beside √v); or a control to compare with:
    "linear" (lr·κ), "sqrt_lr_only" (lr·√κ) or "fixed", which leave everything else
    alone.
    boost: for the signal rule, √((N+κG)/(N+G)) as a function of time, as
    `measure.signal_boost` makes it of measurements. One for all parameters, or a tree
    like them with one for each leaf; where G/N differs among those that share one, the
    parameters with more of it than those that it is made for still lag.
    memory: "linear" takes decays to 1 − κ(1−β), "power" to β**κ. `svag` and `sde` take
    the same word: the limits differ, by 1 − β against −ln β.
    clip: "noise" takes the threshold to c/√κ, right where noise makes up the norm of
    the gradient; "signal" leaves it, right where the mean does.
    """
    check_number("kappa", kappa, "a positive number", ABOVE_0)
    check_plan("plan", plan)
    check_memory(memory)
    _check_clip(clip)
    batch = plan.batch_size * kappa
    if abs(batch - round(batch)) > 1e-9 or not 1 <= round(batch) <= LARGEST:
        raise ValueError(
            f"kappa={kappa:g} makes a batch of {batch:g} out of {plan.batch_size}; "
            f"the batch must stay a whole number from 1 to {LARGEST} (for steps finer "
            "than a batch of 1, use svag)"
        )
    if (boost is not None) != (rule == "signal"):
        raise ValueError(
            f"rule={rule!r} with boost={boost}: the signal rule, and no other, needs a "
            "boost over time, as measure.signal_boost gives it"
        )
    if rule == "sde":
        changed = rescaled(plan, kappa, memory, clip)
    elif boost is not None:
        refuse_without_signal_rule(plan.optimizer)
        changed = dataclasses.replace(
            rescaled(plan, kappa, memory, clip), boost=_product(plan.boost, boost)
        )
    elif rule in CONTROLS:
        optimizer = plan.optimizer.times_lr(kappa ** CONTROLS[rule])
        changed = dataclasses.replace(plan, optimizer=optimizer, dt=plan.dt * kappa)
    else:
        allowed = ", ".join(["sde", "signal", *CONTROLS])
        raise ValueError(f"rule={rule!r} is not known; one of: {allowed}")
    return dataclasses.replace(changed, batch_size=round(batch))


def has_signal_rule(optimizer: Optimizer | Groups) -> bool:
    """Tells whether √κ is the optimizer's rule for want of signal in its v."""
    return all(part.adaptive and _root_of_kappa(part) for part in _moving(optimizer))


def _moving(optimizer: Optimizer | Groups) -> list[Optimizer]:
    return [part for part in optimizer.by_group().values() if part.moves]


def _root_of_kappa(optimizer: Optimizer) -> bool:
    lr = optimizer.rule.get("lr")
    return isinstance(lr, Power) and lr.exponent == 0.5


def refuse_without_signal_rule(optimizer: Optimizer | Groups) -> None:
    """Refuses optimizers that the signal rule is not for."""
    for part in _moving(optimizer):
        if not has_signal_rule(part):
            raise ValueError(
                "the signal rule is for optimizers that divide by an average of g² of "
                f"the batch, such as Adam; {type(part).__name__} does not, and its own "
                "rule is that of rule='sde'"
            )


def _product(first: Schedule | None, second: Schedule) -> Schedule:
    if first is None:
        return second

    def both(time):
        one, other = first(time), second(time)
        if not treedef_is_leaf(jax.tree.structure(one)):
            one, other = other, one
        return jax.tree.map(operator.mul, jax.tree.broadcast(one, other), other)

    return both


CONTROLS = {"linear": 1.0, "sqrt_lr_only": 0.5, "fixed": 0.0}
"""Rules that people use, as powers of κ for lr; all else is left alone."""


def svag(
    plan: Plan, ell: float, *, memory: str = "linear", clip: str = "noise"
) -> Plan:
    """The plan of SVAG(ℓ): the SDE's rule at κ = ℓ**−noise_exponent, at the same batch.

    The noise that the rule asks for is made by a signed mix of two draws with the gain
    1/κ. At ℓ = 1 it is the plan itself; as ℓ grows, it approaches the SDE. SignSGD and
    Lion, which take the sign of a single gradient's noise, do so only where that noise
    is Gaussian. `memory` and `clip` are those of `scale`.
    """
    _check_clip(clip)
    needs = f"a number from 1, which is the plain run, to {LARGEST}"
    check_number("ell", ell, needs, 1, LARGEST)
    check_plan("plan", plan)
    kappa = float(ell) ** -plan.optimizer.noise_exponent
    changed = rescaled(plan, kappa, memory, clip)
    changed = dataclasses.replace(changed, noise_gain=plan.noise_gain / kappa)
    if changed.steps > LARGEST:
        raise ValueError(
            f"ell={ell:g} makes {changed.steps:.3g} steps of the horizon "
            f"{plan.horizon:g}: the clock counts to {LARGEST}; use a smaller ell or a "
            "shorter horizon"
        )
    return changed


def switch(
    state: OptimizerState, old: Plan, new: Plan, *, signal: PyTree = 0.0
) -> OptimizerState:
    """Returns the optimizer state of `old` for going on under `new` in mid-run.

    v is divided by κ (AdaGrad's sum by κ²), averages of the gradient stay, and the
    clock goes on from the same time with the new step. Of a run's state it is
    `state.optimizer` that is switched.

    That is right where noise makes up v. Of v = N + G, with G of the mean gradient,
    only N falls with the batch: N/κ + G is v/κ times 1 + q(κ − 1), for the share
    q = G/(N + G). Without that factor the steps are too long by its root until v has
    forgotten it, in 1/(1 − b2) steps; AdaGrad does not forget. `signal` is q, a number
    or a tree like the parameters: `measure.gradient_noise` gives G and N.
    """
    check_plan("old", old)
    check_plan("new", new)
    kappa = new.dt / old.dt
    if not isinstance(state, OptimizerState):
        raise ValueError(
            "switch takes an OptimizerState, such as state.optimizer of a run, and was "
            f"given a {type(state).__name__}; of an optax chain's state, optax_state "
            "makes one"
        )
    kinds = [
        {name: type(part) for name, part in plan.optimizer.by_group().items()}
        for plan in (old, new)
    ]
    if kinds[0] != kinds[1]:
        raise ValueError("switch needs two plans of one optimizer")
    for share in jax.tree.leaves(signal):
        if isinstance(share, jax.core.Tracer):
            continue
        if not (np.min(share) >= 0 and np.max(share) <= 1):
            raise ValueError(f"signal={share}: needs a share of v, from 0 to 1")
        if np.any(share) and not old.optimizer.adaptive:
            raise ValueError(
                "signal is the mean gradient's share of a v that follows the batch, "
                f"and {type(old.optimizer).__name__} has no such v: leave it out"
            )
    rescale = old.optimizer.rescale_state
    return OptimizerState(
        clock=state.clock.paced(new.dt),
        direction=rescale(state.direction, kappa, new.optimizer, signal),
    )


def rescaled(plan: Plan, kappa: float, memory: str, clip: str) -> Plan:
    """The settings of the SDE's rule at κ; who changes the noise is still open."""
    threshold = plan.clip
    if threshold is not None and clip == "noise":
        threshold = threshold / kappa**0.5
    return dataclasses.replace(
        plan,
        optimizer=plan.optimizer.rescaled(kappa, memory),
        clip=threshold,
        average=None if plan.average is None else plan.average.rescaled(kappa),
        dt=plan.dt * kappa,
    )


def check_plan(name: str, plan: Any) -> None:
    """Refuses what is no plan, or one of which a setting makes no sense."""
    if not isinstance(plan, Plan):
        raise ValueError(f"{name}={shown(plan)}: needs an optsde.Plan")
    plan.checked()


def check_one_plan(plan: Any) -> None:
    """Refuses what is no plan of one run, as stacked plans are none."""
    check_plan("plan", plan)
    for path, leaf in jax.tree_util.tree_leaves_with_path(plan):
        if np.ndim(leaf):
            raise ValueError(
                f"plan{jax.tree_util.keystr(path)} has the shape {list(np.shape(leaf))}"
                ": needs one number; run stacked plans as members, with dynamics that "
                "are a function of one"
            )


def _check_clip(clip: str) -> None:
    if clip not in ("noise", "signal"):
        raise ValueError(f"clip={clip!r} is not known; one of: noise, signal")


jax.tree_util.register_dataclass(
    Plan,
    data_fields=["optimizer", "clip", "average"],
    meta_fields=[
        "batch_size",
        "horizon",
        "schedule",
        "dt",
        "noise_gain",
        "boost",
        "before",
    ],
)
