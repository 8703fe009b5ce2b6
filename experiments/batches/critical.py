"""How large may the batch be at each time of a run, and does its noise foretell it?

At several times of one run it branches into κ times its batch, for a stretch of
samples, with hyperparameters and state rescaled by the rule. The critical κ of a time
is where the loss of a branch leaves that of the run by `bound`. Beside it stand N/G,
the noise of a batch over its signal, and what is foreseen from the gradients of the
run: a branch whose descent has the speed s is at time t + Δ where the run is at
t + s·Δ. Then other seeds train with the largest batches that were found fine, and
at fixed batches.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import optsde
from experiments.batches import stages
from experiments.batches.stages import Stage, Way
from optsde import measure
from optsde.analysis import (
    Estimate,
    Verdict,
    above,
    agrees,
    all_agree,
    estimate,
    interval,
    jackknife,
    percent_of_mean,
    plots,
    stack,
    table,
    with_interval,
    within,
)
from optsde.measure.difference import descent_speeds
from optsde.plans.plan import has_signal_rule
from optsde.run import Series, Task
from optsde.study import (
    ArmRuns,
    Integers,
    Numbers,
    RunDir,
    Runs,
    Study,
    build_task,
    refuse_divergence,
    setting,
)

BASE, FOLLOWS = "base", "follows"
UNSEEN = Estimate(np.array(np.nan), np.array(np.nan), 1)
FINE = 256  # parts of a stretch, for an integral
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


def simulate(s: Settings, rundir: RunDir, task: Task) -> Outcome:
    """Returns the branches, the noise, and the runs of the schedule made of them."""
    sampler, keys = s.sampler(task), s.keys()
    base, ends = grown(s, 1), []
    ways: dict[str, Way] = {}
    for time in s.times:
        ends += [time, time + s.stretch] if time not in ends else [time + s.stretch]
        before = (base,) * (len(ends) - 1)
        ways |= {branch(time, k): (*before, grown(s, k)) for k in s.kappas}
    ways = {BASE: (base,) * len(ends)} | ways
    times = sorted({t for time in s.times for t in measured(s, time).tolist()})
    branches = kept(rundir, ways, ends, times, sampler, task, keys)
    gradients = rundir.once("gradients", lambda: measure_gradients(s, task))

    kappas = chosen(s, branches)
    stages_of = (base, *(grown(s, k) for k in kappas))
    ends, times = [*s.times, s.horizon], [*s.times, s.horizon]
    ways = {FOLLOWS: stages_of}
    ways |= {fixed(k): (grown(s, k),) * len(ends) for k in s.fixed}
    others = jax.random.split(jax.random.fold_in(jax.random.key(s.seed), 1), s.seeds)
    runs = kept(rundir, ways, ends, times, sampler, task, others)
    return Outcome(branches, gradients, kappas, runs)


def kept(rundir: RunDir, ways: dict[str, Way], *how: Any) -> Runs:
    """Returns the runs of ways, which are made once."""
    arrays = rundir.once_all(list(ways), lambda: stages.train(ways, *how))
    return Runs({name: ArmRuns.of_arrays(name, arrays[name]) for name in ways})


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


def noise_logs(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Returns log2 of N/G at each time, of the means over seeds."""
    return np.log2(noise.mean(0) / np.maximum(signal.mean(0), 1e-9 * noise.mean(0)))


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


def stretch_of(s: Settings, branches: Runs, time: float) -> np.ndarray:
    """Returns the losses of the base run in a stretch, [seeds, evaluations]."""
    times, values = branches[BASE].test_loss
    inside = (times >= time) & (times <= time + s.stretch)
    return values[:, inside]


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


def growth(s: Settings, branches: Runs) -> Estimate:
    """Returns by how many doublings the critical κ grows, from first to last time.

    It is NaN where the first is not seen; at least that, where the last is not.
    """
    if not seen(s, branches)[0]:
        return UNSEEN
    ends = (losses(s, branches, time) for time in (s.times[0], s.times[-1]))
    return jackknife(lambda a, b: crossing(s, b) - crossing(s, a), *ends)


# ---- what is made of the runs


def last(outcome: Outcome, name: str) -> Estimate:
    """Returns the last loss of a whole run less that of the base batch, in %."""
    runs = outcome.runs
    return percent_of_mean(runs[name].test_loss.last, runs[fixed(1)].test_loss.last)


def steps(s: Settings, outcome: Outcome, name: str) -> int:
    """Returns how many steps a whole run takes, one after the other."""
    ends = np.diff([0.0, *s.times, s.horizon])
    if name == FOLLOWS:
        return round(float(np.sum(ends / (1, *outcome.kappas))))
    return round(s.horizon / int(name.removeprefix("fixed_kappa")))


def beside(s: Settings, outcome: Outcome) -> int:
    """Returns the largest fixed κ with at least as many steps as the schedule."""
    most = steps(s, outcome, FOLLOWS)
    return max(k for k in s.fixed if steps(s, outcome, fixed(k)) >= most)


def tables(s: Settings, outcome: Outcome) -> Iterator[str]:
    logs, found = critical(s, outcome.branches), outcome.gradients
    ratios, rows = noise_logs(found["signal"], found["noise"]), []
    for number, time in enumerate(s.times):
        gaps = [interval(gap(s, outcome.branches, time, k)) for k in s.kappas]
        here = [2.0**x for x in interval(logs.at(number))]
        cells = [f"{here[0]:.3g} [{here[1]:.3g}, {here[2]:.3g}]"]
        if not seen(s, outcome.branches)[number]:
            cells = [f"above {s.kappas[-1]}"]
        cells.append(foreseen_words(s, outcome, number))
        cells += [f"{2.0 ** ratios[number]:.3g}", f"{outcome.kappas[number]}"]
        cells += [with_interval(x, 1, sign="+") for x in gaps]
        rows.append([f"{time:g}", *cells])
    header = ["t", "critical κ", "foreseen", "N/G", "κ from then on"]
    header += [f"κ = {k}: loss, % from base" for k in s.kappas]
    yield table(header, rows, "r" * len(header))
    rows = []
    for name in outcome.runs:
        found = interval(last(outcome, name))
        cell = "" if name == fixed(1) else with_interval(found, 2, sign="+")
        rows.append([name, f"{steps(s, outcome, name)}", cell])
    yield table(["other seeds", "steps", "last loss, % from base"], rows, "lrr")


def foreseen_at(s: Settings, outcome: Outcome, number: int) -> float:
    """Returns log2 of the critical κ that is foreseen at a time."""
    curve = stretch_of(s, outcome.branches, s.times[number])
    found = outcome.gradients
    return foreseen(s, number, curve, found["base"], found["slowed"])


def foreseen_words(s: Settings, outcome: Outcome, number: int) -> str:
    log = foreseen_at(s, outcome, number)
    unseen = log >= np.log2(s.kappas[-1])
    return f"above {s.kappas[-1]}" if unseen else f"{2.0**log:.3g}"


def claims(s: Settings, outcome: Outcome) -> Iterator[Verdict]:
    doublings = growth(s, outcome.branches)
    yield above("critical_batch_grows", doublings, 0.0, "doublings, first to last time")
    power = interval(slope(s, outcome))
    words = "power of N/G, 1 expected"
    yield within("critical_batch_follows_noise", power, 0.5, 1.5, words)
    if each := surprises(s, outcome):
        words = "doublings of κ, seen less foreseen"
        yield all_agree("critical_batch_is_foreseen", each, 1.0, words)
    found, unit = last(outcome, FOLLOWS), "% of loss"
    yield agrees("schedule_keeps_the_loss", found, s.last_bound, unit)
    name, runs = fixed(beside(s, outcome)), outcome.runs
    worse = percent_of_mean(runs[name].test_loss.last, runs[FOLLOWS].test_loss.last)
    yield above("fixed_batch_ends_higher", worse, 0.0, unit)


def answer(s: Settings, outcome: Outcome, verdicts: list[Verdict]) -> str:
    """Returns what the schedule saves, and what it changes."""
    del verdicts
    most, fewer = (steps(s, outcome, name) for name in (fixed(1), FOLLOWS))
    loss = with_interval(interval(last(outcome, FOLLOWS)), 2, sign="+")
    kappas = ", ".join(f"{k}" for k in outcome.kappas)
    other = beside(s, outcome)
    return (
        f"κ = {kappas} from the times on: {most} steps one after the other become "
        f"{fewer}, and the last loss differs by {loss}%; a fixed κ = {other} takes "
        f"{steps(s, outcome, fixed(other))}"
    )


def figure(s: Settings, outcome: Outcome, path: Path) -> None:
    """Draws κ and noise along the run, and the loss of whole runs by their steps."""
    canvas, (left, middle, right) = plots.new_figure(3, width=14, height=4.6)
    colours = plots.colours(s.times)
    for time in s.times:
        gaps = stack([gap(s, outcome.branches, time, k) for k in s.kappas])
        style = dict(colour=colours[time], ls="-", ms=4, label=f"t = {time:g}")
        plots.points(left, s.kappas, gaps, **style)
    plots.spans(left, [(-s.bound, s.bound)], along="y")
    left.set_xscale("log", base=2)
    left.set_xticks(s.kappas, [f"{k}" for k in s.kappas])
    plots.plain_symlog_axis(left, linear=2 * s.bound)
    y = "held-out loss of a branch, % from base"
    title = f"grey: ±{s.bound:g}%, bars 95%"
    plots.label(left, x="κ of the branch", y=y, title=title, legend="upper left")

    logs, times = critical(s, outcome.branches), np.array(s.times)
    half = plots.half_width(logs)
    ends = 2.0 ** np.stack([logs.mean - half, logs.mean, logs.mean + half])
    bars = np.abs(ends[[0, 2]] - ends[1])
    look = dict(color=plots.COLOURS[0], capsize=3, marker="o", label="critical κ")
    middle.errorbar(times, ends[1], bars, **look)
    guesses = [2.0 ** foreseen_at(s, outcome, n) for n in range(len(times))]
    middle.plot(times, guesses, "^--", color=plots.COLOURS[1], label="foreseen")
    ratios = 2.0 ** noise_logs(outcome.gradients["signal"], outcome.gradients["noise"])
    middle.plot(times, ratios, "s--", color=plots.COLOURS[5], label="N/G, measured")
    middle.step(
        [*times, s.horizon],
        [*outcome.kappas, outcome.kappas[-1]],
        where="post",
        color="0.5",
        ls=":",
        label="κ of the schedule",
    )
    for which in ("x", "y"):
        plots.plain_log_axis(middle, which)
    middle.set_xticks(times, [f"{t:g}" for t in times])
    title = f"highest κ tried: {s.kappas[-1]}"
    x, y = "time, in base steps", "κ"
    plots.label(middle, x=x, y=y, title=title, legend="upper left")
    middle.set_ylim(top=100 * max(*ratios, *ends[2]))

    names = [fixed(k) for k in s.fixed]
    at = [steps(s, outcome, name) for name in names]
    y = stack([estimate(outcome.runs[name].test_loss.last) for name in names])
    style = dict(colour=plots.COLOURS[0], ls="-", label="fixed batches")
    plots.points(right, at, y, **style)
    here = estimate(outcome.runs[FOLLOWS].test_loss.last)
    style = dict(colour=plots.COLOURS[5], marker="D", label="follows the critical κ")
    plots.points(right, [steps(s, outcome, FOLLOWS)], stack([here]), **style)
    plots.plain_log_axis(right, "x")
    x = "steps, one after the other"
    plots.label(right, x=x, y="last held-out loss", title="other seeds", legend="best")
    plots.save(canvas, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    answer=answer,
    figures={"critical": figure},
    task=build_task,
)
