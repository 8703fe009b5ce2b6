"""Checks of what is given, with one line that says what is allowed."""

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
    raise ValueError(f"{name}={shown(value)}: needs {needs}")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Refuses what is no whole number from `least` on that an int32 holds."""
    needs = f"a whole number from {least} to {LARGEST}"
    if np.ndim(value) or isinstance(value, bool):
        raise ValueError(f"{name}={shown(value)}: needs {needs}")
    check_number(name, value, needs, least, LARGEST, whole=True)


def check_function(name: str, value: Any, needs: str) -> None:
    """Refuses what cannot be called."""
    if not callable(value):
        raise ValueError(f"{name}={shown(value)}: needs a function, {needs}")


def check_rows(name: str, data: Any) -> int:
    """Returns how many examples arrays hold; refuses none, and unequal numbers.

    >>> check_rows("data", (np.ones((8, 3)), np.ones(5)))
    Traceback (most recent call last):
        ...
    ValueError: data has arrays of 5 and 8 rows: give one row of each for every example
    """
    leaves = jax.tree.leaves(data)
    if not leaves or not all(getattr(x, "shape", ()) for x in leaves):
        raise ValueError(
            f"{name}={shown(data)}: needs arrays of one row for each example"
        )
    lengths = {len(x) for x in leaves}
    if len(lengths) > 1:
        raise ValueError(
            f"{name} has arrays of {' and '.join(map(str, sorted(lengths)))} rows: "
            "give one row of each for every example"
        )
    if lengths == {0}:
        raise ValueError(f"{name} has 0 examples: needs one or more")
    return lengths.pop()


def check_labels(name: str, targets: Any, lowest: int, classes: int) -> None:
    """Refuses labels that none of the classes has. Traced ones are taken as they are.

    `lowest` is the least that a loss takes: −1 where that counts for none.
    """
    if isinstance(targets, jax.core.Tracer) or not targets.size:
        return
    numbers = np.asarray(targets)
    least, most = int(numbers.min()), int(numbers.max())
    if least < lowest or most >= classes:
        raise ValueError(
            f"{name} has labels from {least} to {most}, and {classes} outputs take "
            f"{lowest} to {classes - 1}: number the classes from 0, or let the net "
            "have an output for each"
        )


def shown(value: Any) -> str:
    """Returns a value as it stands in an error, in one line of moderate length."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}…"


def is_number(value: Any) -> bool:
    """Tells whether a value is a real number, or an array of them."""
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        dtype = np.asarray(value).dtype
    kinds = np.integer, jnp.floating  # bfloat16 and its like among these
    return any(jnp.issubdtype(dtype, kind) for kind in kinds)
