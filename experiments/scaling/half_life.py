"""Which memories keep their half-life in tokens: for the same curve, for the best loss?

Adam's own rule keeps those of both averages in tokens, β → β^κ, and takes lr to lr·√κ:
then the SDE is the same. Marek et al. (2025) keep that of v alone, leave b1, and tune
lr, which they find to grow more slowly. Two questions are asked of the same runs. Is
the curve that of the base run, at equal tokens? And which ends lowest, with lr tuned
for each batch: every batch and choice of memories has a grid of lr in units of lr·√κ.
A seed is judged at the lr that is best for all others.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import optsde
from experiments.scaling import groups, tuning
from experiments.scaling.tuning import tuned
from optsde.analysis import (
    Estimate,
    Verdict,
    above,
    agrees,
    below,
    estimate,
    family,
    interval,
    jackknife,
    percent_of_mean,
    plots,
    plus_minus,
    stack,
    table,
    valley,
    with_interval,
)
from optsde.run import Task
from optsde.study import (
    Arm,
    RunDir,
    Runs,
    Study,
    build_task,
    refuse_divergence,
    train,
)

ALL, V_ALONE, NONE = "both", "v", "neither"
KEPT = {ALL: ("b1", "b2"), V_ALONE: ("b2",), NONE: ()}
WORDS = {
    ALL: "b1 and b2 in tokens",
    V_ALONE: "b2 in tokens, b1 in steps",
    NONE: "b1 and b2 in steps",
}
BETAS = {"b1", "b2"}


class Settings(tuning.Settings):
    optimizer = optsde.Adam(lr=2e-3, b1=0.9, b2=0.9975)
    batch_size = 1
    horizon = 2048.0
    kappas = (2, 4, 8, 16, 32, 64, 128)
    bound = 3.0
    dataset = "text"
    model = "transformer"
    options = dict(dtype="float32", depth=1, width=32, heads=2, length=16)
    train_size = 45_000
    test_size = 128
    seeds = 4

    def demands(self):
        yield from super().demands()
        fine = set(self.optimizer.decays()) == BETAS
        yield fine, "optimizer.name", "one with b1 and b2, such as adam"


def named(kappa: int, kept: str, factor: float = 1.0) -> str:
    """Returns the name of an arm; at κ = 1 all choices of memories are one."""
    return f"{kappa}/{ALL if kappa == 1 else kept}/{factor:g}"


def arms(s: Settings) -> Iterator[Arm]:
    """Yields an arm for each batch, choice of memories and lr."""
    base = s.base_plan()
    for kappa, kept in itertools.product(s.batches, KEPT):
        if kappa == 1 and kept != ALL:
            continue
        plan = optsde.scale(base, kappa, memory="power")
        rule = plan.optimizer.single()
        alone = {name: getattr(s.optimizer, name) for name in BETAS - {*KEPT[kept]}}
        for factor in s.factors:
            optimizer = dataclasses.replace(rule, lr=factor * rule.lr, **alone)
            arm = dataclasses.replace(plan, optimizer=optimizer)
            yield Arm(named(kappa, kept, factor), arm)


def simulate(s: Settings, rundir: RunDir, task: Task) -> Runs:
    """Returns the runs of all arms; those of one batch are one ensemble."""
    runs = train(
        list(arms(s)),
        groups.sampler(s, task),
        task.init,
        s.keys(),
        keep=rundir.once_all,
        every=s.every,
        probes=[task.evaluation()],
        stop_at_divergence=False,
    )
    for name, run in runs.items():
        refuse_divergence(run.test_loss, name, "try smaller --config.factors")
    return runs


# ---- the curve


def curves(s: Settings, runs: Runs, kappa: int, kept: str) -> np.ndarray:
    """Returns the held-out losses after the start, [seeds, factors, evaluations]."""
    each = [runs[named(kappa, kept, factor)] for factor in s.factors]
    return np.stack([run.test_loss.values[:, 1:] for run in each], axis=1)


def off(s: Settings, runs: Runs, kappa: int, kept: str) -> Estimate:
    """Returns by how many % the late loss at lr·√κ differs from the base run's."""
    pair = (runs[named(k, kept)].test_loss for k in (kappa, 1))
    return percent_of_mean(*(losses.between(s.horizon / 2) for losses in pair))


def nearer(s: Settings, runs: Runs, kappa: int) -> Estimate:
    """Returns how much further than the rule's any curve with v's memory alone lies.

    The distance of two curves is the mean of |difference| over the evaluations, in
    percent of the base run's loss; of the lr tried, the nearest counts.
    """

    def gain(one, other, base):
        far, near = (np.abs((x - base[:, None]).mean(0)).mean(1) for x in (other, one))
        return 100 * (far.min() - near[at]) / base.mean()

    at = s.factors.index(1.0)
    found = (curves(s, runs, kappa, kept) for kept in (ALL, V_ALONE))
    return jackknife(gain, *found, curves(s, runs, 1, ALL)[:, at])


# ---- the best loss


def last(s: Settings, runs: Runs, kappa: int, kept: str) -> np.ndarray:
    """Returns the last held-out losses, [seeds, factors]."""
    return curves(s, runs, kappa, kept)[:, :, -1]


def best_lr(factors: tuple[float, ...], means: np.ndarray) -> float:
    """Returns log2 of the best lr, by a parabola through the lowest and those beside.

    Where the lowest is an end of the list, it is that end.
    """
    logs = np.log2(factors)
    inside = valley(logs, means)
    return float(logs[means.argmin()]) if np.isnan(inside) else inside


def lr_powers(s: Settings, *losses: np.ndarray) -> float:
    """Returns p in lr ∝ κ^p of the best lr, by least squares over all batches."""
    logs = np.log2(s.batches)
    found = [best_lr(s.factors, each.mean(0)) for each in losses]
    return float(np.polyfit(logs, np.array(found) + logs / 2, 1)[0])


def power(s: Settings, runs: Runs, kept: str) -> Estimate:
    """Returns p in lr ∝ κ^p of the best lr, of a choice of memories."""
    each = [last(s, runs, kappa, kept) for kappa in s.batches]
    return jackknife(lambda *losses: lr_powers(s, *losses), *each)


def gap(s: Settings, runs: Runs, one: tuple[int, str], two: tuple[int, str]):
    """Returns by how many % one (κ, memories) ends above another, lr tuned for each."""
    pair = (tuned(last(s, runs, *which)) for which in (one, two))
    return percent_of_mean(*pair)


# ---- what is made of them


def tables(s: Settings, runs: Runs) -> Iterator[str]:
    rows = []
    for kappa in s.batches[1:]:
        gaps = [interval(off(s, runs, kappa, kept)) for kept in KEPT]
        cells = [with_interval(x, 2, sign="+") for x in gaps]
        further = with_interval(interval(nearer(s, runs, kappa)), 2, sign="+")
        rows.append([f"{kappa}", *cells, further])
    header = ["κ", *(f"{WORDS[kept]}, lr·√κ: late loss, % from base" for kept in KEPT)]
    yield table([*header, "v's alone at any lr, further by"], rows, "rrrrr")
    rows = []
    for kappa in s.batches:
        cells = []
        for kept in KEPT:
            losses = last(s, runs, kappa, kept)
            factor = 2.0 ** best_lr(s.factors, losses.mean(0))
            end = factor in (s.factors[0], s.factors[-1])
            loss = plus_minus(estimate(tuned(losses)), 3)
            cells += [loss, f"{factor:.2g}{' (end)' if end else ''}"]
        rows.append([f"{kappa}", *cells])
    header = itertools.chain(*([f"{WORDS[kept]}: loss", "of lr·√κ"] for kept in KEPT))
    yield table(["κ", *header], rows, "rrrrrrr")


def claims(s: Settings, runs: Runs) -> Iterator[Verdict]:
    unit, every = "% of loss", list(itertools.product(KEPT, s.batches[1:]))
    same = [
        agrees(f"{kept}_keeps_the_curve_at_{k}", off(s, runs, k, kept), s.bound, unit)
        for kept, k in every
    ]
    yield from family("same_curve", same)
    near = [
        above(f"rule_nearer_than_v_alone_at_{k}", nearer(s, runs, k), 0.0, unit)
        for k in s.batches[1:]
    ]
    yield from family("nearer", near)
    lower = [
        above(
            f"v_alone_ends_below_{other}_at_{k}",
            gap(s, runs, (k, other), (k, V_ALONE)),
            0.0,
            unit,
        )
        for other in (ALL, NONE)
        for k in s.batches[1:]
    ]
    yield from family("lower", lower)
    small = [
        above(
            f"base_batch_ends_no_higher_than_{k}",
            gap(s, runs, (k, V_ALONE), (1, V_ALONE)),
            -s.bound,
            unit,
        )
        for k in s.batches[1:]
    ]
    yield from family("small", small)
    for kept in KEPT:
        claim = f"best_lr_of_{kept}_grows_below_root"
        yield below(claim, power(s, runs, kept), 0.5, "power of κ")


def answer(s: Settings, runs: Runs, verdicts: list[Verdict]) -> str:
    """Returns up to which κ each keeps the curve, and how the best lr grows."""
    holds = {verdict.claim: verdict.holds for verdict in verdicts}
    lines = []
    for kept in KEPT:
        fine = [holds[f"{kept}_keeps_the_curve_at_{kappa}"] for kappa in s.batches[1:]]
        up_to = s.batches[fine.index(False) if False in fine else len(fine)]
        found = with_interval(interval(power(s, runs, kept)), 2)
        lines.append(
            f"{WORDS[kept]}: the curve is shown to be that of the base run up to "
            f"κ = {up_to}; the best lr grows as κ to the {found}"
        )
    return "\n".join(lines)


def figure(s: Settings, runs: Runs, path: Path) -> None:
    """Draws how far the curves are off, the loss with lr tuned, and that lr."""
    drawing, (left, middle, right) = plots.new_figure(3, width=13, height=4.6)
    colour, kappas = plots.colours(KEPT), np.array(s.batches)
    for number, kept in enumerate(KEPT):
        style = dict(colour=colour[kept], ls="-", ms=4, label=WORDS[kept])
        x = kappas * 1.05 ** (number - 1)
        gaps = stack([off(s, runs, k, kept) for k in s.batches[1:]])
        plots.points(left, x[1:], gaps, **style)
        losses = [last(s, runs, k, kept) for k in kappas]
        ends = stack([estimate(tuned(each)) for each in losses])
        plots.points(middle, x, ends, **style)
        found = [2.0 ** best_lr(s.factors, each.mean(0)) for each in losses]
        right.plot(x, np.sqrt(kappas) * found, "o-", ms=4, color=colour[kept])
    guide = dict(color="0.5", ls="--", label="∝ √κ")
    right.plot(kappas, np.sqrt(kappas) * found[0], **guide)
    plots.spans(left, [(-s.bound, s.bound)], along="y")
    plots.plain_symlog_axis(left, linear=2 * s.bound)
    for ax in (left, middle, right):
        ax.set_xscale("log", base=2)
        ax.set_xticks(kappas, [f"{k}" for k in kappas])
        ax.minorticks_off()
    plots.plain_log_axis(right)
    x = "κ, batch in units of the base batch"
    title = f"the same curve? lr·√κ, grey: ±{s.bound:g}%"
    plots.label(left, x=x, y="late held-out loss, % from base", title=title)
    plots.label(middle, x=x, y="last held-out loss", title="lr tuned, bars 95%")
    y = "best lr, in units of the base run's"
    plots.label(right, x=x, y=y, title="that lr", legend="upper left")
    plots.shared_legend(drawing, left, columns=3)
    plots.save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    answer=answer,
    figures={"half_life": figure},
    task=build_task,
)
