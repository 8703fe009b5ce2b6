"""The discrete algorithm as a dynamics: one optimizer step, state -> state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optsde.gradients import Draw, ExampleOracle, Oracle, signed_mix
from optsde.gradients.oracles import Sampler
from optsde.plan import Plan
from optsde.types import PyTree


class Dynamics(NamedTuple):
    """What an ensemble runs. `dt` is the length of a step, in base steps.

    `source` is what the steps read: a pytree, so that large data is an argument of the
    compiled loop and no constant in it. `info` is a pytree of numbers about the step.
    """

    init: Callable[[jax.Array], Any]  # key -> state
    step: Callable[[Any, Any], tuple[Any, Any]]  # (state, source) -> (state, info)
    dt: float
    source: Any = None


class Info(NamedTuple):
    """What a step saw at the point that it left."""

    loss: jax.Array  # of its draw
    grad_norm: jax.Array  # global, before the clip


class State(NamedTuple):
    step: jax.Array  # int32
    key: jax.Array  # of the whole run; never changes
    params: PyTree
    optimizer: PyTree
    average: PyTree  # of the weights; None where the plan has none


def discrete(plan: Plan, sampler: Sampler, params: PyTree) -> Dynamics:
    """The run of a plan, with gradients from `sampler(batch_size)`.

    Batch size and noise gain are the plan's, so that a rescaled plan needs nothing else
    to be changed. `params` is the initial point, or a function of the key for one.
    """
    plan = plan.checked()
    transform = plan.transform()
    oracle = signed_mix(sampler(plan.batch_size), plan.noise_gain)
    if not isinstance(oracle, ExampleOracle):
        oracle = jax.tree_util.Partial(oracle)
    average = plan.average

    def init(key):
        start = initial_point(params, key)
        held = None if average is None else average.init(start)
        return State(jnp.int32(0), key, start, transform.init(start), held)

    def step(state: State, oracle: Oracle) -> tuple[State, Info]:
        loss, grads = oracle(state.params, Draw(state.key, state.step))
        updates, memory = transform.update(grads, state.optimizer, state.params)
        new = optax.apply_updates(state.params, updates)
        held = state.average
        if average is not None:
            held = average.update(held, new, plan.time(memory), plan.dt)
        moved = State(state.step + 1, state.key, new, memory, held)
        return moved, Info(loss, optax.tree.norm(grads))

    return Dynamics(init, step, plan.dt, oracle)


def initial_point(params: PyTree, key: jax.Array) -> PyTree:
    """`params`, or what it makes of the run's key where it is a function."""
    start = params(jax.random.fold_in(key, 2**31)) if callable(params) else params
    return jax.tree.map(jnp.asarray, start)
