"""How does the loss look around a trained point, along random directions?

Directions are Gaussian, each filter scaled to the norm of that of the parameters (Li et
al., NeurIPS 2018).
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.landscape.drawing import draw_line, draw_plane
from experiments.landscape.slices import Slice, evaluate_slice, slice_study
from experiments.landscape.trained import Trained, point
from optsde.study import Seeded, setting
from optsde.types import PyTree

UNITS = "distance in units of the filters' norms"


class Settings(Trained, Seeded):
    directions: int = setting(1, "of the slice", one_of=(1, 2), needs="1 or 2")
    radius: float = setting(1.0, "of the slice, in norms of the filters", above=0)


def random_direction(key: jax.Array, params: PyTree) -> PyTree:
    """Returns Gaussian filters of the parameters' norms; 0 on leaves of one axis."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    drawn = [
        jax.random.normal(k, x.shape, x.dtype)
        for k, x in zip(keys, leaves, strict=True)
    ]
    return filter_normalised(jax.tree.unflatten(tree, drawn), params)


def filter_normalised(direction: PyTree, params: PyTree) -> PyTree:
    """Returns the direction, each filter scaled to the norm of that of the parameters.

    A filter is what makes one output: all axes of a kernel but the last. Leaves of one
    axis (biases, scales of norms) become 0, as they have no filters.
    """

    def scaled(d, x):
        if x.ndim < 2:
            return jnp.zeros_like(d)
        axes = tuple(range(x.ndim - 1))
        length = jnp.sqrt(jnp.sum(d**2, axes, keepdims=True))
        wanted = jnp.sqrt(jnp.sum(x**2, axes, keepdims=True))
        factor = wanted / jnp.where(length > 0, length, 1)
        return d * jnp.broadcast_to(factor, d.shape)

    return jax.tree.map(scaled, direction, params)


def simulate(s, rundir, task):
    step, params = point(s.run, s.replica, s.step)
    keys = jax.random.split(jax.random.key(s.seed), 2)[: s.directions]
    directions = [random_direction(key, params) for key in keys]
    distance = np.linspace(-s.radius, s.radius, s.points)
    return evaluate_slice(rundir, task, [step], params, directions, distance)


def numbers(loss: np.ndarray) -> dict[str, float]:
    """Returns the loss at the trained point, and its extremes."""
    centre = loss[tuple(size // 2 for size in loss.shape)]
    return {"centre": centre, "lowest": np.min(loss), "highest": np.max(loss)}


def figure(s, cut: Slice, path):
    if cut.is_plane:
        draw_plane(cut, UNITS, path)
    else:
        draw_line(cut, UNITS, (0.0,), path)


study = slice_study(__name__, Settings, simulate, numbers, figure)
