"""Do the gradients of a run foretell how large its batch may be?

What is foreseen comes from the base run alone: from the noise of a batch over its
signal, and from its descent as it is and at κ times the batch.
"""

import jax
import numpy as np

import optsde
from experiments.batches.critical import (
    BASE,
    QUARTERS,
    UNSEEN,
    Outcome,
    Settings,
    crossing,
    losses,
    seen,
)
from optsde import measure
from optsde.analysis import Estimate, jackknife
from optsde.measure.difference import descent_speeds
from optsde.run import Series, Task
from optsde.study import Runs, refuse_divergence

FINE = 256  # parts of a stretch, for an integral


def measure_gradients(s: Settings, task: Task) -> dict[str, np.ndarray]:
    """Returns signal and noise of the base run, and its descent as it is and at each κ.

    Signal and noise are weighed as the optimizer steps.
    """
    plan, sampler, times = s.base_plan(), s.sampler(task), list(s.times)
    kappas = tuple(float(kappa) for kappa in s.kappas)
    probe = measure.noise_probe(plan, sampler, s.draws, times=times, kappas=kappas)
    result = optsde.fit(
        optsde.discrete(plan, sampler, task.init),
        s.keys(),
        s.times[-1],
        probes=[probe],
        progress=optsde.Progress("gradients"),
    )
    noise = result.metrics["noise"].values
    levels = noise.total(weighted=True)
    size = Series(np.array(s.times), np.asarray(levels.noise))
    refuse_divergence(size, "the base run", "try a smaller --config.optimizer.lr")
    base, slowed = (sum(jax.tree.leaves(part)) for part in noise.descent)
    found = dict(signal=levels.signal, noise=levels.noise, base=base, slowed=slowed)
    return {name: np.asarray(x, np.float64) for name, x in found.items()}


def noise_logs(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Returns log2 of N/G at each time, of the means over seeds."""
    return np.log2(noise.mean(0) / np.maximum(signal.mean(0), 1e-9 * noise.mean(0)))


def slope(s: Settings, outcome: Outcome) -> Estimate:
    """Returns the exponent in κ_crit ∝ (N/G)^slope, over the times where it is seen.

    It is NaN where those are fewer than three.
    """
    at = np.flatnonzero(seen(s, outcome.branches))
    every = [losses(s, outcome.branches, s.times[number]) for number in at]

    def fitted(signal, noise, *found):
        logs = [crossing(s, each) for each in found]
        return np.polyfit(noise_logs(signal, noise)[at], logs, 1)[0]

    levels = outcome.gradients["signal"], outcome.gradients["noise"]
    return jackknife(fitted, *levels, *every) if len(at) > 2 else UNSEEN


def foreseen(
    s: Settings, number: int, curve: np.ndarray, base: np.ndarray, slowed: np.ndarray
) -> float:
    """Returns log2 of the critical κ at a time, from the base run alone.

    At the switch v is divided by κ, its share r of signal too. It comes back as v
    remembers it, and so the speed at the age a is (1 + r (1 − e^(−a/memory)))^−½.

    Args:
      number: of the time.
      curve: losses of the base run in the stretch, [seeds, evaluations].
      base, slowed: its descent, as it is and at each κ, [seeds, times, …].
    """
    times = np.array(s.times)
    speeds = descent_speeds(
        s.base_plan(), times, s.kappas, base.mean(0), slowed.mean(0)
    )
    ages = s.stretch * np.arange(QUARTERS + 1) / QUARTERS
    late_ages = ages[ages > s.stretch / 2]
    fine = np.linspace(0, s.stretch, FINE + 1)
    back = 1 - np.exp(-fine / float(s.optimizer.preconditioner_memory()))
    slow = (1 + (speeds[number, :, None] ** -2 - 1) * back) ** -0.5
    gone = np.cumsum((slow[:, 1:] + slow[:, :-1]) / 2, axis=1) * s.stretch / FINE
    reached = [np.interp(late_ages, fine[1:], x) for x in gone]
    lagging = [np.interp(x, ages, curve.mean(0)) for x in reached]
    now = np.interp(late_ages, ages, curve.mean(0))
    return crossing(s, np.array([[x.mean() for x in (now, *lagging)]]))


def foreseen_at(s: Settings, outcome: Outcome, number: int) -> float:
    """Returns log2 of the critical κ that is foreseen at a time."""
    curve = stretch_of(s, outcome.branches, s.times[number])
    found = outcome.gradients
    return foreseen(s, number, curve, found["base"], found["slowed"])


def stretch_of(s: Settings, branches: Runs, time: float) -> np.ndarray:
    """Returns the losses of the base run in a stretch, [seeds, evaluations]."""
    times, values = branches[BASE].test_loss
    inside = (times >= time) & (times <= time + s.stretch)
    return values[:, inside]


def surprises(s: Settings, outcome: Outcome) -> list[Estimate]:
    """Returns log2 of the critical κ over the foreseen one, where it is seen.

    It is NaN where the foreseen one is above the largest that ran.
    """
    found = outcome.gradients
    parts = found["base"], found["slowed"]

    def surprise(number):
        time = s.times[number]
        curve = stretch_of(s, outcome.branches, time)
        if foreseen_at(s, outcome, number) >= np.log2(s.kappas[-1]):
            return UNSEEN

        def of(each, curve, *parts):
            return crossing(s, each) - foreseen(s, number, curve, *parts)

        return jackknife(of, losses(s, outcome.branches, time), curve, *parts)

    return [surprise(n) for n in np.flatnonzero(seen(s, outcome.branches))]
