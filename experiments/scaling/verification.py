"""Does the rule hold at κ times the batch, is it the nearest, and was it foreseen?

Every arm is compared with the base run on the clock of samples, paired by seed, over
the second half of its evaluations.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import optsde
from experiments.scaling.prediction import Foreseen, foresee, second_half
from experiments.scaling.rule import (
    RULES,
    WAYS_OUT,
    Settings,
    arms,
    at_ell,
    at_kappa,
    judged,
    keys_of,
    sampler_of,
)
from optsde.analysis import (
    Estimate,
    Verdict,
    above,
    agrees,
    estimate,
    family,
    interval,
    jackknife,
    paired,
    percent_of_mean,
    plus_minus,
    stack,
    table,
    with_interval,
)
from optsde.analysis.plots import (
    band,
    colours,
    label,
    new_figure,
    plain_log_axis,
    plain_symlog_axis,
    points,
    save,
    shared_legend,
    spans,
)
from optsde.run import Task, parts
from optsde.study import RunDir, Study
from optsde.study.arms import stacks, train
from optsde.study.probes import build_probes, with_spikes, writer
from optsde.study.runs import ArmRuns, Runs
from optsde.study.tasks import build_task


class Outcome(NamedTuple):
    foreseen: Foreseen
    runs: Runs  # none where only a prediction is asked for


def simulate(s: Settings, rundir: RunDir, task: Task) -> Outcome:
    """Returns the prediction, then the runs of all arms."""
    foreseen = foresee(s, rundir, task)
    print(f"{foreseen.text}\n", flush=True)
    runs = Runs({})
    groups = stacks(arms(s, foreseen.schedules(task))) if s.verify else []
    for group in parts(groups):
        runs |= train_group(s, rundir, task, group)
    return Outcome(foreseen, runs)


def train_group(s: Settings, rundir: RunDir, task: Task, group: list) -> Runs:
    """Returns the runs of arms of one batch and step, or of a lone one with probes."""
    sampler, plan = sampler_of(s, task), group[0].plan
    folder = rundir.path / "arms" / group[0].group

    def probes(arm):
        own = build_probes(s, plan, task, sampler) if len(group) == 1 else ()
        return [task.evaluation(), *own]

    runs = train(
        group,
        sampler,
        task.init,
        keys_of(s, s.seeds),
        keep=rundir.once_all,
        every=s.every,
        probes=probes,
        folder=folder,
        checkpoint_every=s.every * max(1, s.evaluations // 4),
        writer=writer(s, folder / "metrics.jsonl"),
        label=group[0].group,
        stop_at_divergence=False,
    )
    return with_spikes(s, runs)


def show_plans(s: Settings, task: Task | None = None) -> None:
    """Prints what the rule and SVAG make of the hyperparameters."""
    del task  # hyperparameters do not depend on it
    base, *others = arms(s)
    for arm in others:
        if arm.ell or arm.rule == "rule":
            title = ", ".join(filter(None, [arm.title, RULES.get(arm.rule)]))
            print(f"{title}\n{optsde.explain(base.plan, arm.plan)}\n")


# ---- an arm beside the base run


def late(arm: ArmRuns, like: ArmRuns, name: str) -> np.ndarray:
    """Returns each seed's mean over the second half of the evaluations of `like`."""
    times = like.test_loss.times
    index = np.flatnonzero(second_half(times))
    return arm[name].values[:, index].mean(axis=1)


def difference(runs: Runs, name: str, metric: str = "test_loss") -> Estimate:
    """Returns an arm's loss less the base run's in %, or its accuracy's in points."""
    arm = runs[name]
    mine, base = late(arm, arm, metric), late(runs["base"], arm, metric)
    if metric == "test_loss":
        return percent_of_mean(mine, base)
    return paired(mine, base, 100)


def distance_gain(
    runs: Runs, control: str, rule: str, base: str = "base", metric: str = "test_loss"
) -> Estimate:
    """Returns how much further the control's mean curve lies from the base run's.

    The distance of two curves is the mean of |difference| over the evaluations, here in
    percent of the base run's loss.
    """

    def gain(control, rule, base):
        far, near = (np.abs((x - base).mean(0)).mean() for x in (control, rule))
        return 100 * (far - near) / base.mean()

    names = control, rule, base
    return jackknife(gain, *(runs[n][metric].values[:, 1:] for n in names))


# ---- what is made of the runs


def tables(s: Settings, outcome: Outcome) -> Iterator[str]:
    runs = outcome.runs
    if not runs:
        return
    foreseen, base = outcome.foreseen, runs["base"]
    header = {"test_loss": "held-out loss, % from base"}
    cells = [plus_minus(estimate(late(base, base, "test_loss")), 4)]
    if "test_accuracy" in base:
        header["test_accuracy"] = "accuracy, points from base"
        accuracy = estimate(late(base, base, "test_accuracy"))
        cells.append(plus_minus(100 * accuracy, 2))
    rows = [["base", "", *cells]]
    for name in list(runs)[1:]:
        cells = ["diverged", *[""] * (len(header) - 1)]
        if np.isfinite(runs[name].test_loss.values).all():
            gaps = [interval(difference(runs, name, metric)) for metric in header]
            cells = [with_interval(gap, 2, sign="+") for gap in gaps]
        arm = runs[name].arm
        rows.append([arm.title, RULES.get(arm.rule, ""), *cells])
    yield table(["", "", *header.values()], rows, "ll" + "r" * len(header))
    if any(rule in s.rules for rule in WAYS_OUT):
        yield ways_out_table(s, runs)
    if foreseen.difference is not None:
        yield difference_table(foreseen, runs)


def difference_table(foreseen: Foreseen, runs: Runs) -> str:
    """Returns the table of differences of the loss, predicted, seen, not foreseen."""
    rows = []
    for kappa, predicted in foreseen_at(foreseen):
        seen = difference(runs, at_kappa(kappa))
        cells = [interval(x) for x in (predicted, seen, seen - predicted)]
        rows.append([f"{kappa:g}", *(with_interval(x, 2, sign="+") for x in cells)])
    return table(["κ", "predicted, %", "seen, %", "not foreseen, %"], rows, "rrrr")


def ways_out_table(s: Settings, runs: Runs) -> str:
    """Returns the table of the loss by κ, under the rule and the ways out of it."""
    rules = [rule for rule in ("rule", *WAYS_OUT) if rule in s.rules]

    def cell(kappa, rule):
        arm = runs[at_kappa(kappa, rule)]
        if not np.isfinite(arm.test_loss.values).all():
            return "diverged"
        return with_interval(interval(difference(runs, arm.arm.name)), 2, sign="+")

    rows = [[f"{kappa:g}", *(cell(kappa, r) for r in rules)] for kappa in s.kappas]
    header = ["κ", *(f"{RULES[rule]}: loss, % from base" for rule in rules)]
    return table(header, rows, "r" * len(header))


def claims(s: Settings, outcome: Outcome) -> Iterator[Verdict]:
    foreseen, runs = outcome
    if not runs:
        return
    for ell in s.ells:
        gap = difference(runs, at_ell(ell))
        yield agrees(f"{at_ell(ell)}_matches_base", gap, s.bound, "% of loss")
    for kappa in s.kappas:
        gap, claim = difference(runs, at_kappa(kappa)), f"rule_holds_at_{kappa:g}"
        expected = kappa <= foreseen.kappa
        yield agrees(claim, gap, s.bound, "% of loss", expected)
    yield from ways_out(s, runs)
    yield from family("nearer", nearer(s, runs))
    for kappa, predicted in foreseen_at(foreseen):
        gap = difference(runs, at_kappa(kappa)) - predicted
        yield agrees(f"foreseen_at_{kappa:g}", gap, s.bound, "% of loss from predicted")


def ways_out(s: Settings, runs: Runs) -> Iterator[Verdict]:
    """Yields that what needs no noise to dominate holds at each κ."""
    for rule, kappa in itertools.product(WAYS_OUT, s.kappas):
        name = at_kappa(kappa, rule)
        if name in runs and np.isfinite(runs[name].test_loss.values).all():
            gap, claim = difference(runs, name), f"{rule}_holds_at_{kappa:g}"
            yield agrees(claim, gap, s.bound, "% of loss")


def nearer(s: Settings, runs: Runs) -> Iterator[Verdict]:
    """Yields that the rule lies nearer to the base run than each control at each κ."""
    for kappa in judged(s):
        for rule in [r for r in s.rules if r not in ("rule", *WAYS_OUT)]:
            name = at_kappa(kappa, rule)
            if not np.isfinite(runs[name].test_loss.values).all():
                continue  # the table tells which have diverged
            gain = distance_gain(runs, name, at_kappa(kappa))
            yield above(f"nearer_than_{rule}_at_{kappa:g}", gain, 0.0, "% of loss")


def foreseen_at(foreseen: Foreseen) -> Iterator[tuple[float, Estimate]]:
    """Yields each κ with the predicted difference of the loss, in %, if finite."""
    if foreseen.difference is not None:
        found = foreseen.difference
        for kappa, total in zip(found.kappas, found.total.each(), strict=True):
            if np.isfinite(total.mean):
                yield kappa, total


def largest(verdicts: Iterable[Verdict]) -> tuple[float, float]:
    """Returns the κ up to which the rule holds, and the first at which it does not."""
    prefix = "rule_holds_at_"
    holds = {
        float(v.claim.removeprefix(prefix)): v.holds
        for v in verdicts
        if v.claim.startswith(prefix)
    }
    up_to = 1.0
    for kappa in sorted(holds):
        if not holds[kappa]:
            return up_to, kappa
        up_to = kappa
    return up_to, np.inf


def answer(s: Settings, outcome: Outcome, verdicts: list[Verdict]) -> str:
    """Returns in words what was predicted, and what was measured."""
    foreseen, runs = outcome
    if not runs:
        return ""
    held, failed = largest(verdicts)
    seen = f"held up to κ = {held:g}" if held > 1 else "held at no κ for sure"
    if np.isfinite(failed):
        seen += f", and was not shown to within ±{s.bound:g}% at κ = {failed:g}"
    return (
        f"predicted: up to κ = {foreseen.kappa:.3g} [{foreseen.low:.3g}, "
        f"{foreseen.high:.3g}]; seen: the {foreseen.rule} rule {seen}"
    )


def summary(s: Settings, outcome: Outcome) -> dict[str, Any]:
    return {"prediction": outcome.foreseen.summary(s.bound)}


def figure(s: Settings, outcome: Outcome, path: Path) -> None:
    """Draws curves at one κ, and the difference from the base run at every κ."""
    foreseen, runs = outcome
    if not runs:
        return
    drawing, (left, right) = new_figure(2, width=11, height=5.2)
    shown, colour = max(judged(s), default=min(s.kappas)), colours(s.rules)

    def curve(name, text, **style):
        if name in runs and np.isfinite(runs[name].test_loss.values).all():
            times, loss = runs[name].test_loss
            band(left, times[1:], estimate(loss[:, 1:]), label=text, **style)

    for rule in s.rules:
        style = dict(colour=colour[rule], lw=2.2 if rule == "rule" else 1.6)
        curve(at_kappa(shown, rule), RULES[rule], **style)
    for ell, dashes in zip(s.ells, ("--", ":", "-."), strict=False):
        curve(at_ell(ell), f"SVAG ℓ = {ell:g}", colour="grey", ls=dashes)
    curve("base", f"base, batch {s.batch_size}", colour="black")
    plain_log_axis(left)
    label(
        left,
        x="time, in steps of the base run",
        y="held-out loss",
        title=f"batch × {shown:g}, bands 95%",
    )
    shared_legend(drawing, left, columns=3)

    kappas = sorted(s.kappas)
    for number, rule in enumerate(s.rules):
        if ran := [k for k in kappas if at_kappa(k, rule) in runs]:
            x = np.array(ran) * 1.03 ** (number - (len(s.rules) - 1) / 2)
            gaps = stack([difference(runs, at_kappa(k, rule)) for k in ran])
            points(right, x, gaps, colour=colour[rule], ls="-", ms=4)
    if (predicted := foreseen.difference) is not None:
        style = dict(label="predicted for the rule", colour="black", ls="--")
        band(right, np.array(predicted.kappas), predicted.total, **style)
    spans(right, [(-s.bound, s.bound)], along="y")
    right.set_xscale("log", base=2)
    plain_symlog_axis(right, linear=2 * s.bound)
    right.set_xlim(kappas[0] / 1.3, kappas[-1] * 1.4)
    right.set_xticks(kappas, [f"{k:g}" for k in kappas])
    label(
        right,
        x="κ, batch in units of the base batch",
        y="held-out loss, % from the base run",
        title=f"grey: ±{s.bound:g}%, bars 95%",
        legend="best" if predicted is not None else None,
    )
    save(drawing, path)


study = Study(
    Settings.__module__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"scaling": figure},
    task=build_task,
    summary=summary,
    answer=answer,
    dry_run=show_plans,
)
