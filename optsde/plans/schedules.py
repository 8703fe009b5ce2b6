"""Multipliers of the learning rate as functions of time.

Time is counted in steps of the base run (samples / base batch), so a schedule need not
change when the batch does: `scale` and `svag` leave it alone.

    >>> schedule = warmup_cosine(warmup=100, horizon=1000)
    >>> [round(float(schedule(t)), 3) for t in (0, 50, 100, 550, 1000)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optsde.checks import ABOVE_0, BELOW_1, check_function, check_number
from optsde.types import Scalar, Schedule


def constant() -> Schedule:
    """Returns the schedule that is 1 at all times."""
    return lambda t: jnp.ones_like(t, float)


def absolute(rates: Schedule, lr: float) -> Schedule:
    """Returns the multiplier of lr that makes a schedule of learning rates themselves.

    >>> import optax
    >>> rates = optax.warmup_cosine_decay_schedule(0.0, 3e-4, 100, 1000)
    >>> schedule = absolute(rates, lr=3e-4)
    >>> [round(float(schedule(t)), 3) for t in (50, 100, 550, 1000)]
    [0.5, 1.0, 0.5, 0.0]
    """
    check_number("lr", lr, "a positive number, such as the peak of rates", ABOVE_0)
    check_function("rates", rates, "time -> learning rate")
    return lambda t: rates(t) / lr


LEAST_PEAK = 0.1
GRID = 257  # times at which a schedule is looked at


def check_multiplier(schedule: Schedule, lr: Scalar, horizon: float) -> None:
    """Refuses a schedule that looks like learning rates and not like multiples of lr.

    It does if its peak is below `LEAST_PEAK`, or is lr itself: such a multiplier is
    better written with its factor in lr. One that still rises at the horizon has not
    come to its peak. Traced values are taken as they are.
    """
    times: Any = np.linspace(0, horizon, GRID, dtype=jnp.result_type(float))
    values = jax.vmap(schedule)(times)
    if isinstance(values, jax.core.Tracer) or isinstance(lr, jax.core.Tracer):
        return
    sizes = np.broadcast_to(np.asarray(values, np.float64), times.shape)
    if not np.all(np.isfinite(sizes)):
        at = float(times[np.argmin(np.isfinite(sizes))])
        raise ValueError(f"schedule is not finite at time {at:g}")
    if np.any(sizes < 0):
        at = int(np.argmax(sizes < 0))
        raise ValueError(
            f"schedule is {sizes[at]:g} at time {float(times[at]):g}: needs factors of "
            "lr ≥ 0; below 0 it would ascend"
        )
    peak, rises = sizes.max(), sizes[-1] == sizes.max() > sizes[0]
    is_lr = peak < 1 and np.any(np.isclose(peak, lr, rtol=1e-3))
    if peak > 0 and not rises and (peak < LEAST_PEAK or is_lr):
        raise ValueError(
            f"schedule has its peak at {peak:.3g}, with lr={lr}: it multiplies lr, and "
            "this looks like learning rates. Give schedules.absolute(schedule, lr) if "
            "it is; if not, put the factor into lr"
        )


def cosine(horizon: float, end: float = 0.0) -> Schedule:
    """Returns half a cosine from 1 at time 0 to `end` at `horizon`, and `end` after."""
    horizon = _length("horizon", horizon)
    end = _factor("end", end)

    def multiplier(t):
        phase = jnp.clip(t / horizon, 0, 1)
        return end + (1 - end) * 0.5 * (1 + jnp.cos(jnp.pi * phase))

    return multiplier


def linear(horizon: float, start: float = 1.0, end: float = 0.0) -> Schedule:
    """Returns a straight line from `start` at time 0 to `end` at `horizon`."""
    horizon = _length("horizon", horizon)
    start = _factor("start", start)
    end = _factor("end", end)
    return lambda t: start + (end - start) * jnp.clip(t / horizon, 0, 1)


def milestones(times: Sequence[float], factor: float = 0.1) -> Schedule:
    """Returns 1, multiplied by `factor` at each of the given times."""
    needs = "a list of times of the run"
    if isinstance(times, str) or not isinstance(times, Sequence | np.ndarray):
        raise ValueError(f"times={times!r}: needs {needs}")
    for time in times:
        check_number("times", time, needs)
    times = [_floating(time) for time in times]
    factor = _factor("factor", factor)
    return lambda t: factor ** sum(jnp.where(t >= at, 1.0, 0.0) for at in times)


def warmup(time: float, after: Schedule | None = None) -> Schedule:
    """Returns a line from 0 at time 0 to 1 at `time`, then `after` from there on."""
    time = _time("time", time)
    return _after(time, lambda t: t / time, _then(after))


def exponential_warmup(
    time: float, start: float = 1e-3, after: Schedule | None = None
) -> Schedule:
    """Returns a geometric rise from `start` to 1 at `time`, then `after` from there."""
    time = _time("time", time)
    check_number("start", start, "a positive factor", ABOVE_0)
    return _after(time, lambda t: start ** (1 - t / time), _then(after))


def warmup_cosine(warmup: float, horizon: float, end: float = 0.0) -> Schedule:
    """Returns a line to 1 at `warmup`, then half a cosine to `end` at `horizon`."""
    warmup = _time("warmup", warmup)
    horizon = _length("horizon", horizon)
    if not warmup < horizon:
        raise ValueError(
            f"warmup={warmup:g} must lie in [0, horizon) with horizon={horizon:g}"
        )
    return _after(warmup, lambda t: t / warmup, cosine(horizon - warmup, end))


def one_cycle(
    horizon: float, rise: float = 0.3, start: float = 0.04, end: float = 0.0
) -> Schedule:
    """Returns half a cosine from `start` up to 1 over the share `rise`, one to `end`.

    The form of torch's OneCycleLR with three numbers: Smith and Topin's own (2018) is
    made of straight lines.
    """
    horizon = _length("horizon", horizon)
    start = _factor("start", start)
    end = _factor("end", end)
    check_number("rise", rise, "a share of the horizon in (0, 1)", ABOVE_0, BELOW_1)
    up = cosine(rise * horizon, end=start)
    down = cosine((1 - rise) * horizon, end)
    return _after(rise * horizon, lambda t: up(rise * horizon - t), down)


def cyclic(period: float, low: float = 0.0, high: float = 1.0) -> Schedule:
    """Returns triangles, `low` at each multiple of `period`, `high` in the middle."""
    return exponential_cyclic(period, low, high, growth=1.0)


def exponential_cyclic(
    period: float, low: float = 0.0, high: float = 1.0, growth: float = 1.5
) -> Schedule:
    """Returns triangles whose peaks grow: cycle c rises from `low` to high·growth^c.

    torch's CyclicLR in mode exp_range lets the amplitude follow the step instead, and
    shrinks it; here every cycle is a triangle with one peak.
    """

    period = _length("period", period)
    low = _factor("low", low)
    high = _factor("high", high)
    growth = _factor("growth", growth)

    def multiplier(t):
        cycle = jnp.floor(t / period)
        rising = 1 - jnp.abs(2 * (t / period - cycle) - 1)
        return low + (high * growth**cycle - low) * rising

    return multiplier


def restarts(period: float, stretch: float = 1.0, end: float = 0.0) -> Schedule:
    """Returns half cosines from 1 to `end`, begun anew (SGDR, Loshchilov, Hutter 2017).

    The first lasts `period`, each further one `stretch` times the one before it.
    """
    period = _length("period", period)
    end = _factor("end", end)
    check_number("stretch", stretch, "a number ≥ 1", 1)

    def multiplier(t):
        if stretch == 1:
            phase = t / period - jnp.floor(t / period)
        else:
            begun = 1 + t / period * (stretch - 1)
            number = jnp.floor(jnp.log(begun) / jnp.log(stretch) + 1e-6)
            length = stretch**number
            phase = (begun - length) / (length * (stretch - 1))
        return end + (1 - end) * 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(phase, 0, 1)))

    return multiplier


def _time(name: str, value: float) -> float:
    check_number(name, value, "a time ≥ 0", 0)
    return _floating(value)


def _length(name: str, value: float) -> float:
    check_number(name, value, "a positive length of time, in base steps", ABOVE_0)
    return _floating(value)


def _factor(name: str, value: float) -> float:
    check_number(name, value, "a factor of lr ≥ 0", 0)
    return _floating(value)


def _floating(value: float) -> float:
    """Returns an int as a float, since those of jax have 32 bits."""
    return float(value) if isinstance(value, int) else value


def _then(after: Schedule | None) -> Schedule:
    if after is None:
        return constant()
    check_function("after", after, "of time, such as schedules.cosine(100)")
    return after


def _after(time: float, ramp: Schedule, rest: Schedule) -> Schedule:
    if time == 0:
        return rest

    def multiplier(t):
        early = jnp.minimum(t, time)
        return jnp.where(t < time, ramp(early), rest(jnp.maximum(t - time, 0)))

    return multiplier
