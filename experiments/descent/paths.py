"""Paths of optimizers on a function: discrete runs of optsde, every point kept.

All methods, starting points and seeds of a call are one compiled program, in float64.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

import optsde
from experiments.descent.functions import Function, Point
from optsde.dynamics import Dynamics
from optsde.types import PyTree

Observe = Callable[[PyTree], PyTree]


def point_of(state: PyTree):
    return state.params


def dynamics_of(
    function: Function, optimizer: optsde.Optimizer, start, steps: int
) -> Dynamics:
    """The run of an optimizer from `start`, with the function's noise."""
    import jax.numpy as jnp

    from optsde import gradients

    noise = gradients.diagonal(lambda x: jnp.full_like(x, function.noise))
    sampler = functools.partial(gradients.gaussian, function.loss, noise)
    plan = optsde.Plan(optimizer=optimizer, batch_size=1, horizon=steps)
    return optsde.discrete(plan, sampler, start)


def follow(dynamics: Dynamics, key, steps: int, observe: Observe = point_of) -> PyTree:
    """What `observe` sees of the states 0 to `steps`, stacked; for use inside jit."""
    import jax

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
    """What is observed of each optimizer, leaves [starts, seeds, steps + 1, …]."""
    import jax
    import jax.numpy as jnp

    def all_of_them(starts, keys):
        def of_one(optimizer, start, key):
            dynamics = dynamics_of(function, optimizer, start, steps)
            return follow(dynamics, key, steps, observe)

        def of_all(optimizer):
            one = functools.partial(of_one, optimizer)
            return jax.vmap(lambda s: jax.vmap(lambda k: one(s, k))(keys))(starts)

        return {name: of_all(optimizer) for name, optimizer in optimizers.items()}

    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(seed), seeds)
        points = jnp.asarray(starts, float)
        found = jax.tree.map(np.asarray, jax.jit(all_of_them)(points, keys))
    return {name: found[name] for name in optimizers}
