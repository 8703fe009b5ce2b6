"""Multipliers of the learning rate as functions of time.

Time is counted in steps of the base run (samples / base batch), so a schedule need not
change when the batch does: `scale` and `svag` leave it alone.

    >>> schedule = warmup_cosine(warmup=100, horizon=1000)
    >>> [round(float(schedule(t)), 3) for t in (0, 50, 100, 550, 1000)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

Time = float | jax.Array
Schedule = Callable[[Time], jax.Array | float]


def constant() -> Schedule:
    """1 at all times."""
    return lambda t: jnp.ones_like(t, float)


def cosine(horizon: float, end: float = 0.0) -> Schedule:
    """Half a cosine from 1 at time 0 to `end` at `horizon`, and `end` after it."""

    def multiplier(t):
        phase = jnp.clip(t / horizon, 0, 1)
        return end + (1 - end) * 0.5 * (1 + jnp.cos(jnp.pi * phase))

    return multiplier


def milestones(times: Sequence[float], factor: float = 0.1) -> Schedule:
    """1, and `factor` times that after each of the given times."""
    return lambda t: factor ** sum(jnp.where(t >= at, 1.0, 0.0) for at in times)


def warmup(time: float, after: Schedule | None = None) -> Schedule:
    """Linear from 0 at time 0 to 1 at `time`, then `after`, counted from there."""
    return _after(time, lambda t: t / time, after or constant())


def exponential_warmup(
    time: float, start: float = 1e-3, after: Schedule | None = None
) -> Schedule:
    """Geometric from `start` at time 0 to 1 at `time`, then `after` from there."""
    return _after(time, lambda t: start ** (1 - t / time), after or constant())


def warmup_cosine(warmup: float, horizon: float, end: float = 0.0) -> Schedule:
    """Linear to 1 at `warmup`, then half a cosine to `end` at `horizon`."""
    if not 0 <= warmup < horizon:
        raise ValueError(
            f"warmup={warmup:g} must lie in [0, horizon) with horizon={horizon:g}"
        )
    return _after(warmup, lambda t: t / warmup, cosine(horizon - warmup, end))


def _after(time: float, ramp: Schedule, rest: Schedule) -> Schedule:
    if time == 0:
        return rest

    def multiplier(t):
        early = jnp.minimum(t, time)
        return jnp.where(t < time, ramp(early), rest(jnp.maximum(t - time, 0)))

    return multiplier
