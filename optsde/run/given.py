"""Checks of what a run is given: its keys, its times, and a state to go on from."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optsde.checks import LARGEST, check_number, shown
from optsde.hosts import gathered, key_numbers
from optsde.types import PyTree

A_KEY_EACH = "one typed key for each replica, as jax.random.split(jax.random.key(0), 3)"


def check_keys(keys: Any) -> None:
    """Refuses what is no array of typed keys."""
    dtype = getattr(keys, "dtype", None)
    if dtype is None or not jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        raise ValueError(f"keys={shown(keys)}: needs {A_KEY_EACH}")
    if keys.ndim != 1 or not len(keys):
        raise ValueError(f"keys has the shape {keys.shape}: needs {A_KEY_EACH}")


def check_distinct(keys: jax.Array, *members: PyTree) -> None:
    """Refuses runs that would be the same twice: of one key, and of equal members.

    Arms are paired by seed: they have the same keys, and members of their own, at the
    start or from a change on. Of a state that goes on, the keys are its own.
    """
    check_keys(keys)
    runs: dict[bytes, int] = {}
    leaves = [x for x in jax.tree.leaves((keys, members)) if np.ndim(x)]
    rows = [x for x in leaves if len(x) == len(keys)]
    numbers = [np.asarray(gathered(key_numbers(jnp.asarray(x)))) for x in rows]
    for number in range(len(keys)):
        content = b"|".join(x[number].tobytes() for x in numbers)
        same = runs.setdefault(content, number)
        if same != number:
            raise ValueError(
                f"keys has one key twice, for replicas {same} and {number}, which "
                f"would be the same run: needs {A_KEY_EACH}, or members that differ"
            )


def check_times(name: str, times: Any) -> None:
    """Refuses what are no finite times, or no stride of them."""
    check_number(name, times, "times of the run in base steps, or one stride of them")


def check_end(horizon: Any, step: int) -> None:
    """Refuses a run of more steps than the clock counts."""
    if step > LARGEST:
        raise ValueError(
            f"horizon={horizon:g} is {step:.3g} steps: the clock counts to {LARGEST}; "
            "use a shorter horizon"
        )


def check_state(state: PyTree, like: PyTree) -> None:
    """Refuses a stacked state that is not of a run whose one state is `like`."""
    given, wanted = jax.tree.structure(state), jax.tree.structure(like)
    if given != wanted:
        raise ValueError(
            f"state={_named(state)}: is not of this run, whose state is "
            f"{_named(like)}; give that of a run of this plan, or optsde.switch it"
        )
    for x, one in zip(jax.tree.leaves(state), jax.tree.leaves(like), strict=True):
        if x.shape[1:] != one.shape:
            raise ValueError(
                f"state has a leaf of shape {list(x.shape)} for its replicas, where "
                f"each of this run has {list(one.shape)}: give a state of the same net"
            )


def _named(state: PyTree) -> str:
    optimizer = getattr(state, "optimizer", None)
    direction = type(getattr(optimizer, "direction", None)).__name__
    kind = type(state).__name__
    return kind if optimizer is None else f"{kind} of {direction}"
