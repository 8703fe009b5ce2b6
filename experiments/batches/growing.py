"""May the batch grow where the learning rate would fall?

At each drop of lr in the base run another keeps lr and multiplies its batch: by 2 where
lr of SGD halves (Smith et al. 2018), by 4 where that of Adam does. Memories and state
follow by the rule of the optimizer, so that both are one SDE. Beside them are runs that
grow by another factor, that leave β or v as they were, and whose lr and batch stay.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import optsde
from experiments.batches import stages
from experiments.batches.stages import Stage, Way
from optsde.analysis import (
    Estimate,
    Verdict,
    above,
    agrees,
    estimate,
    family,
    interval,
    jackknife,
    percent_of_mean,
    plots,
    plus_minus,
    table,
    with_interval,
)
from optsde.run import Task
from optsde.study import (
    ArmRuns,
    Integers,
    Numbers,
    RunDir,
    Runs,
    Study,
    build_task,
    setting,
)

FALLS, GROWS, STAYS = "lr falls", "batch grows", "neither"
BETAS, STATE = "batch grows, β alone", "batch grows, v alone"


class Settings(stages.Settings):
    drops: Numbers = setting(
        (1280.0, 2560.0, 3840.0),
        "times of the drops, in base steps",
        above=0,
        entries=1,
        rising=True,
    )
    growth: int = setting(4, "of the batch, in place of a drop", above=1)
    others: Integers = setting(
        (2,), "factors that should not do", above=1, distinct=True
    )
    evaluations: int = setting(20, "of each run", at_least=2)
    bound: float = setting(
        5.0, "for 'the same loss'", unit="% of loss", above=0, at_most=100
    )
    seeds = 96

    def demands(self):
        yield from super().demands()
        fine = self.growth not in self.others
        yield fine, "others", f"factors other than growth={self.growth}"
        fine = factor(self, self.growth) < 1
        allowed = "an optimizer whose lr follows the batch"
        yield fine, "optimizer.name", allowed
        yield self.warmup < self.drops[0], "warmup", "less than the first drop"
        for drop in self.drops:
            fine = drop < self.horizon and _divides(self.every, drop)
            allowed = f"times of evaluations, each {self.every:g}, before the horizon"
            yield fine, "drops", allowed
        for name, factors in (("growth", (self.growth,)), ("others", self.others)):
            for each in factors:
                fine = _divides(each ** len(self.drops), self.every)
                allowed = f"whole steps in horizon/evaluations = {self.every:g}"
                yield fine, name, allowed
        try:
            ways(self)
        except ValueError as error:
            yield False, "growth", str(error)

    @property
    def every(self) -> float:
        """Base steps from one evaluation to the next."""
        return self.horizon / self.evaluations

    @property
    def ends(self) -> tuple[float, ...]:
        """When each stage ends."""
        return *self.drops, self.horizon


def _divides(part: float, whole: float) -> bool:
    count = whole / part
    return abs(count - round(count)) < 1e-9 and round(count) >= 1


def factor(s: Settings, growth: int) -> float:
    """Returns by what lr falls where the batch grows by `growth` in its place."""
    return float(s.optimizer.lr / s.optimizer.rescaled(growth, "power").lr)


def ways(s: Settings) -> dict[str, Way]:
    """Returns the stages of every arm, by its name."""
    base, numbers = s.base_plan(), range(len(s.ends))

    def falling(number: int, growth: int) -> optsde.Plan:
        optimizer = base.optimizer.times_lr(factor(s, growth) ** number)
        return dataclasses.replace(base, optimizer=optimizer)

    def grown(number: int, growth: int) -> optsde.Plan:
        plan = falling(number, growth)
        return optsde.scale(plan, growth**number, memory=s.memory)

    def keeps_betas(number: int) -> optsde.Plan:
        plan = grown(number, s.growth)
        old = {name: getattr(s.optimizer, name) for name in s.optimizer.decays()}
        optimizer = dataclasses.replace(plan.optimizer, **old)
        return dataclasses.replace(plan, optimizer=optimizer)

    arms = {
        FALLS: [Stage(falling(n, s.growth)) for n in numbers],
        GROWS: [Stage(grown(n, s.growth)) for n in numbers],
        STAYS: [Stage(base) for _ in numbers],
    }
    for other in s.others:
        arms[by_other(other)] = [Stage(grown(n, other)) for n in numbers]
    if s.optimizer.decays():
        arms[BETAS] = [Stage(keeps_betas(n)) for n in numbers]
    if s.optimizer.state_rule:
        later = [Stage(grown(n, s.growth), switches=False) for n in numbers[1:]]
        arms[STATE] = [Stage(base), *later]
    return {name: (Stage(base), *way[1:]) for name, way in arms.items()}


def by_other(growth: int) -> str:
    """Returns the name of the arm whose batch grows by another factor."""
    return f"batch grows, by {growth}"


def simulate(s: Settings, rundir: RunDir, task: Task) -> Runs:
    """Returns the runs of all arms, which are one until the first drop."""
    of_arms = ways(s)
    times = (s.every * np.arange(s.evaluations + 1)).tolist()

    def make():
        sampler = s.sampler(task)
        return stages.train(of_arms, s.ends, times, sampler, task, s.keys())

    arrays = rundir.once_all(list(of_arms), make)
    return Runs({n: ArmRuns.of_arrays(n, arrays[n]) for n in of_arms})


# ---- an arm beside the run whose lr falls


def late(s: Settings, run: ArmRuns, number: int) -> np.ndarray:
    """Returns each seed's mean over the second half of a stage."""
    begin, end = (0.0, *s.ends)[number], s.ends[number]
    return run.test_loss.between((begin + end) / 2 + 1e-6 * end, end)


def difference(s: Settings, runs: Runs, name: str, number: int) -> Estimate:
    """Returns an arm's loss in a stage less that of falling lr, in %."""
    return percent_of_mean(late(s, runs[name], number), late(s, runs[FALLS], number))


def distance_gain(s: Settings, runs: Runs, name: str) -> Estimate:
    """Returns how much further an arm's curve lies from that of falling lr, in %.

    Further than the curve of the batch that grows by the rule, after the first drop;
    the distance of two curves is the mean of |difference|.
    """

    def gain(arm, grows, falls):
        far, near = (np.abs((x - falls).mean(0)).mean() for x in (arm, grows))
        return 100 * (far - near) / falls.mean()

    after = runs[FALLS].test_loss.times > s.drops[0]
    names = name, GROWS, FALLS
    return jackknife(gain, *(runs[n].test_loss.values[:, after] for n in names))


# ---- what is made of the runs


def tables(s: Settings, runs: Runs) -> Iterator[str]:
    rows, last = [], len(s.drops)
    for name, way in ways(s).items():
        plan, taken = way[-1].plan, stages.steps(way, s.ends)
        cells = [f"{plan.optimizer.lr:.3g}", f"{plan.batch_size}", f"{taken}"]
        for number in range(1, last + 1):
            if name == FALLS:
                cells.append(plus_minus(estimate(late(s, runs[name], number)), 4))
            else:
                gap = interval(difference(s, runs, name, number))
                cells.append(with_interval(gap, 2, sign="+"))
        rows.append([name, *cells])
    header = ["", "last lr", "last batch", "steps"]
    header += [f"loss after drop {n}, then % from it" for n in range(1, last + 1)]
    yield table(header, rows, "l" + "r" * (3 + last))


def claims(s: Settings, runs: Runs) -> Iterator[Verdict]:
    last = len(s.drops)
    gap = difference(s, runs, STAYS, last)
    yield above("drops_lower_the_loss", gap, s.bound, "% of loss")
    for number in range(1, last + 1):
        gap = difference(s, runs, GROWS, number)
        yield agrees(f"same_after_drop_{number}", gap, s.bound, "% of loss")
    controls = [n for n in runs if n not in (FALLS, GROWS, STAYS)]
    names = {BETAS: "betas_alone", STATE: "v_alone"}
    names |= {by_other(each): f"growth_by_{each}" for each in s.others}
    gains = {names[n]: distance_gain(s, runs, n) for n in controls}
    each = [above(f"nearer_than_{n}", x, 0.0, "% of loss") for n, x in gains.items()]
    yield from family("nearer", each)


def answer(s: Settings, runs: Runs, verdicts: list[Verdict]) -> str:
    """Returns what growing saves, and what it changes."""
    of_arms = ways(s)
    before, after = (stages.steps(of_arms[n], s.ends) for n in (FALLS, GROWS))
    gap = with_interval(interval(difference(s, runs, GROWS, len(s.drops))), 2, sign="+")
    factors = f"lr × {factor(s, s.growth):.3g} at each drop, or batch × {s.growth}"
    samples = round(s.horizon * s.batch_size)
    return (
        f"{factors}: {before} steps one after the other become {after}, "
        f"{100 * (1 - after / before):.0f}% fewer, on the same {samples} samples; "
        f"the last loss differs by {gap}%"
    )


def figure(s: Settings, runs: Runs, path: Path) -> None:
    """Draws the loss by samples seen, of all arms, and by steps, of the two."""
    canvas, (left, right) = plots.new_figure(2, width=11, height=5.0)
    colour = plots.colours(runs)
    for name, run in runs.items():
        times, losses = run.test_loss
        style: dict[str, Any] = dict(lw=2.2 if name in (FALLS, GROWS) else 1.4)
        style |= dict(ls="--") if name == GROWS else {}
        seen = s.batch_size * times[1:]
        style |= dict(label=name, colour=colour[name])
        plots.band(left, seen, estimate(losses[:, 1:]), **style)
    for name in (FALLS, GROWS):
        times, losses = runs[name].test_loss
        done = clock(ways(s)[name], s.ends, times[1:])
        style = dict(colour=colour[name], marker="o", ms=3)
        plots.band(right, done, estimate(losses[:, 1:]), **style)
    for drop in s.drops:
        left.axvline(s.batch_size * drop, color="0.6", lw=1, ls=":", zorder=0)
    for ax in (left, right):
        plots.plain_log_axis(ax)
    right.set_ylim(left.get_ylim())
    title = "dotted: drops; bands 95%"
    plots.label(left, x="samples seen", y="held-out loss", title=title)
    title = "the same, by sequential time"
    plots.label(right, x="steps, one after the other", y="held-out loss", title=title)
    plots.shared_legend(canvas, left, columns=3)
    plots.save(canvas, path)


def clock(way: Way, ends: tuple[float, ...], times: np.ndarray) -> np.ndarray:
    """Returns how many steps a way has taken by given times, in base steps."""
    edges = np.array([0.0, *ends])
    each = np.diff(edges) / [stage.plan.dt for stage in way]
    return np.interp(times, edges, np.concatenate([[0.0], np.cumsum(each)]))


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    answer=answer,
    figures={"growing": figure},
    task=build_task,
)
