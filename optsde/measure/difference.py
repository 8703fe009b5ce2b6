"""How much the loss at κ times the batch differs, from measurements of the base run.

*The lag.* A coordinate moves by −lr·ḡ_i/P_i in a base step. Where P² counts the mean
gradient, as v of Adam does, P is √(N_i + G_i) with G_i = ḡ_i² and the noise N_i; at κ
times the batch it is √(N_i/κ + G_i), and lr is √κ as large for κ times fewer steps, so
that the coordinate has

    s_i = √((N_i + G_i)/(N_i + κ G_i)) ≤ 1

of its speed in the clock of samples: 1 where noise rules, 1/√κ where signal does. The
loss descends by lr Σ_i ḡ_i²/P_i, and so at κ by s times that, s being the mean of s_i
weighed by ḡ_i²/P_i. The run at κ is then taken for the base run at an earlier time τ,

    dτ/dt = s(τ),    L_κ(t) = L(τ(t)),

which is exact where all s_i are equal, and else at first order in the lag: later the
coordinates that lagged have more of the descent left to do. The G_i in v is the average
over what v remembers, in AdaGrad over all the past. Where lr follows a schedule, time
is ∫ schedule dt. Optimizers that do not count the mean gradient do not lag. The ε that
may be in P is taken for small beside √v, and m for ḡ.

*The loss that noise keeps up* is lr/4 Σ N_i/P_i at equilibrium, and changes by what
`departure` says of the ratio ΣG/ΣN then. That takes all signal for kept up by noise: on
a descent it says too much, of what is then a small part of the loss.

That √(N + κG) governs v is in Compagnoni et al. (2411.15958). Of G_i the error is about
N_i·√8/draws, as halves of the draws weigh and slow. Where κ times that is not small,
the speed of coordinates with some signal is measured too high: for draws = 4κ by .035
at most.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optsde.analysis.statistics import Estimate, Interval, interval, jackknife
from optsde.analysis.tables import table, with_interval
from optsde.checks import check_number
from optsde.measure.noise import Noise
from optsde.measure.prediction import departure, sums_for_ever
from optsde.plans.plan import Plan

FINE = 4096  # steps in which the lag is integrated


class Difference(NamedTuple):
    """The loss at each κ less the base run's, in percent of it, as predicted.

    The standard errors are those of the replicas that were measured. They know nothing
    of what the prediction leaves out. A difference is infinite where steps at κ are too
    long for noise to keep the loss at any level.
    """

    kappas: tuple[float, ...]
    total: Estimate  # [kappas]
    lag: Estimate  # [kappas], the part of slower descent
    kept: Estimate  # [kappas], the part of the loss that noise keeps up
    cautions: tuple[str, ...]  # what is known to be left out

    def limit(self, bound: float) -> Interval:
        """Returns the κ at which the difference passes ± bound percent, and its ends.

        Between the κ, and beyond them, the difference over κ − 1 is interpolated in
        log κ: to first order in G/N it does not depend on κ.
        """
        ends = np.array([interval(x) for x in self.total.each()])
        value, low, high = ends.T
        most = np.maximum(-low, high)
        least = np.maximum(0, np.maximum(low, -high))
        sizes = np.abs(value), most, least
        return Interval(*(_passes(self.kappas, size, bound) for size in sizes))

    def __str__(self) -> str:
        columns = self.total, self.lag, self.kept
        rows = []
        for i, kappa in enumerate(self.kappas):
            cells = [interval(x.at(i)) for x in columns]
            rows.append([f"{kappa:g}", *map(_cell, cells)])
        header = ["κ", "loss, % from base", "slower descent", "noise keeps up"]
        return "\n\n".join([table(header, rows, "rrrr"), *self.cautions])


def _cell(x: Interval) -> str:
    return with_interval(x, 2, sign="+") if np.isfinite(x.value) else "no equilibrium"


def _passes(kappas: Sequence[float], sizes: np.ndarray, bound: float) -> float:
    """Returns the first κ > 1 at which a size passes the bound, or infinity."""
    fine = np.geomspace(1, 2**20, 20 * 64 + 1)
    slopes = sizes / (np.array(kappas) - 1)
    passed = np.interp(np.log(fine), np.log(kappas), slopes) * (fine - 1) > bound
    return float(fine[passed.argmax()]) if passed.any() else np.inf


def loss_difference(
    plan: Plan,
    noises: Noise,
    times: Sequence[float] | np.ndarray,
    curve: tuple[np.ndarray, np.ndarray],
    at: Sequence[float] | np.ndarray,
    memory: str = "linear",
) -> Difference:
    """Predicts the mean loss at some times, at κ times the batch, less the base run's.

    Args:
      plan: of the base run.
      noises: measured along replicas of it, [replicas, times], for the κ > 1 asked
        for (`noise_probe(…, kappas=…)`).
      times: of `noises`, in base steps. Before the first, the run is taken to be as
        it was then: have some early.
      curve: times from 0 on and losses [replicas, times] of the same replicas, of any
        kind. It is drawn through the points: have them close where it is steep.
      at: times, at which the mean is predicted; none after the last of `times`.
      memory: how decays follow κ, as in `scale`.
    """
    check_number("at", at, "times of the run")
    for part in curve:
        check_number("curve", part, "finite times and losses")
    kappas = tuple(kappa for kappa in noises.kappas if kappa > 1)
    times, at = np.asarray(times, np.float64), np.asarray(at, np.float64)
    known, losses = (np.asarray(x, np.float64) for x in curve)
    weighted = noises.total(weighted=True)
    base, slowed, signal, noise = (
        np.asarray(x, np.float64)
        for x in (
            sum(jax.tree.leaves(noises.descent.base)),
            sum(jax.tree.leaves(noises.descent.slowed)),
            weighted.signal,
            weighted.noise,
        )
    )
    if not kappas:
        raise ValueError(
            f"noises were measured for κ = {noises.kappas}: needs some above 1, as in "
            "noise_probe(…, kappas=(4, 16))"
        )
    if noise.shape != (len(losses), len(times)):
        raise ValueError(
            f"noises of {noise.shape} replicas and times, {len(times)} times and "
            f"losses of {len(losses)} replicas: needs all of one ensemble"
        )
    if losses.shape[1:] != known.shape:
        raise ValueError(
            f"curve has losses {list(losses.shape)} at {list(known.shape)} times: "
            "needs [replicas, times] and [times]"
        )
    for name, part in (("base", base), ("slowed", slowed), ("noise", noise)):
        check_number(f"noises.{name}", part, "finite measurements")
    if len(losses) < 2:
        raise ValueError("1 replica has no standard error: measure at least 2")
    if known[0] > 0 or max(at) > min(times[-1], known[-1]):
        raise ValueError(
            f"at={at}: needs a curve from time 0 and measurements to the last of these"
        )
    from scipy.interpolate import PchipInterpolator  # a third of a second

    slowed = slowed[..., [kappa > 1 for kappa in noises.kappas]]
    clock = _clock(plan, times[-1])

    def parts(base, slowed, signal, noise, losses):
        mean = PchipInterpolator(known, losses.mean(0))
        speeds = descent_speeds(plan, times, kappas, base.mean(0), slowed.mean(0))
        lag = [_delayed(mean, at, clock, times, speed) for speed in speeds.T]
        kept = _kept(plan, at, times, signal.mean(0), noise.mean(0), kappas, memory)
        both = 100 * np.array([np.array(lag), kept]) / mean(at).mean()
        return np.stack([both.sum(0), *both])

    found = jackknife(parts, base, slowed, signal, noise, losses)
    total, lag, kept = found.each()
    return Difference(kappas, total, lag, kept, tuple(_cautions(plan)))


def _cautions(plan: Plan) -> Iterator[str]:
    optimizer = plan.optimizer.representative()
    if optimizer.adaptive and plan.optimizer.decays_weights():
        yield (
            "The weights decay as fast as before where the gradient is slower. That "
            "moves the loss, and is not in this prediction"
        )
    if sums_for_ever(optimizer):
        yield (
            f"{type(optimizer).__name__} has no equilibrium, so what noise keeps up "
            "is not told: at large κ, where finite steps add to it, the loss is higher"
        )


def _clock(plan: Plan, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns times, and the integral of the schedule up to them."""
    fine = np.linspace(0, end, FINE + 1)
    return fine, _integral(fine, _rates(plan, fine) / float(plan.optimizer.lr))


def _rates(plan: Plan, times: np.ndarray) -> np.ndarray:
    rates = jax.vmap(plan.rate)(jnp.asarray(times, float))
    return np.broadcast_to(np.asarray(rates, np.float64), times.shape)


def _integral(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.diff(x) * (y[1:] + y[:-1]) / 2)])


def descent_speeds(
    plan: Plan, times: np.ndarray, kappas: Sequence[float], base, slowed
) -> np.ndarray:
    """Returns the speed of descent at κ by that of the base run, [times, kappas].

    Args:
      plan: of the base run.
      times: of the measurements, in base steps.
      kappas: batches, in batches of the plan.
      base: descent of the base run, [times].
      slowed: what is left of it at each κ before v remembers, [times, kappas].
    """
    optimizer = plan.optimizer.representative()
    if not optimizer.adaptive:
        return np.ones_like(slowed)
    # Where noise keeps the loss up, the descent measured may be nothing or less.
    some = base[:, None] > 0
    speeds = np.where(some, slowed / np.where(some, base[:, None], 1), 1)
    speeds = np.clip(speeds, np.power(kappas, -0.5), 1)
    # s = (1 + (κ − 1) r)^-½, where r is the signal's share of all that P remembers.
    fine = np.linspace(0, times[-1], FINE + 1)
    shares = [np.interp(fine, times, x) for x in (speeds**-2 - 1).T]
    span = max(float(optimizer.preconditioner_memory()), 1.0) * plan.dt
    ages = times[:, None] - fine
    weights = np.where(ages >= 0, np.exp(-np.maximum(ages, 0) / span), 0)
    remembered = weights @ np.array(shares).T / weights.sum(1, keepdims=True)
    return (1 + remembered) ** -0.5


def _delayed(mean, at, clock, times, speed) -> float:
    """Returns what the mean loss is higher by, at κ's speed along the run."""
    fine, sigma = clock
    slower = np.interp(fine, times, speed)
    when = _integral(sigma, 1 / slower)  # that the run at κ is where this one is
    then = np.interp(np.interp(at, fine, sigma), when, fine)
    return float(np.mean(mean(then) - mean(at)))


def _kept(plan, at, times, signal, noise, kappas, memory) -> np.ndarray:
    """Returns the change of the loss that noise keeps up, at each κ."""
    optimizer = plan.optimizer.representative()
    if sums_for_ever(optimizer):
        return np.zeros(len(kappas))
    here = np.interp(at, times, noise)
    ratio = np.maximum(np.interp(at, times, signal) / here, 0)
    friction = optimizer.response().friction
    size = _rates(plan, at) / friction / 4 * here
    losses = [departure(optimizer, q, np.array(kappas), memory)[1] for q in ratio]
    return size @ (np.array(losses) - 1) / len(at)
