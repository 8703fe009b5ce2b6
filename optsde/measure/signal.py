"""The boost of the signal rule, which makes up for the signal's share in v.

Under √κ a coordinate moves at κ with the speed s_i = √((N_i + G_i)/(N_i + κG_i)) ≤ 1 of
the base run, in the clock of samples: v remembers G_i, which does not shrink with the
batch, beside N_i. The loss descends by lr Σ_i ḡ_i²/P_i, so that the mean of s_i with
the weights ḡ_i²/P_i is the speed of the descent, and its inverse the boost. The weights
matter: most coordinates have no signal, and those that descend have far more of it than
all have on the average. Leaves of the parameters may have a boost each, from their own
descent: nearer to the rule of each coordinate, and with the larger error of each leaf.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from optsde.checks import shown
from optsde.measure.difference import descent_speeds
from optsde.measure.noise import Noise
from optsde.plans.plan import Plan, refuse_without_signal_rule
from optsde.types import PyTree, Scalar, Schedule


def signal_boost(
    plan: Plan,
    noises: Noise,
    times: Sequence[float],
    kappa: float,
    by_leaf: bool = False,
) -> Schedule:
    """Returns the boost for `scale(plan, κ, rule="signal")`, from measurements.

    It is 1/s, with the speed s of the descent after what v remembers: `descent_speeds`.
    Between the times it is interpolated, and it is constant before the first and after
    the last.

    Args:
      plan: of the run that was measured.
      noises: metric of `noise_probe(…, kappas=…)`, this κ among them: [times] or
        [replicas, times]. The boost is too small where κ is near the number of draws:
        κ G_i of a coordinate is mostly error then. Have several times as many.
      times: in base steps, increasing; early ones count where the run starts steeply.
      kappa: the batch, in batches of the plan.
      by_leaf: a boost for each leaf of the parameters, in a tree like them, in place of
        one for all.
    """
    refuse_without_signal_rule(plan.optimizer)
    if kappa not in noises.kappas:
        raise ValueError(
            f"noises were measured for κ = {noises.kappas}, and {kappa:g} is not among "
            "them: name it in noise_probe(…, kappas=…)"
        )
    known = np.asarray(times, np.float64)
    base, slowed = noises.descent
    if not by_leaf:
        base, slowed = (sum(jax.tree.leaves(part)) for part in noises.descent)
    column = noises.kappas.index(kappa)

    def boost(base, slowed):
        base, slowed = np.asarray(base, np.float64), np.asarray(slowed, np.float64)
        _check_measured(base, known)
        base, slowed = (
            x.reshape(-1, len(known)).mean(0) for x in (base, slowed[..., column])
        )
        speeds = descent_speeds(plan, known, [kappa], base, slowed[:, None])
        return jnp.asarray(1 / speeds[:, 0], float)

    boosts = jax.tree.map(boost, base, slowed)
    return partial(interpolated, known, boosts)


def interpolated(times: ArrayLike, values: PyTree, time: Scalar) -> PyTree:
    """Returns each leaf's value at a time; leaves of `values` are arrays [times].

    It is constant before the first and after the last.
    """
    known = jnp.asarray(times, float)
    return jax.tree.map(lambda x: jnp.interp(time, known, x), values)


def _check_measured(base: np.ndarray, times: np.ndarray) -> None:
    if not base.ndim or base.shape[-1] != len(times) or np.any(np.diff(times) <= 0):
        raise ValueError(
            f"noises of shape {base.shape} were given for times={times.tolist()}: "
            "needs one measurement, or one of each replica, for each of increasing "
            "times"
        )
    if not np.all(np.isfinite(base)):
        raise ValueError(f"descent measured is {shown(base)}: needs finite numbers")
