"""Do whole runs end alike: plain, SVAG(ℓ), the batch times κ, and the SDE?

Li, Malladi and Arora (2021) and Malladi et al. (2022) compare runs to the end of their
schedule, by accuracy on held-out images and perplexity of held-out text. So here, in
those units and with their bounds; arms are paired by seed. The SDE is integrated where
its noise is known, that of independent examples as they lie in the data: not with
BatchNorm, whose examples interact, nor with masks or shifts that are drawn anew.
"""

from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

import optsde
from experiments.schedule import ScheduleSettings
from optsde.analysis import (
    Estimate,
    Verdict,
    agrees,
    all_agree,
    estimate,
    family,
    interval,
    paired,
    plus_minus,
    table,
    with_interval,
)
from optsde.analysis.plots import (
    band,
    colours,
    label,
    new_figure,
    points,
    save,
    shared_legend,
    spans,
)
from optsde.gradients import Sampler, minibatch
from optsde.run import Series, Task
from optsde.study import (
    Arm,
    ArmRuns,
    Integers,
    RunDir,
    Runs,
    Seeds,
    Study,
    refuse_divergence,
    require,
    setting,
    train,
)
from optsde.study.runs import stored
from optsde.study.tasks import TaskSettings, build_task

UNITS = {"accuracy": "points of accuracy", "perplexity": "of perplexity"}
BASE, SDE, COARSE = "discrete", "sde", "sde_coarse"
SUBSTEPS = {SDE: 2, COARSE: 1}  # in a step of the base run, on the same paths


class Settings(TaskSettings, Seeds):
    optimizer: optsde.Optimizer = setting(
        optsde.Adam(lr=2e-3, b1=0.9, b2=0.99), "of the base run"
    )
    batch_size: int = setting(8, "of the base run", at_least=1)
    horizon: float = setting(480.0, "length of the run, in base steps", above=0)
    schedule: ScheduleSettings = setting(ScheduleSettings(), "of lr, in base steps")
    group: int = setting(
        1, "examples in a pass, which share BatchNorm's statistics; 1: all", at_least=1
    )
    ells: Integers = setting((2, 4), "ℓ of each run of SVAG", above=1, distinct=True)
    kappas: Integers = setting(
        (4,),
        "batches, in base batches, by the scaling rule",
        above=1,
        entries=1,
        distinct=True,
    )
    sde_seeds: int = setting(
        8, "of the SDE, with the first of the seeds", zero="none", at_least=0
    )
    evaluations: int = setting(10, "evaluations of each run", at_least=1)
    judged: str = setting("accuracy", "by which runs are compared", one_of=UNITS)
    accuracy_bound: float = setting(
        3.0, "for equal accuracies", unit="points", above=0, at_most=100
    )
    perplexity_bound: float = setting(
        0.5, "for equal perplexities", above=0, at_most=100
    )
    seeds = 16

    @property
    def every(self) -> float:
        """Base steps from one evaluation to the next."""
        return self.horizon / self.evaluations

    @property
    def bound(self) -> float:
        """The bound in the unit by which runs are judged."""
        by_accuracy = self.judged == "accuracy"
        return self.accuracy_bound if by_accuracy else self.perplexity_bound

    def demands(self):
        yield from super().demands()
        yield from self.schedule.within(self.horizon)
        fine = self.group <= self.batch_size
        yield fine, "group", f"at most batch_size={self.batch_size}"
        fine = self.sde_seeds != 1 and self.sde_seeds <= self.seeds
        allowed = f"0, or from 2 to seeds={self.seeds}, with which its runs are paired"
        yield fine, "sde_seeds", allowed
        fine = self.augment == "none" or not self.sde_seeds
        yield fine, "sde_seeds", "0 where examples are augmented: that noise has no SDE"
        for arm in arms(self):
            steps = self.every / arm.plan.dt
            fine = abs(steps - round(steps)) < 1e-9 and round(steps) >= 1
            allowed = f"whole steps in horizon/evaluations = {self.every:g} base steps"
            yield fine, "kappas" if arm.plan.dt > 1 else "ells", allowed


def arms(s: Settings) -> Iterator[Arm]:
    """Yields the plain run, SVAG at each ℓ, and the rule at each κ."""
    base = optsde.Plan(
        optimizer=s.optimizer,
        batch_size=s.batch_size,
        horizon=s.horizon,
        schedule=s.schedule.build(),
    ).checked()
    yield Arm(BASE, base)
    for ell in sorted(s.ells):
        yield Arm(f"ell{ell}", optsde.svag(base, ell, memory="power"))
    for kappa in sorted(s.kappas):
        yield Arm(f"kappa{kappa}", optsde.scale(base, kappa, memory="power"))


def arm_label(s: Settings, name: str) -> str:
    """Returns the words for an arm in tables and legends."""
    if name.startswith("ell"):
        return f"SVAG ℓ = {name.removeprefix('ell')}"
    if name.startswith("kappa"):
        kappa = int(name.removeprefix("kappa"))
        return f"batch {kappa * s.batch_size} by the rule"
    words = {BASE: f"plain, batch {s.batch_size}", SDE: "Itô SDE"}
    return words.get(name, "Itô SDE, twice the step")


# ---- the runs


def simulate(s: Settings, rundir: RunDir, task: Task) -> Runs:
    """Returns test_loss and test_accuracy [seeds, times] of every arm."""
    sampler, keys = (
        sampler_of(s, task),
        jax.random.split(jax.random.key(s.seed), s.seeds),
    )
    probe = task.evaluation(times=s.every)
    runs = train(
        [*arms(s)], sampler, task.init, keys, keep=rundir.once_all, probes=[probe]
    )
    for name in SUBSTEPS if s.sde_seeds else ():
        runs |= integrate(s, rundir, task, name, keys[: s.sde_seeds])
    for name, run in runs.items():
        hint = "try a smaller --config.optimizer.lr"
        refuse_divergence(run.test_loss, arm_label(s, name), hint)
    return runs.derived(**{s.judged: MEASURES[s.judged]})


def sampler_of(s: Settings, task: Task) -> Sampler:
    """Returns batches of independent draws, in ghost groups where there are any."""
    alone = not task.examples_interact
    allowed = "the size of ghost groups, for BatchNorm's would else grow with the batch"
    require(alone or s.group > 1, "group", s.group, allowed)
    allowed = "0: BatchNorm makes examples interact, and the SDE's are independent"
    require(alone or not s.sde_seeds, "sde_seeds", s.sde_seeds, allowed)
    group = None if s.group == 1 else s.group
    return minibatch(task.losses, task.train, group=group, augment=task.augment)


def integrate(
    s: Settings, rundir: RunDir, task: Task, name: str, keys: jax.Array
) -> Runs:
    """Returns the runs of the SDE at one of its two steps, on one set of paths."""
    base = next(arms(s))
    options = dict(substeps=SUBSTEPS[name], parts=SUBSTEPS[SDE] // SUBSTEPS[name])

    def make():
        dynamics = optsde.sde(
            base.plan,
            task.law(s.batch_size),
            task.init,
            memory="power",
            **options,
        )
        progress = optsde.Progress(arm_label(s, name))
        probes = [task.evaluation(times=s.every)]
        found = optsde.fit(dynamics, keys, s.horizon, probes=probes, progress=progress)
        return stored(found.metrics)

    return Runs({name: ArmRuns.of_arrays(base, rundir.once(name, make))})


def accuracy(run: ArmRuns) -> Series:
    """Returns the held-out accuracy in percent."""
    times, share = run.test_accuracy
    return Series(times, 100 * share)


def perplexity(run: ArmRuns) -> Series:
    """Returns exp of the held-out loss of a token."""
    times, loss = run.test_loss
    return Series(times, np.exp(loss))


MEASURES = {"accuracy": accuracy, "perplexity": perplexity}


# ---- what is made of them


def apart(s: Settings, runs: Runs, name: str, other: str = BASE) -> Estimate:
    """Returns the difference of two arms at all evaluations, of seeds they share."""
    mine, theirs = runs[name][s.judged].values, runs[other][s.judged].values
    count = min(len(mine), len(theirs))
    return paired(mine[:count, 1:], theirs[:count, 1:])


def tables(s: Settings, runs: Runs) -> Iterator[str]:
    header = ["at the end", s.judged, "difference [95%]", "largest on the way"]
    rows = []
    for name, run in runs.items():
        cells = [plus_minus(estimate(run[s.judged].last), 2), "", ""]
        if name != BASE:
            gap = apart(s, runs, name)
            at = int(np.argmax(np.abs(gap.mean)))
            time = f" at t = {run[s.judged].times[1 + at]:g}"
            worst = with_interval(interval(gap.at(at)), 2, sign="+") + time
            cells[1:] = with_interval(interval(gap.at(-1)), 2, sign="+"), worst
        rows.append([arm_label(s, name), *cells])
    yield table(header, rows, "lrrr")


def claims(s: Settings, runs: Runs) -> Iterator[Verdict]:
    unit = UNITS[s.judged]
    others = [name for name in runs if name not in (BASE, COARSE)]
    gaps = {name: apart(s, runs, name) for name in others}
    yield from family(
        "ends",
        [agrees(f"{n}_ends_alike", x.at(-1), s.bound, unit) for n, x in gaps.items()],
    )
    yield from family(
        "ways",
        [
            all_agree(f"{n}_alike_throughout", x.each(), s.bound, unit)
            for n, x in gaps.items()
        ],
    )
    if SDE in runs:
        halving = apart(s, runs, COARSE, SDE).each()
        yield all_agree("sde_has_converged", halving, s.bound / 3, unit)
        for ell in sorted(s.ells)[-1:]:
            gap = apart(s, runs, f"ell{ell}", SDE).at(-1)
            yield agrees(f"ell{ell}_ends_as_sde", gap, s.bound, unit)


def figure(s: Settings, runs: Runs, path: Path) -> None:
    """Draws what runs are judged by over time, and its distance from the plain run."""
    drawing, (left, right) = new_figure(2, height=4.8)
    names = [name for name in runs if name != COARSE]
    colour = colours(names)
    shifts = 0.5 * s.every * np.linspace(-0.5, 0.5, len(names))
    for name, shift in zip(names, shifts, strict=True):
        style = dict(colour="black" if name == BASE else colour[name])
        times, values = runs[name][s.judged]
        text = arm_label(s, name)
        band(left, times[1:], estimate(values[:, 1:]), label=text, **style)
        if name != BASE:
            gap = apart(s, runs, name)
            points(right, times[1:] + shift, gap, ls="-", ms=3.5, lw=0.9, **style)
    spans(right, [(-s.bound, s.bound)], along="y")
    right.axhline(0, color="black", lw=1)
    unit = "%" if s.judged == "accuracy" else "of a token"
    clock = "time, in steps of the base run"
    label(left, x=clock, y=f"held-out {s.judged}, {unit}", title="bands 95%")
    shared_legend(drawing, left, columns=3)
    label(
        right,
        x=clock,
        y=f"difference, {UNITS[s.judged]}",
        title=f"from the plain run; grey: ±{s.bound:g}, bars 95%",
    )
    save(drawing, path)


def show_plans(s: Settings, task: Task | None = None) -> None:
    """Prints what SVAG and the rule make of the hyperparameters."""
    del task  # hyperparameters do not depend on it
    base, *others = arms(s)
    for arm in others:
        print(f"{arm_label(s, arm.name)}\n{optsde.explain(base.plan, arm.plan)}\n")


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"whole": figure},
    task=build_task,
    dry_run=show_plans,
)
