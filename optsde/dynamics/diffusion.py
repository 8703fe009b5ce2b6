"""The SDE of a plan as a dynamics: Euler–Maruyama steps of its Itô system.

Euler–Maruyama has weak order 1 in its own step, 1/substeps of a step of the plan. Two
step sizes on one Brownian path tell how far that is from the limit, and with
2·X_{h/2} − X_h, of the means of what is observed, they have weak order 2 (Talay and
Tubaro 1990).
"""

import math

import jax
import jax.numpy as jnp

from optsde.checks import check_count
from optsde.dynamics.discrete import Dynamics, State, initial_point, marks
from optsde.gradients.draw import Draw, Use
from optsde.gradients.law import Law, Moments, brownian
from optsde.optimizers import ItoSystem
from optsde.optimizers.base import Clock, OptimizerState
from optsde.plans.plan import Plan, check_one_plan
from optsde.types import PyTree, Scalar


def sde(
    plan: Plan,
    law: Law,
    params: PyTree,
    substeps: int = 4,
    keep_signal: bool = False,
    *,
    memory: str = "linear",
    parts: int = 1,
) -> Dynamics:
    """Returns the SDE of a plan, `substeps` Euler–Maruyama steps to a step of the plan.

    A plan and its rescalings have one and the same SDE.

    Args:
      plan: of which before, clip and average must be None.
      law: the noise of a batch of `plan.batch_size`; with jumps it is refused where the
        optimizer has no limit under them, or the plan is one of SVAG.
      params: the initial point, or a function of the key for one.
      substeps: steps to a step of the plan.
      keep_signal: keep the terms that separate a run from the limit κ → 0, and which
        depend on the plan (`Optimizer.sde`).
      memory: that of `scale` and `svag`; each form of them has its own SDE.
      parts: each Brownian increment is the sum of so many finer ones. With one key,
        `substeps=n, parts=2` follows the path of `substeps=2 * n` in steps of twice the
        length.
    """
    check_one_plan(plan)
    if any(x is not None for x in (plan.before, plan.clip, plan.average)):
        raise ValueError(
            "an SDE is that of the optimizer alone: before, clip and average must be "
            "None"
        )
    if not isinstance(law, Law):
        raise ValueError(
            f"law is a {type(law).__name__}: needs a gradients.Law, such as "
            "task.law(plan.batch_size)"
        )
    check_count("substeps", substeps)
    check_count("parts", parts)
    if law.jumps:
        _check_jumps(plan)
    system = plan.optimizer.sde(
        plan.schedule, plan.dt, keep_signal, memory=memory, boost=plan.boost
    )
    law = _amplified(law, plan.noise_gain)
    h = 1 / substeps

    def init(key):
        start = initial_point(params, key)
        memory = OptimizerState(Clock.start(plan.dt * h), system.init(start))
        return State(jnp.int32(0), key, start, memory)

    def step(state: State, source: None) -> tuple[State, tuple]:
        del source
        draw = Draw(state.key, state.step, state.time)
        y = state.params, state.optimizer.direction
        t = state.time / plan.dt  # the system's time counts steps of the plan
        new, memory = euler_step(system, law, t, y, draw, h, parts)
        clock = state.optimizer.clock.paced(plan.dt * h).tick()
        moved = OptimizerState(clock, memory)
        return State(state.step + parts, state.key, new, moved), ()

    def about():
        return marks(plan, params) | {"sde": f"{keep_signal=}, {memory=}, {parts=}"}

    return Dynamics(init, step, plan.dt * h, paces=True, about=about)


def euler_step(
    system: ItoSystem,
    law: Law,
    t: Scalar,
    y: PyTree,
    draw: Draw,
    h: float,
    parts: int = 1,
) -> PyTree:
    """Returns y + drift·h + noise + variation, of y = (params, state) at time t.

    One evaluation of the gradient gives all of them. The step takes the Brownian
    increments of `parts` draws, from `draw` on.
    """
    params, state = y

    def fine(i):
        return increments(law, params, draw._replace(step=draw.step + i), h / parts)

    each = jax.vmap(fine)(jnp.arange(parts))
    dw, spare = jax.tree.map(lambda x: jnp.sum(x, axis=0), each)
    _, mean, variance, kick = law.moments(params, dw)
    flow = system.drift(t, params, state, mean, variance)
    noise = system.noise(t, params, state, mean, variance, kick, spare)
    if system.variation is not None:
        squares = system.variation(params, state, mean, kick, h)
        noise = noise[0], jax.tree.map(jnp.add, noise[1], squares)
    return jax.tree.map(lambda x, f, n: x + (f * h + n).astype(x.dtype), y, flow, noise)


def increments(law: Law, params: PyTree, draw: Draw, h: float) -> tuple:
    """Returns what drives the law over a time h, and spare Brownian increments.

    They are named by the key and the step of the draw alone.
    """
    own, spare = jax.random.split(draw.stream(Use.SDE).fresh())
    return law.increment(own, law.shape(params), h), brownian(spare, params, h)


def _check_jumps(plan: Plan) -> None:
    """Refuses plans that have no SDE, or another one, under noise with jumps."""
    if not plan.optimizer.jumps:
        raise ValueError(
            f"{type(plan.optimizer).__name__} divides noise by its variance, which "
            "stable noise has not; use SGD, Momentum, HeavyBall, Signum or Adam"
        )
    if plan.noise_gain != 1:
        raise ValueError(
            "SVAG's signed mix makes stable noise of another size than its rule asks "
            "for, and has another limit; use the plan itself, or optsde.scale"
        )


def _amplified(law: Law, gain: float) -> Law:
    """Returns the law with `gain` times the variance, as SVAG's signed mix has it."""
    if gain == 1:
        return law

    def moments(params, dw):
        loss, mean, variance, kick = law.moments(params, dw)
        variance = jax.tree.map(lambda v: gain * v, variance)
        kick = jax.tree.map(lambda k: math.sqrt(gain) * k, kick)
        return Moments(loss, mean, variance, kick)

    return law._replace(moments=moments)
