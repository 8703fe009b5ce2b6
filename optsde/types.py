"""Names for what functions take and return."""

from collections.abc import Callable
from typing import Any

import jax

PyTree = Any  # arrays in nested containers
Scalar = float | jax.Array  # a hyperparameter: a number, traced or stacked

Time = float | jax.Array  # in steps of the base run
Schedule = Callable[[Time], jax.Array | float]  # multiplier of the learning rate
