"""Draws: which random numbers a gradient reads, named by run, step and use.

A run has one key. Random numbers are a function of that key, the step and the use, so
nothing keeps a generator, and a run that resumes draws what it would have drawn.
"""

from collections.abc import Callable
from enum import IntEnum, unique
from typing import NamedTuple

import jax

from optsde.types import PyTree


@unique
class Use(IntEnum):
    """The uses of randomness besides the examples of a step, each a stream of its own.

    The numbers are part of what a seed means: a new use takes a new one.
    """

    MIX_FIRST = 1
    MIX_SECOND = 2
    HEAVY_TAIL = 3
    GRADIENT_NOISE = 7
    TAIL_INDEX = 8
    AUGMENT = 9
    INVARIANCE = 11
    SHARPNESS = 13
    SDE = 17
    DROPOUT = 19
    BATCH_SHARPNESS = 23


class Draw(NamedTuple):
    """The randomness of one step of a run, and the time at which the step begins."""

    key: jax.Array  # of the whole run
    step: jax.Array  # int32
    time: jax.Array | float = 0.0  # in base steps

    def fresh(self) -> jax.Array:
        """Returns the key of this step."""
        return jax.random.fold_in(self.key, self.step)

    def stream(self, use: Use) -> "Draw":
        """Returns an independent draw for another use at the same step."""
        key = jax.random.fold_in(self.key, 2**32 - int(use))
        return Draw(key, self.step, self.time)


def draw_like(key: jax.Array, like: PyTree, sample: Callable) -> PyTree:
    """Returns sample(key, shape, dtype) for every leaf, each with a key of its own."""
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    drawn = [sample(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)
