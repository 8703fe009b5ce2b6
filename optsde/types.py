"""Names for what functions take and return."""

from typing import Any

import jax

PyTree = Any  # arrays in nested containers
Scalar = float | jax.Array  # a hyperparameter: a number, traced or stacked
