"""Discrete training as a dynamics: one optimizer step, state -> state."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optsde.checks import check_function, is_number, shown
from optsde.data.stream import Stream
from optsde.gradients import Draw, Oracle, Sampler, signed_mix
from optsde.mesh import norm
from optsde.optimizers.base import Clock, OptimizerState
from optsde.optimizers.elementwise import on_shards
from optsde.plans.plan import Plan, check_one_plan
from optsde.squares import step_gradient
from optsde.types import PyTree

TIMES = (0.0, *np.geomspace(1, 1e6, 63).tolist())
"""At which a schedule is compared with that of another run, in base steps."""


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
    about: Callable[[], Mapping[str, PyTree]] = dict
    """By what a journal tells it from others: words, numbers and arrays, by name"""


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
        averaged = on_shards(average.update, lambda average, *_: average)

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

    def about():
        return marks(plan, params) | {"oracle": _words(oracle)}

    return Dynamics(
        init, step, plan.dt, oracle, oracle.stream, about=about, start=start
    )


def marks(plan: Plan, params: PyTree) -> dict[str, PyTree]:
    """Returns what a plan and a start say of a run, whatever its length.

    A schedule is known by its values at some times, a start only where it is arrays.
    """
    return {
        "plan": repr(dataclasses.replace(plan, horizon=math.inf)),
        "schedule": _values(plan.schedule),
        "boost": _values(plan.boost),
        "initial params": None if _is_function(params) else params,
    }


def _values(of_time: Callable[[jax.Array], PyTree] | None) -> list[list[float]]:
    """Returns the values of a function of time at TIMES, for each leaf."""
    if of_time is None:
        return []
    host = jax.local_devices(backend="cpu")[0]
    with jax.default_device(host):  # whatever devices the run is on
        values = jax.vmap(of_time)(jnp.array(TIMES, jnp.float32))
    return [np.asarray(x, float).ravel().tolist() for x in jax.tree.leaves(values)]


def _words(x: Any) -> str:
    """Returns an oracle's settings, and the names of its functions."""
    if isinstance(x, Oracle) and dataclasses.is_dataclass(x):
        fields = {field.name: getattr(x, field.name) for field in dataclasses.fields(x)}
        fields.pop("at_once", None)  # of memory, and of no number
        if not isinstance(fields.get("source"), Oracle):
            fields.pop("source", None)
        each = ", ".join(f"{name}={_words(value)}" for name, value in fields.items())
        return f"{type(x).__name__}({each})"
    if isinstance(x, int | float | str | tuple | None):
        return repr(x)
    return getattr(x, "__qualname__", type(x).__name__)


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


def _is_function(params: PyTree) -> bool:
    return callable(params) and jax.tree_util.all_leaves([params])


def initial_point(params: PyTree, key: jax.Array) -> PyTree:
    """Returns `params`, called with a key of the run where it is a function.

    A module that is a pytree of arrays is no function, though it can be called.
    """
    start = params
    if _is_function(params):
        start = params(jax.random.fold_in(key, 2**31))
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
