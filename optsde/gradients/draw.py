"""Draws: which random numbers a gradient reads, named by run, step and use.

A run has one key. Random numbers are a function of that key, the step and the use, so
nothing keeps a generator, and a run that resumes draws what it would have drawn.
"""

from enum import IntEnum, unique
from typing import NamedTuple

import jax


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
