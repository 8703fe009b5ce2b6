"""The signal's share over time, by which the signal rule of `scale` goes."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from optsde.measure.noise import Noise
from optsde.plans.plan import Plan, refuse_without_signal_rule
from optsde.types import Schedule

FINE = 1024  # points of the integral over v's memory


def signal_ratio(plan: Plan, noises: Noise, times: Sequence[float]) -> Schedule:
    """Returns G/N of a batch over time, as v remembers both, from a run's measurements.

    v averages g² with weights that fade by its decay β, so G and N are averaged over
    the past with the same weights, exp(−(1 − β) age). Both are weighted by 1/P, as the
    step weighs them: one ratio stands for all parameters. Between the times it is
    interpolated, and it is constant before the first and after the last.

    Args:
      plan: of the run that was measured.
      noises: metric of `noise_probe`, one for each time, [times] or [replicas, times].
      times: in base steps, increasing; early ones count where the run starts steeply.
    """
    refuse_without_signal_rule(plan.optimizer)
    memory = float(plan.optimizer.preconditioner_memory()) * plan.dt
    levels = noises.total(weighted=True)
    known = np.asarray(times, np.float64)
    shape = np.shape(levels.signal)
    if not shape or shape[-1] != len(known) or np.any(np.diff(known) <= 0):
        raise ValueError(
            f"noises of shape {shape} were given for times={known.tolist()}: needs one "
            "measurement, or one of each replica, for each of increasing times"
        )
    signal, noise = (
        np.asarray(x, np.float64).reshape(-1, len(known)).mean(0)
        for x in (levels.signal, levels.noise)
    )
    if not (np.all(noise > 0) and np.all(np.isfinite(signal))):
        raise ValueError(
            f"signal is {signal} and noise {noise}: the signal rule needs finite "
            "numbers, and some noise at every time"
        )
    past = np.linspace(0, known[-1], FINE)
    age = known[:, None] - past
    weight = np.where(age >= 0, np.exp(-np.maximum(age, 0) / memory), 0)
    mean, variance = (weight @ np.interp(past, known, x) for x in (signal, noise))
    ratio = jnp.asarray(mean / variance, float)
    return lambda time: jnp.interp(time, jnp.asarray(known, float), ratio)
