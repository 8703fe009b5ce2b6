"""Discrete training as a dynamics: one optimizer step, state -> state."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optsde.checks import check_function, is_number, shown
from optsde.data.stream import Stream
from optsde.gradients import Draw, Oracle, Sampler, signed_mix
from optsde.mesh import norm
from optsde.optimizers.base import Clock, OptimizerState
from optsde.optimizers.elementwise import elementwise
from optsde.plans.plan import Plan, check_one_plan
from optsde.squares import step_gradient
from optsde.types import PyTree


class Dynamics(NamedTuple):
    """The steps of a run: `init` makes a state of a key, `step` the next of a state.

    `source` is a pytree that the steps read, so that large data is an argument of the
    compiled loop and no constant in it. `info` is a pytree of numbers about the step.
    """

    init: Callable[[jax.Array], Any]  # key -> state
    step: Callable[[Any, Any], tuple[Any, Any]]  # (state, source) -> (state, info)
    dt: float  # the length of a step, in base steps
    source: Any = None
    stream: Stream | None = None  # that the source's batches are read from ahead of use
    paces: bool = False  # whether it goes on from states of steps of other lengths
    start: Callable[[jax.Array, PyTree], Any] | None = None
    """(key, params) -> state, where steps are right on parameters split over devices"""
    about: str = ""  # in words, by which a journal tells it from others


class Info(NamedTuple):
    """Numbers about a step, at the point that it left."""

    loss: jax.Array  # of its draw
    grad_norm: jax.Array  # global, before the clip


class State(NamedTuple):
    """The state of a run; `state.time` is in steps of the base run."""

    step: jax.Array  # int32, names the draws
    key: jax.Array  # of the whole run; never changes
    params: PyTree
    optimizer: OptimizerState
    average: PyTree = None  # of the weights, where the plan has one

    @property
    def clock(self) -> Clock:
        return self.optimizer.clock

    @property
    def time(self) -> jax.Array:
        return self.clock.time


def discrete(plan: Plan, sampler: Sampler, params: PyTree) -> Dynamics:
    """Returns the run of a plan, with gradients from `sampler(batch_size)`.

    Args:
      plan: batch size and noise gain are the plan's, so that a rescaled plan needs
        nothing else to be changed.
      sampler: batch size -> oracle, such as `gradients.minibatch(losses, data)`.
      params: the initial point, or a function of the key for one.

        >>> import optsde
        >>> from optsde.gradients import FunctionOracle
        >>> plan = optsde.Plan(optimizer=optsde.SGD(lr=0.5), batch_size=1, horizon=2)
        >>> oracle = FunctionOracle(lambda source, x, draw: (x**2 / 2, x))
        >>> run = discrete(plan, lambda batch_size: oracle, 1.0)
        >>> state, info = run.step(run.init(jax.random.key(0)), run.source)
        >>> float(state.params), float(state.time)
        (0.5, 1.0)
    """
    check_one_plan(plan)
    if isinstance(sampler, Oracle):
        raise ValueError(
            "sampler is an oracle: needs a function, batch size -> oracle, such as "
            "lambda batch_size: oracle"
        )
    check_function("sampler", sampler, "batch size -> oracle")
    transform: Any = plan.transform()
    oracle = signed_mix(_draws(plan, sampler), plan.noise_gain)
    average = plan.average
    averaged = None
    if average is not None:
        averaged = elementwise(type(average).__name__, average.update)

    def start(key, params):
        mean = None if average is None else average.init(params)
        return State(jnp.int32(0), key, params, transform.init(params), mean)

    def init(key):
        return start(key, initial_point(params, key))

    def step(state: State, oracle: Oracle) -> tuple[State, Info]:
        draw = Draw(state.key, state.step, state.time)
        loss, grads = oracle(state.params, draw)
        updates, memory = transform.update(grads, state.optimizer, state.params)
        new = optax.apply_updates(state.params, updates)
        mean = state.average
        if averaged is not None:
            mean = averaged(mean, new, memory.clock.time, plan.dt)
        moved = State(state.step + 1, state.key, new, memory, mean)
        return moved, Info(loss, norm(step_gradient(grads)))

    about = words_of(plan)
    return Dynamics(
        init, step, plan.dt, oracle, oracle.stream, about=about, start=start
    )


def words_of(plan: Plan) -> str:
    """Returns what a plan says of a run, whatever its length."""
    return repr(dataclasses.replace(plan, horizon=math.inf))


def _draws(plan: Plan, sampler: Sampler) -> Oracle:
    """Returns the oracle of a batch, or of its micro-batches if the optimizer asks."""
    micros = plan.optimizer.micro_batches(plan.noise_gain)
    if plan.batch_size % (micros or 1):
        raise ValueError(
            f"batch_size={plan.batch_size} is not {micros} equal micro-batches: "
            "change the optimizer's `micros`, or the batch"
        )
    oracle = sampler(plan.batch_size // (micros or 1))
    if not isinstance(oracle, Oracle):
        raise TypeError(
            f"the sampler gives {type(oracle).__name__}, no oracle: wrap a function "
            "(source, params, draw) -> (loss, grads) as gradients.FunctionOracle(it)"
        )
    return oracle if micros is None else oracle.squared(micros)


def initial_point(params: PyTree, key: jax.Array) -> PyTree:
    """Returns `params`, called with a key of the run where it is a function.

    A module that is a pytree of arrays is no function, though it can be called.
    """
    is_function = callable(params) and jax.tree_util.all_leaves([params])
    start = params(jax.random.fold_in(key, 2**31)) if is_function else params
    for path, leaf in jax.tree_util.tree_leaves_with_path(start):
        if callable(leaf):
            raise TypeError(
                f"params{jax.tree_util.keystr(path)} is a function: give arrays alone, "
                "of a module eqx.filter(module, eqx.is_inexact_array)"
            )
        if not (
            is_number(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        ):
            raise TypeError(
                f"params{jax.tree_util.keystr(path)}={shown(leaf)}: needs floats"
            )
    return jax.tree.map(jnp.asarray, start)
