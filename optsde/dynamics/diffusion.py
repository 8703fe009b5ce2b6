"""The SDE of a plan as a dynamics: Euler–Maruyama steps of its Itô system, by diffrax.

Euler–Maruyama has weak order 1 in its own step, 1/substeps of a step of the plan.
"""

import math

import diffrax
import jax
import jax.numpy as jnp

from optsde.dynamics.discrete import Dynamics, State, initial_point
from optsde.gradients.law import Law, Moments
from optsde.optimizers import ItoSystem
from optsde.optimizers.base import Clock, OptimizerState
from optsde.plans.plan import Plan
from optsde.types import PyTree


class ItoTerm(diffrax.AbstractTerm):
    """Drift and noise of an Itô system in one diffrax term, y = (params, state).

    Both come from one evaluation of the gradient, so the vector field stands for itself
    by the point (t, y), and is evaluated where it meets the increments, in `prod`.
    """

    system: ItoSystem
    law: Law
    path: diffrax.AbstractPath

    def vf(self, t, y, args):
        del args
        return t, y

    def contr(self, t0, t1, **kwargs):
        return t1 - t0, self.path.evaluate(t0, t1)

    def prod(self, vf, control):
        t, (params, state) = vf
        dt, (dw, spare) = control
        _, mean, variance, kick = self.law.moments(params, dw)
        flow = self.system.drift(t, params, state, mean, variance)
        noise = self.system.noise(t, params, state, mean, variance, kick, spare)
        return jax.tree.map(
            lambda f, n, x: (f * dt + n).astype(x.dtype), flow, noise, (params, state)
        )


def ito_term(system: ItoSystem, law: Law, params: PyTree, key: jax.Array) -> ItoTerm:
    """Returns the term of one path of the SDE, whose noise is drawn from `key`."""
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    path = diffrax.UnsafeBrownianPath((law.shape(params), like), key)
    return ItoTerm(system, law, path)


def sde(
    plan: Plan, law: Law, params: PyTree, substeps: int = 4, keep_signal: bool = False
) -> Dynamics:
    """Returns the SDE of a plan, `substeps` Euler–Maruyama steps to a step of the plan.

    `law` gives the noise of a batch of `plan.batch_size`. A plan and its rescalings
    have one and the same SDE. `keep_signal` keeps the terms that separate a run from
    the limit κ → 0, and which depend on the plan (`Optimizer.sde`).
    """
    if plan.clip is not None or plan.average is not None:
        raise ValueError(
            "an SDE is that of the optimizer alone: clip and average must be None"
        )
    if not (isinstance(substeps, int) and substeps >= 1):
        raise ValueError(f"substeps={substeps} must be an integer ≥ 1")
    plan = plan.checked()
    system = plan.optimizer.sde(plan.schedule, plan.dt, keep_signal, plan.boost)
    law = _amplified(law, plan.noise_gain)
    h = 1 / substeps
    solver = diffrax.Euler()

    def init(key):
        start = initial_point(params, key)
        clock = sde_clock(plan.dt * h)
        memory = OptimizerState(clock, system.init(start))
        return State(jnp.int32(0), key, start, memory)

    def step(state: State, source: None) -> tuple[State, tuple]:
        del source
        term = ito_term(system, law, state.params, state.key)
        t0 = state.time / plan.dt  # the system's time counts steps of the plan
        t1 = t0 + h
        y = state.params, state.optimizer.direction
        (new, memory), *_ = solver.step(term, t0, t1, y, None, None, False)
        clock = state.optimizer.clock.paced(plan.dt * h).tick()
        moved = OptimizerState(clock, memory)
        return State(state.step + 1, state.key, new, moved), ()

    return Dynamics(init, step, plan.dt * h, paces=True)


def sde_clock(dt: float) -> Clock:
    """Returns a clock in float32 at any precision: its bits name the Brownian path."""
    return Clock(jnp.int32(0), jnp.float32(0), jnp.float32(dt))


def _amplified(law: Law, gain: float) -> Law:
    """Returns the law with `gain` times the variance, as SVAG's signed mix has it."""
    if gain == 1:
        return law

    def moments(params, dw):
        loss, mean, variance, kick = law.moments(params, dw)
        variance = jax.tree.map(lambda v: gain * v, variance)
        kick = jax.tree.map(lambda k: math.sqrt(gain) * k, kick)
        return Moments(loss, mean, variance, kick)

    return Law(law.shape, moments)
