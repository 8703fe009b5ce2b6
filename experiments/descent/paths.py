"""Paths of optimizers on a function: discrete runs of optsde, every point kept.

All methods, starting points and seeds of a call are one compiled program, in float64.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from experiments.descent.functions import Function, Point
from optsde import gradients
from optsde.dynamics import Dynamics
from optsde.run import Progress
from optsde.types import PyTree

Observe = Callable[[PyTree], PyTree]


def point_of(state: PyTree) -> PyTree:
    return state.params


def dynamics_of(
    function: Function, optimizer: optsde.Optimizer, start, steps: int
) -> Dynamics:
    """Returns the run of an optimizer from `start`, with the function's noise."""
    noise = gradients.diagonal(lambda x: jnp.full_like(x, function.noise))
    sampler = gradients.gaussian(function.loss, noise)
    plan = optsde.Plan(optimizer=optimizer, batch_size=1, horizon=steps)
    return optsde.discrete(plan, sampler, start)


def follow(dynamics: Dynamics, key, steps: int, observe: Observe = point_of) -> PyTree:
    """Returns what is observed of the states 0 to `steps`, stacked; inside jit."""

    def step(state, _):
        return dynamics.step(state, dynamics.source)[0], observe(state)

    return jax.lax.scan(step, dynamics.init(key), length=steps + 1)[1]


def descend(
    function: Function,
    optimizers: Mapping[str, optsde.Optimizer],
    starts: Sequence[Point],
    steps: int,
    seeds: int = 1,
    seed: int = 0,
    observe: Observe = point_of,
) -> dict[str, PyTree]:
    """Returns what is observed of each optimizer, [starts, seeds, steps + 1, …]."""

    def of_one(optimizer, start, key):
        dynamics = dynamics_of(function, optimizer, start, steps)
        return follow(dynamics, key, steps, observe)

    def of_all(starts, keys):
        runs = {}
        for name, optimizer in optimizers.items():
            of_seeds = jax.vmap(partial(of_one, optimizer), (None, 0))
            runs[name] = jax.vmap(of_seeds, (0, None))(starts, keys)
        return runs

    Progress(f"paths of {len(optimizers)} methods").say("compiling")
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(seed), seeds)
        points = jnp.asarray(starts, float)
        observed = jax.tree.map(np.asarray, jax.jit(of_all)(points, keys))
    return {name: observed[name] for name in optimizers}
