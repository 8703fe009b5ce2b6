"""Does each optimizer's own rule keep its learning curve, where another lr does not?

One base run of each family, and at κ times its batch the family's rule as it stands,
and the rule but for lr, which is multiplied by √κ or by κ. All have the same seeds and
the same clock of samples. Where one of the two factors is the rule's own, that arm is
the rule. A family that is to be evaluated at an average of its weights is.
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import optsde
from experiments.scaling import groups
from experiments.scaling.rule import by_rule
from experiments.scaling.verification import distance_gain
from experiments.schedule import ScheduleSettings
from optsde.analysis import (
    Estimate,
    Verdict,
    above,
    agrees,
    estimate,
    family,
    interval,
    percent_of_mean,
    plots,
    plus_minus,
    table,
    with_interval,
)
from optsde.optimizers import Optimizer
from optsde.run import Series, Task
from optsde.study import (
    Arm,
    ArmRuns,
    Names,
    RunDir,
    Runs,
    Study,
    build_task,
    refuse_divergence,
    setting,
    train,
)

RULE = "rule"
CONTROLS = {"rule_but_lr_root": "root", "rule_but_lr_linear": "linear"}
WORDS = {
    RULE: "the rule",
    "rule_but_lr_root": "but lr·√κ",
    "rule_but_lr_linear": "but lr·κ",
}


class Settings(groups.Compared):
    optimizers: dict[str, Optimizer] = setting(
        {"adam": optsde.Adam(lr=2e-3, b1=0.99, b2=0.995)}, "of the base runs, by name"
    )
    families: Names = setting((), "names among them, which run", zero="all")
    schedule: ScheduleSettings = setting(ScheduleSettings(), "of lr, in base steps")
    batch_size = 4
    horizon = 2048.0
    kappas = (4, 16)
    evaluations = 16

    @property
    def chosen(self) -> tuple[str, ...]:
        """The names of the optimizers that run."""
        return self.families or tuple(self.optimizers)

    def base_plan(self, name: str) -> optsde.Plan:
        """Returns the plan of the base run of an optimizer, with its own average."""
        optimizer = self.optimizers[name]
        return optsde.Plan(
            optimizer=optimizer,
            batch_size=self.batch_size,
            horizon=self.horizon,
            schedule=self.schedule.build(),
            average=optimizer.average(),
        ).checked()

    def demands(self):
        yield from super().demands()
        yield from self.schedule.within(self.horizon)
        fine = set(self.chosen) <= self.optimizers.keys() and len(self.chosen) > 0
        yield fine, "families", f"names among {', '.join(self.optimizers)}"
        fine = len(set(self.chosen)) == len(self.chosen)
        yield fine, "families", "each once"
        for arm in (arm for name in self.chosen for arm in arms(self, name)):
            steps = self.every / arm.plan.dt
            fine = abs(steps - round(steps)) < 1e-9 and round(steps) >= 1
            allowed = f"whole steps in horizon/evaluations = {self.every:g} base steps"
            yield fine, "kappas", allowed


def named(name: str, kappa: int = 1, rule: str = RULE) -> str:
    """Returns the name of an arm; at κ = 1 all rules are one."""
    return f"{name}/{kappa}" if kappa == 1 else f"{name}/{kappa}/{rule}"


def arms(s: Settings, name: str) -> Iterator[Arm]:
    """Yields the base run of an optimizer, and at each κ the rule and others of lr."""
    base = s.base_plan(name)
    yield Arm(named(name), base)
    for kappa in sorted(s.kappas):
        own = by_rule(base, kappa, RULE, "power")
        yield Arm(named(name, kappa), own)
        for control in CONTROLS:
            plan = by_rule(base, kappa, control, "power")
            if not math.isclose(lr_of(plan), lr_of(own), rel_tol=1e-6):
                yield Arm(named(name, kappa, control), plan)


def lr_of(plan: optsde.Plan) -> float:
    """Returns the learning rate of a plan."""
    return float(plan.optimizer.single().lr)


def power(s: Settings, name: str) -> float:
    """Returns p where the rule multiplies lr by κ^p, at the largest κ."""
    kappa, base = max(s.kappas), s.base_plan(name)
    rule = by_rule(base, kappa, RULE, "power")
    return math.log(lr_of(rule) / lr_of(base), kappa)


def power_words(p: float) -> str:
    """Returns what the rule makes of lr, in words.

    >>> [power_words(p) for p in (0, 0.5, 1, 0.87)]
    ['lr', 'lr·√κ', 'lr·κ', 'lr·κ^0.87']
    """
    for exact, words in ((0, "lr"), (0.5, "lr·√κ"), (1, "lr·κ")):
        if math.isclose(p, exact, abs_tol=1e-6):
            return words
    return f"lr·κ^{p:.2g}"


def simulate(s: Settings, rundir: RunDir, task: Task) -> Runs:
    """Returns the runs of all arms, with the loss by which each is judged."""

    def probes(arm):
        return [task.evaluation(arm.plan.average, times=s.every)]

    runs = train(
        [arm for name in s.chosen for arm in arms(s, name)],
        groups.sampler(s, task),
        task.init,
        s.keys(),
        keep=rundir.once_all,
        probes=probes,
        stop_at_divergence=False,
    ).derived(loss=judged)
    for name in s.chosen:
        hint = f"try a smaller --config.optimizers.{name}.lr"
        refuse_divergence(runs[named(name)].loss, named(name), hint)
    return runs


def judged(run: ArmRuns) -> Series:
    """Returns the held-out losses, of the average where an optimizer has its own."""
    return run.metrics.get("average_test_loss", run.test_loss)


# ---- what is made of them


def others(runs: Runs, name: str, kappa: int) -> list[str]:
    """Returns the controls at κ that are not the rule."""
    return [control for control in CONTROLS if named(name, kappa, control) in runs]


def off(s: Settings, runs: Runs, name: str, kappa: int, rule: str = RULE) -> Estimate:
    """Returns by how many % an arm's late loss differs from the base run's."""
    both = (runs[x].loss for x in (named(name, kappa, rule), named(name)))
    return percent_of_mean(*(loss.between(s.horizon / 2) for loss in both))


def finite(runs: Runs, name: str, kappa: int, rule: str = RULE) -> bool:
    """Tells whether no seed of an arm has diverged."""
    return bool(np.isfinite(runs[named(name, kappa, rule)].loss.values).all())


def tables(s: Settings, runs: Runs) -> Iterator[str]:
    def cell(name, kappa, rule):
        if named(name, kappa, rule) not in runs:
            return "the rule"
        if not finite(runs, name, kappa, rule):
            return "diverged"
        return with_interval(interval(off(s, runs, name, kappa, rule)), 1, sign="+")

    rows = []
    for name in s.chosen:
        loss = runs[named(name)].loss.between(s.horizon / 2)
        first = [name, power_words(power(s, name)), plus_minus(estimate(loss), 4)]
        for kappa in sorted(s.kappas):
            rows.append([*first, f"{kappa}", *(cell(name, kappa, x) for x in WORDS)])
            first = [""] * len(first)
    header = ["late loss, % from base", "rule", "base", "κ", *WORDS.values()]
    yield table(header, rows, "llrrrrr")


def claims(s: Settings, runs: Runs) -> Iterator[Verdict]:
    every = list(itertools.product(s.chosen, sorted(s.kappas)))
    yield from family("rule", [holds(s, runs, *each) for each in every])
    near = [
        above(
            f"{name}_nearer_than_{CONTROLS[control]}_at_{kappa}",
            gain(runs, name, kappa, control),
            0.0,
            "% of loss",
        )
        for name, kappa in every
        for control in others(runs, name, kappa)
        # the table tells which have diverged
        if finite(runs, name, kappa) and finite(runs, name, kappa, control)
    ]
    yield from family("nearer", near)


def holds(s: Settings, runs: Runs, name: str, kappa: int) -> Verdict:
    """Claims that the rule ends as the base run does; where it diverges it fails."""
    claim, unit = f"{name}_rule_holds_at_{kappa}", "% of loss"
    if finite(runs, name, kappa):
        return agrees(claim, off(s, runs, name, kappa), s.bound, unit)
    far = math.inf, math.inf, math.inf
    return Verdict(claim, *far, s.bound, unit, holds=False, p=1.0, fails=True)


def gain(runs: Runs, name: str, kappa: int, control: str) -> Estimate:
    """Returns how much further a control's curve lies from the base run's."""
    mine = named(name, kappa, control), named(name, kappa), named(name)
    return distance_gain(runs, *mine, metric="loss")


def answer(s: Settings, runs: Runs, verdicts: list[Verdict]) -> str:
    """Returns at each κ of which optimizers the rule holds, is open and fails."""
    found = {verdict.claim: verdict.outcome for verdict in verdicts}
    lines = []
    for kappa in sorted(s.kappas):
        outcomes = {n: found[f"{n}_rule_holds_at_{kappa}"] for n in s.chosen}
        parts = []
        for outcome in ("holds", "open", "fails"):
            names = [name for name, each in outcomes.items() if each == outcome]
            parts += [f"{outcome} for {', '.join(names)}"] if names else []
        lines.append(f"κ = {kappa}, to ±{s.bound:g}%: the rule {'; '.join(parts)}")
    return "\n".join(lines)


def figure(s: Settings, runs: Runs, path: Path) -> None:
    """Draws the learning curves of each optimizer in a panel of its own."""
    columns = min(4, len(s.chosen))
    rows = math.ceil(len(s.chosen) / columns)
    size = dict(width=3.3 * columns, height=2.6 * rows + 0.6)
    drawing, axes = plots.new_figure(columns, rows=rows, **size)
    for ax in axes[len(s.chosen) :]:
        ax.set_axis_off()
    for number, (ax, name) in enumerate(zip(axes, s.chosen, strict=False)):
        panel(ax, s, runs, name)
        plots.label(
            ax,
            x="base steps" if number >= len(s.chosen) - columns else "",
            y="held-out loss" if number % columns == 0 else "",
            title=f"{name}: {power_words(power(s, name))}",
        )
    plots.shared_legend(drawing, axes[0], columns=4)
    plots.save(drawing, path)


def panel(ax, s: Settings, runs: Runs, name: str) -> None:
    """Draws the curves of one optimizer; those far from the base run's leave it."""
    colour, largest = plots.colours(WORDS), max(s.kappas)

    def curve(arm, label, colour, **line):
        times, losses = runs[arm].loss
        losses = losses[:, 1:]
        plots.band(ax, times[1:], estimate(losses), label=label, colour=colour, **line)
        return losses.mean(axis=0)

    text = f"base, batch {s.batch_size}"
    kept = [curve(named(name), text, "black", lw=3)]
    for kappa, rule in itertools.product(sorted(s.kappas), WORDS):
        arm, text = named(name, kappa, rule), f"κ = {kappa}, {WORDS[rule]}"
        line = dict(lw=1.5, ls="-" if kappa == largest else ":")
        if arm in runs and finite(runs, name, kappa, rule):
            mean = curve(arm, text, colour[rule], **line)
            kept += [mean] if rule == RULE else []
        else:  # for the legend, which all panels share
            ax.plot([], [], label=text, color=colour[rule], **line)
    plots.plain_log_axis(ax)
    ax.yaxis.get_major_locator().set_params(subs=(1, 1.5, 2, 2.5, 3, 4, 5, 7))
    ax.set_ylim(np.min(kept) / 1.1, 1.2 * min(np.max(kept), 2 * np.max(kept[0])))


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    answer=answer,
    figures={"families": figure},
    task=build_task,
)
