"""Runs that branch into larger batches, and whole runs that follow the critical one.

The question and the settings are those of `critical`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.batches import stages
from experiments.batches.critical import (
    BASE,
    FOLLOWS,
    Outcome,
    Settings,
    branch,
    chosen,
    critical,
    fixed,
    gap,
    grown,
    growth,
    measured,
    seen,
)
from experiments.batches.foreseen import (
    foreseen_at,
    measure_gradients,
    noise_logs,
    slope,
    surprises,
)
from experiments.batches.stages import Way
from optsde.analysis import (
    Estimate,
    Verdict,
    above,
    agrees,
    all_agree,
    estimate,
    interval,
    percent_of_mean,
    plots,
    stack,
    table,
    with_interval,
    within,
)
from optsde.run import Task
from optsde.study import ArmRuns, RunDir, Runs, Study, build_task


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
    plots.plain_log_axis(middle, "x")
    middle.set_yscale("log")
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
    Settings.__module__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    answer=answer,
    figures={"critical": figure},
    task=build_task,
)
