"""How large may the batch be at each time of a run, and does its noise foretell it?

At several times of one run it branches into κ times its batch, for a stretch of
samples, with hyperparameters and state rescaled by the rule. The critical κ of a time
is where the loss of a branch leaves that of the run by `bound`. Beside it stand N/G,
the noise of a batch over its signal, and what is foreseen from the gradients of the
run: a branch whose descent has the speed s is at time t + Δ where the run is at
t + s·Δ. Then other seeds train with the largest batches that were found fine, and
at fixed batches.
"""

from typing import NamedTuple

import numpy as np

import optsde
from experiments.batches import stages
from experiments.batches.stages import Stage
from optsde.analysis import Estimate, jackknife, percent_of_mean, stack
from optsde.plans.plan import has_signal_rule
from optsde.study import ArmRuns, Integers, Numbers, Runs, setting

BASE, FOLLOWS = "base", "follows"
UNSEEN = Estimate(np.array(np.nan), np.array(np.nan), 1)
QUARTERS = 4  # evaluations of a stretch, of which the second half count


class Settings(stages.Settings):
    times: Numbers = setting(
        (256.0, 512.0, 1024.0, 2048.0, 3072.0),
        "of the branches, in base steps",
        above=0,
        entries=2,
        rising=True,
    )
    stretch: float = setting(256.0, "length of a branch, in base steps", above=0)
    kappas: Integers = setting(
        (2, 4, 8, 16, 32), "of the branches", above=1, entries=1, rising=True
    )
    fixed: Integers = setting(
        (1, 2, 4, 8), "κ of whole runs to compare with", at_least=1, rising=True
    )
    draws: int = setting(
        64, "gradients of one measurement of the noise", at_least=32, multiple_of=16
    )
    bound: float = setting(
        3.0, "for a branch that is fine", unit="% of loss", above=0, at_most=100
    )
    last_bound: float = setting(
        5.0, "for the same last loss", unit="% of loss", above=0, at_most=100
    )
    horizon = 4096.0
    seeds = 48

    def demands(self):
        yield from super().demands()
        fine = has_signal_rule(self.optimizer)
        yield fine, "optimizer.name", "one that averages g², such as Adam"
        yield self.seeds >= 3, "seeds", "at least 3, for intervals"
        fine = 1 in self.fixed
        yield fine, "fixed", "1 among them, the base run"
        begins = np.array(self.times)
        fine = bool(np.all(begins[:-1] + self.stretch <= begins[1:]))
        yield fine, "stretch", "no more than from one time to the next"
        fine = begins[-1] + self.stretch <= self.horizon
        yield fine, "horizon", "the last stretch and more"
        for kappa in (*self.kappas, *self.fixed):
            name = "kappas" if kappa in self.kappas else "fixed"
            part = self.stretch / QUARTERS / kappa
            fine = abs(part - round(part)) < 1e-9 and part >= 1
            allowed = f"whole steps in a quarter of the stretch, {self.stretch / 4:g}"
            yield fine, name, allowed
        most = max(*self.kappas, *self.fixed)
        for name, ends in (("times", self.times), ("horizon", (self.horizon,))):
            fine = all(abs(end / most - round(end / most)) < 1e-9 for end in ends)
            yield fine, name, f"multiples of the largest κ, {most}"
        try:
            for kappa in (*self.kappas, *self.fixed):
                grown(self, kappa)
        except ValueError as error:
            yield False, "kappas", str(error)


class Outcome(NamedTuple):
    branches: Runs  # the base run, and each branch
    gradients: dict[str, np.ndarray]  # of the base run, [seeds, times, …]
    kappas: tuple[int, ...]  # that the schedule has from each time on
    runs: Runs  # of the schedule and of fixed batches, other seeds


def grown(s: Settings, kappa: int) -> Stage:
    """Returns the stage at κ times the base batch."""
    return Stage(optsde.scale(s.base_plan(), kappa, memory=s.memory))


def branch(time: float, kappa: int) -> str:
    """Returns the name of the branch at a time into κ times the batch."""
    return f"t{time:g}_kappa{kappa}"


def fixed(kappa: int) -> str:
    """Returns the name of the whole run at κ times the batch."""
    return f"fixed_kappa{kappa}"


def measured(s: Settings, time: float) -> np.ndarray:
    """Returns when the loss of a stretch is evaluated."""
    return time + s.stretch * np.arange(QUARTERS + 1) / QUARTERS


# ---- the critical κ


def late(s: Settings, run: ArmRuns, time: float) -> np.ndarray:
    """Returns each seed's mean loss over the second half of a stretch."""
    return run.test_loss.between(time + 0.51 * s.stretch, time + s.stretch)


def gap(s: Settings, branches: Runs, time: float, kappa: int) -> Estimate:
    """Returns a branch's loss less that of the base run, in %."""
    mine = late(s, branches[branch(time, kappa)], time)
    return percent_of_mean(mine, late(s, branches[BASE], time))


def losses(s: Settings, branches: Runs, time: float) -> np.ndarray:
    """Returns the late losses of the base run and of each κ, [seeds, 1 + kappas]."""
    names = [BASE, *(branch(time, kappa) for kappa in s.kappas)]
    return np.stack([late(s, branches[name], time) for name in names], axis=1)


def crossing(s: Settings, found: np.ndarray) -> float:
    """Returns log2 of the κ at which the mean loss leaves that of κ = 1 by `bound`.

    Between the κ that ran it is interpolated in log κ. Where none of them leaves it, it
    is the largest, and the critical κ is not seen.
    """
    mean = found.mean(0)
    off = 100 * np.abs(mean / mean[0] - 1)
    places = np.log2([1, *s.kappas])
    above = np.flatnonzero(off > s.bound)
    if not len(above):
        return float(places[-1])
    n = int(above[0])
    share = (s.bound - off[n - 1]) / (off[n] - off[n - 1])
    return float(places[n - 1] + share * (places[n] - places[n - 1]))


def critical(s: Settings, branches: Runs) -> Estimate:
    """Returns log2 of the critical κ at each time."""
    each = [losses(s, branches, time) for time in s.times]
    return stack([jackknife(lambda x: crossing(s, x), x) for x in each])


def seen(s: Settings, branches: Runs) -> np.ndarray:
    """Tells for each time whether the critical κ is below the largest that ran."""
    return critical(s, branches).mean < np.log2(s.kappas[-1])


def chosen(s: Settings, branches: Runs) -> tuple[int, ...]:
    """Returns the largest κ at each time that is not above the critical one."""
    logs = critical(s, branches).mean
    return tuple(max(k for k in (1, *s.kappas) if np.log2(k) <= x) for x in logs)


def growth(s: Settings, branches: Runs) -> Estimate:
    """Returns by how many doublings the critical κ grows, from first to last time.

    It is NaN where the first is not seen; at least that, where the last is not.
    """
    if not seen(s, branches)[0]:
        return UNSEEN
    ends = (losses(s, branches, time) for time in (s.times[0], s.times[-1]))
    return jackknife(lambda a, b: crossing(s, b) - crossing(s, a), *ends)
