"""A check of numbers that are given, with one line that says what is allowed."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LARGEST = 2**31 - 1  # what counts and indices of int32 hold
WIDEST = float(np.finfo(np.float32).max)  # beyond it, a number is infinite there
ABOVE_0 = float(np.finfo(np.float32).tiny)  # below it, a number is 0 there
BELOW_1 = float(np.nextafter(1, 0))


def check_number(
    name: str,
    value: Any,
    needs: str,
    low: float = -WIDEST,
    high: float = WIDEST,
    whole: bool = False,
) -> None:
    """Refuses what is no finite number from low to high, or an array with any such.

    Finite is what float32 holds. Traced values are taken as they are.

    >>> check_number("horizon", float("nan"), "a positive time", low=0)
    Traceback (most recent call last):
        ...
    ValueError: horizon=nan: needs a positive time
    """
    if isinstance(value, jax.core.Tracer):
        return
    if is_number(value):
        found = np.asarray(value, np.float64)
        fine = np.isfinite(found) & (found >= low) & (found <= high)
        if np.all(fine) and not (whole and np.any(found != np.round(found))):
            return
    raise ValueError(f"{name}={value!r}: needs {needs}")


def check_batch(name: str, size: Any) -> None:
    """Refuses what is no number of examples."""
    needs = f"a whole number from 1 to {LARGEST}"
    check_number(name, size, needs, 1, LARGEST, whole=True)


def is_number(value: Any) -> bool:
    """Tells whether a value is a real number, or an array of them."""
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        dtype = np.asarray(value).dtype
    kinds = np.integer, jnp.floating  # bfloat16 and its like among these
    return any(jnp.issubdtype(dtype, kind) for kind in kinds)
