"""The boost of the signal rule, which makes up for the signal's share in v.

Under √κ a coordinate moves at κ with the speed s_i = √((N_i + G_i)/(N_i + κG_i)) ≤ 1 of
the base run, in the clock of samples: v remembers G_i, which does not shrink with the
batch, beside N_i. The loss descends by lr Σ_i ḡ_i²/P_i, so that the mean of s_i with
the weights ḡ_i²/P_i is the speed of the descent, and its inverse the boost. The weights
matter: most coordinates have no signal, and those that descend have far more of it than
all have on the average.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from optsde.measure.difference import descent_speeds
from optsde.measure.noise import Noise
from optsde.plans.plan import Plan, refuse_without_signal_rule
from optsde.types import Schedule


def signal_boost(
    plan: Plan, noises: Noise, times: Sequence[float], kappa: float
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
    """
    refuse_without_signal_rule(plan.optimizer)
    if kappa not in noises.kappas:
        raise ValueError(
            f"noises were measured for κ = {noises.kappas}, and {kappa:g} is not among "
            "them: name it in noise_probe(…, kappas=…)"
        )
    known = np.asarray(times, np.float64)
    parts = noises.descent.base, noises.descent.slowed
    base, slowed = (
        np.asarray(sum(jax.tree.leaves(part)), np.float64) for part in parts
    )
    if not base.ndim or base.shape[-1] != len(known) or np.any(np.diff(known) <= 0):
        raise ValueError(
            f"noises of shape {base.shape} were given for times={known.tolist()}: "
            "needs one measurement, or one of each replica, for each of increasing "
            "times"
        )
    slowed = slowed[..., noises.kappas.index(kappa)]
    base, slowed = (x.reshape(-1, len(known)).mean(0) for x in (base, slowed))
    if not np.all(np.isfinite(base)):
        raise ValueError(f"descent measured is {base}: needs finite numbers")
    speeds = descent_speeds(plan, known, [kappa], base, slowed[:, None])[:, 0]
    boost = jnp.asarray(1 / speeds, float)
    return lambda time: jnp.interp(time, jnp.asarray(known, float), boost)
