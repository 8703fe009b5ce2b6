"""The SDE of a plan as a dynamics: Euler–Maruyama steps of its Itô system, by diffrax.

Euler–Maruyama has weak order 1 in its own step, 1/substeps of a base step.
"""

from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp

from optsde.dynamics.discrete import Dynamics
from optsde.gradients.law import Law
from optsde.optimizers import ItoSystem
from optsde.plan import Plan

PyTree = Any


class SDEState(NamedTuple):
    step: jax.Array  # int32
    key: jax.Array  # of the whole run; never changes
    params: PyTree
    optimizer: PyTree


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
        return jax.tree.map(lambda f, n: f * dt + n, flow, noise)


def ito_term(system: ItoSystem, law: Law, params: PyTree, key: jax.Array) -> ItoTerm:
    """The term of one path of the SDE: its Brownian motion is drawn from `key`."""
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    path = diffrax.UnsafeBrownianPath((law.shape(params), like), key)
    return ItoTerm(system, law, path)


def sde(
    plan: Plan, law: Law, params: PyTree, substeps: int = 4, keep_signal: bool = False
) -> Dynamics:
    """The SDE of the plan, `substeps` Euler–Maruyama steps to a base step.

    `law` gives the noise of a batch of `plan.batch_size`. `keep_signal` keeps the terms
    that separate the base run from the limit κ → 0 (`Optimizer.sde`).
    """
    if plan.clip is not None or plan.average is not None:
        raise ValueError(
            "the SDE is that of the optimizer: clip and average must be None"
        )
    system = plan.optimizer.sde(plan.schedule, keep_signal)
    dt = plan.dt / substeps
    solver = diffrax.Euler()

    def init(key):
        start = jax.tree.map(jnp.asarray, params)
        return SDEState(jnp.int32(0), key, start, system.init(start))

    def step(state: SDEState) -> SDEState:
        term = ito_term(system, law, state.params, state.key)
        t0, t1 = state.step * dt, (state.step + 1) * dt
        y = state.params, state.optimizer
        (new, memory), *_ = solver.step(term, t0, t1, y, None, None, False)
        return SDEState(state.step + 1, state.key, new, memory)

    return Dynamics(init, step, dt)
