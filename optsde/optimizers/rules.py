"""Laws by which hyperparameters follow κ: a power, or a memory kept in samples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from optsde.types import Scalar


class Power(NamedTuple):
    """The law of a hyperparameter that is multiplied by κ**exponent."""

    exponent: float
    why: str


class Memory(NamedTuple):
    """The law of a decay β, 1 − β → κ(1 − β) or β → β**κ: its memory in samples.

    The two agree to first order in 1 − β. In the limit κ → 0 the memory is forgotten at
    the `rate` 1 − β or −ln β of a step, so that each form has an SDE of its own.
    """

    why: str = "the average keeps its memory of 1/(1−β) steps, counted in samples"


def check_memory(memory: str) -> None:
    """Refuses a form of `Memory` that does not exist."""
    if memory not in ("linear", "power"):
        raise ValueError(f"memory={memory!r} is not known; one of: linear, power")


def remember(name: str, beta: Scalar, kappa: Scalar, memory: str) -> Scalar:
    """Returns the decay β at κ; refuses one below zero and says what to do."""
    if memory == "power":
        return beta**kappa
    if not isinstance(beta, jax.core.Tracer) and not isinstance(kappa, jax.core.Tracer):
        rate = float(np.max(1 - np.asarray(beta, np.float64)))
        kappa_, decay = float(kappa), 1 - rate
        if kappa_ * rate > 1 + 1e-9:
            raise ValueError(
                f"{name}={decay:g} has no memory left at kappa={kappa_:g}: "
                f"kappa·(1 − {name}) = {kappa_ * rate:g} is above 1. "
                f"Use kappa ≤ {1 / rate:g}, or memory='power', which takes {name} to "
                f"{name}**kappa = {decay**kappa_:.3g}"
            )
    return beta + (1 - kappa) * (1 - beta)


def rate(name: str, beta: Scalar, memory: str) -> Scalar:
    """Returns the rate of a memory in the SDE, lim (1 − β(κ))/κ at κ → 0.

    It is 1 − β in the linear form and −ln β in the power form, which has none at β = 0.
    """
    if memory == "linear":
        return 1 - beta
    if not isinstance(beta, jax.core.Tracer) and np.any(np.asarray(beta) <= 0):
        raise ValueError(
            f"{name}={beta}: memory='power' leaves it at 0 at every kappa, and the SDE "
            "has no rate for that; use memory='linear'"
        )
    return -jnp.log(beta)


def faded(beta: float, kappa: ArrayLike, memory: str) -> np.ndarray:
    """Returns the decay β at κ, and 0 where the linear form has no memory left."""
    if memory == "power":
        return beta ** np.asarray(kappa)
    return np.maximum(1 - np.asarray(kappa) * (1 - beta), 0)
