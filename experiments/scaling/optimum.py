"""At κ times the batch: which run equals the base run, and which is the best?

The scaling rule answers the first question, tuning the second, and the exponent of the
one is often given for that of the other. Here both are asked of the same runs. Every
batch has a grid of lr × the half-lives of the averages, in units of the rule's: points
of the base run's grid, taken to κ by the rule. Where the rule holds, losses are those
of the base run's grid, point by point, and so is the best.

The best lr departs from the rule's as κ^q. Half-lives in units of the rule's are
counted in samples where they are 1, and in steps where they are κ; both are always
tried. The critical κ is where the lowest loss, at as many samples, is `bound` % above
the base run's.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import jax
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
from optsde.optimizers import Optimizer
from optsde.run import Series, Task
from optsde.study import (
    Arm,
    ArmRuns,
    Numbers,
    RunDir,
    Runs,
    Study,
    build_task,
    require,
    setting,
    train,
)
from optsde.types import PyTree

MATRICES, REST = "matrices", "rest"


class Settings(tuning.Settings):
    memories: Numbers = setting(
        (0.25, 4.0),
        "half-lives of the averages, in units of the rule's, besides 1 and κ",
        zero="only these",
        above=0,
        rising=True,
    )
    matrices: bool = setting(
        False, "whether the optimizer is of layers' matrices alone, as Muon"
    )
    rest: Optimizer = setting(
        optsde.Adam(lr=2e-3, b1=0.5, b2=0.98), "of all else, where it is"
    )
    power_bound: float = setting(
        0.25, "on the departure of a power of κ from the rule's", above=0, at_most=1
    )
    factors = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
    optimizer = optsde.Adam(lr=2e-3, b1=0.5, b2=0.98)
    batch_size = 1
    horizon = 2048.0
    kappas = (4, 16, 64)
    bound = 3.0
    dataset = "text"
    model = "transformer"
    options = dict(dtype="float32", depth=1, width=32, heads=2, length=16)
    train_size = 45_000
    test_size = 128
    seeds = 8

    def base_plan(self) -> optsde.Plan:
        """Returns the plan of the base run."""
        return dataclasses.replace(super().base_plan(), optimizer=self.at(1.0, 1.0))

    def at(self, memory: float, factor: float) -> Optimizer | optsde.Groups:
        """Returns the base run's optimizer with other half-lives and another lr."""
        first, rest = (
            lasting(each, memory).times_lr(factor)
            for each in (self.optimizer, self.rest)
        )
        if self.matrices:
            return optsde.Groups({MATRICES: first, REST: rest}, kinds)
        return first

    def demands(self):
        yield from super().demands()
        fine = bool(self.optimizer.decays())
        yield fine, "optimizer.name", "one with an average, such as adam or momentum"
        for memory in self.memories:
            try:
                self.at(memory, 1.0).checked()
            except ValueError as error:
                yield False, "memories", f"shorter ones: {error}"


def lasting(optimizer: Optimizer, factor: float) -> Optimizer:
    """Returns the optimizer with the half-lives of its averages times a factor.

    >>> lasting(optsde.Momentum(beta=0.81), 2.0).beta
    0.9
    """
    each = {
        name: getattr(optimizer, name) ** (1 / factor) for name in optimizer.decays()
    }
    return dataclasses.replace(optimizer, **each)


def kinds(params: PyTree) -> PyTree:
    """Returns which parameters are matrices of layers, and which are the rest."""

    def kind(path, x):
        kernel = jax.tree_util.keystr(path[-1:], simple=True) == "kernel"
        return MATRICES if kernel and len(x.shape) > 1 else REST

    return jax.tree_util.tree_map_with_path(kind, params)


def named(kappa: int, memory: float = 1.0, factor: float = 1.0) -> str:
    """Returns the name of an arm."""
    return f"{kappa}/{memory:g}/{factor:g}"


def memories(s: Settings, kappa: int) -> list[float]:
    """Returns the half-lives that are tried at κ, in units of the rule's."""
    return sorted({*s.memories, 1.0, float(kappa)})


def points(s: Settings, kappa: int) -> Iterator[tuple[float, float]]:
    """Yields the half-life and lr of each point of the grid at κ."""
    return itertools.product(memories(s, kappa), s.factors)


def arms(s: Settings) -> Iterator[Arm]:
    """Yields an arm for each batch, half-life and lr."""
    base = s.base_plan()
    for kappa in s.batches:
        for point in points(s, kappa):
            plan = dataclasses.replace(base, optimizer=s.at(*point))
            plan = optsde.scale(plan, kappa, memory="power")
            yield Arm(named(kappa, *point), plan)


def simulate(s: Settings, rundir: RunDir, task: Task) -> Runs:
    """Returns the runs of all arms; those of one batch are one ensemble."""
    if s.matrices:
        found = jax.tree.leaves(kinds(jax.eval_shape(task.init, s.keys()[0])))
        allowed = "False: no parameter of this net is a layer's `kernel` of two axes"
        require(MATRICES in found, "matrices", True, allowed)
    return train(
        list(arms(s)),
        groups.sampler(s, task),
        task.init,
        s.keys(),
        keep=rundir.once_all,
        every=s.every,
        probes=[task.evaluation()],
        stop_at_divergence=False,
    )


# ---- the same curve


def held(run: ArmRuns) -> Series:
    """Returns the held-out losses, no higher than at the start.

    A run that diverges or ends above its start counts as if it had stayed there.
    """
    losses = run.test_loss
    return losses._replace(values=np.fmin(losses.values, losses.values[:, :1]))


def off(s: Settings, runs: Runs, kappa: int) -> Estimate:
    """Returns by how many % the rule's late loss differs from the base run's."""
    pair = (held(runs[named(k)]) for k in (kappa, 1))
    return percent_of_mean(*(losses.between(s.horizon / 2) for losses in pair))


# ---- the best


def last(s: Settings, runs: Runs, kappa: int) -> np.ndarray:
    """Returns the last held-out losses of a batch, [seeds, half-lives, factors]."""
    each = (runs[named(kappa, *point)] for point in points(s, kappa))
    ends = np.stack([held(run).last for run in each], axis=1)
    return ends.reshape(len(ends), -1, len(s.factors))


def of_memory(s: Settings, runs: Runs, kappa: int, memory: float) -> np.ndarray:
    """Returns the last losses at a half-life, [seeds, factors]."""
    return last(s, runs, kappa)[:, memories(s, kappa).index(memory)]


def lowest(s: Settings, runs: Runs, kappa: int) -> np.ndarray:
    """Returns each seed's loss at the point of the grid that is best for the others."""
    losses = last(s, runs, kappa)
    return tuned(losses.reshape(len(losses), -1))


def under_rule(s: Settings, runs: Runs, kappa: int) -> np.ndarray:
    """Returns each seed's last loss under the rule."""
    return of_memory(s, runs, kappa, 1.0)[:, s.factors.index(1.0)]


def cost(s: Settings, runs: Runs, kappa: int) -> Estimate:
    """Returns by how many % the rule ends above the best point of its batch."""
    return percent_of_mean(under_rule(s, runs, kappa), lowest(s, runs, kappa))


def kept(s: Settings, runs: Runs, kappa: int) -> Estimate:
    """Returns by how many % the best at κ ends above the best at κ = 1."""
    return percent_of_mean(lowest(s, runs, kappa), lowest(s, runs, 1))


def steps_over_samples(s: Settings, runs: Runs, kappa: int) -> Estimate:
    """Returns by how many % half-lives in steps end above samples, lr tuned."""
    pair = (tuned(of_memory(s, runs, kappa, memory)) for memory in (kappa, 1.0))
    return percent_of_mean(*pair)


def critical(s: Settings, runs: Runs) -> Estimate:
    """Returns log2 of the κ at which the lowest loss is `bound` % above the base run's.

    Between batches it is interpolated in log κ. NaN where no batch is beyond, and of
    its error where none is without a seed.
    """

    def crossing(*each: np.ndarray) -> float:
        means = np.array([losses.mean(0).min() for losses in each])
        more, places = 100 * (means / means[0] - 1), np.log2(s.batches)
        beyond = np.flatnonzero(more > s.bound)
        if not len(beyond):
            return np.nan
        around = slice(beyond[0] - 1, beyond[0] + 1)
        return float(np.interp(s.bound, more[around], places[around]))

    return jackknife(crossing, *(last(s, runs, kappa) for kappa in s.batches))


# ---- the best lr


def best_lr(s: Settings, losses: np.ndarray) -> float:
    """Returns log2 of the best lr in units of the rule's; NaN at an end of the list.

    Losses are those at the rule's half-lives, [seeds, factors].
    """
    return valley(np.log2(s.factors), losses.mean(0))


def rule_lr(s: Settings) -> np.ndarray:
    """Returns log2 of the rule's lr at each batch, in units of the base run's."""
    base = s.base_plan()
    plans = (optsde.scale(base, kappa, memory="power") for kappa in s.batches)
    return np.log2([float(plan.optimizer.lr / base.optimizer.lr) for plan in plans])


def path(s: Settings, runs: Runs) -> Estimate:
    """Returns log2 of the best lr of each batch, in units of the base run's."""
    rule = rule_lr(s)

    def found(*each: np.ndarray) -> np.ndarray:
        return rule + [best_lr(s, losses) for losses in each]

    return jackknife(found, *(of_memory(s, runs, k, 1.0) for k in s.batches))


def rise(s: Settings, runs: Runs, one: int, two: int) -> Estimate:
    """Returns log2 of the best lr of one batch over another's, by their numbers."""
    gain, each = rule_lr(s), [of_memory(s, runs, s.batches[i], 1.0) for i in (one, two)]

    def ratio(x: np.ndarray, y: np.ndarray) -> float:
        return best_lr(s, x) - best_lr(s, y) + float(gain[one] - gain[two])

    return jackknife(ratio, *each)


def power(s: Settings, logs: np.ndarray) -> float:
    """Returns p in κ^p by least squares, of what has these log2 at the batches."""
    x = np.log2(s.batches) - np.log2(s.batches).mean()
    return float(x @ logs / (x @ x))


def departure(s: Settings, runs: Runs) -> Estimate:
    """Returns q in κ^q, by which the best lr departs from the rule's."""

    def found(*each: np.ndarray) -> float:
        return power(s, np.array([best_lr(s, losses) for losses in each]))

    return jackknife(found, *(of_memory(s, runs, k, 1.0) for k in s.batches))


# ---- what is made of them


def tables(s: Settings, runs: Runs) -> Iterator[str]:
    rows, path_ = [], path(s, runs)
    for number, kappa in enumerate(s.batches):
        losses = last(s, runs, kappa)
        at = np.unravel_index(losses.mean(0).argmin(), losses.shape[1:])
        best = f"{s.factors[at[1]]:.3g}, {memories(s, kappa)[at[0]]:g}"
        cells = [f"{kappa}"]
        cells += [
            plus_minus(estimate(x(s, runs, kappa)), 3) for x in (under_rule, lowest)
        ]
        cells += [best, two_to(path_.at(number)), f"{2.0 ** rule_lr(s)[number]:.3g}"]
        rows.append(cells)
    header = ["κ", "loss under the rule", "lowest loss", "at lr, half-life of the rule"]
    yield table([*header, "best lr, of base", "the rule's"], rows, "rrrrrr")
    rows = []
    for kappa in s.batches:
        asked = (cost,) if kappa == 1 else (cost, off, kept, steps_over_samples)
        cells = [with_interval(interval(x(s, runs, kappa)), 2, sign="+") for x in asked]
        rows.append([f"{kappa}", *cells, *[""] * (4 - len(cells))])
    header = ["κ", "rule above the best, %", "late loss from base, %"]
    header += ["best above base's, %", "half-lives in steps above samples, %"]
    yield table(header, rows, "rrrrr")


def two_to(x: Estimate) -> str:
    """Returns 2 to the power of an estimate with its interval, as text.

    Where what is best is an end of the list, with or without a seed, there is none.
    """
    if not np.isfinite(x.se):
        return "at an end"
    value, low, high = (2.0**end for end in interval(x))
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"


def claims(s: Settings, runs: Runs) -> Iterator[Verdict]:
    unit, larger = "% of loss", s.batches[1:]

    def each(name: str, words: str, judge, ask, bound: float) -> list[Verdict]:
        return family(
            name,
            [judge(f"{words}_at_{k}", ask(s, runs, k), bound, unit) for k in larger],
        )

    yield from each("same", "rule_keeps_the_curve", agrees, off, s.bound)
    yield from each("best", "rule_is_the_best", below, cost, s.bound)
    yield from each("kept", "best_loss_is_kept", below, kept, s.bound)
    memory = "samples_end_below_steps"
    yield from each("memory", memory, above, steps_over_samples, 0.0)
    gap = departure(s, runs)
    yield agrees("best_lr_grows_as_the_rule", gap, s.power_bound, "power of κ")
    doublings = "doublings of lr"
    yield above("best_lr_rises_at_first", rise(s, runs, 1, 0), 0.0, doublings)
    yield below("best_lr_falls_at_last", rise(s, runs, -1, -2), 0.0, doublings)


def answer(s: Settings, runs: Runs, verdicts: list[Verdict]) -> str:
    """Returns how the best lr grows, up to where each question has a yes, and κ_c."""
    holds = {verdict.claim: verdict.holds for verdict in verdicts}

    def up_to(claim: str) -> int:
        fine = [holds[f"{claim}_at_{kappa}"] for kappa in s.batches[1:]]
        return s.batches[fine.index(False) if False in fine else len(fine)]

    rule, gap, beyond = power(s, rule_lr(s)), departure(s, runs), critical(s, runs)
    grows = "is an end of the list at some batch"
    if np.isfinite(gap.se):
        total = gap._replace(mean=gap.mean + rule)
        grows = f"grows as κ to the {with_interval(interval(total), 2)}"
    ends = two_to(beyond)
    if not np.isfinite(beyond.se):
        ends = f"{s.batches[-1]} or near it, or beyond"
    return (
        f"the best lr {grows}, the rule's as κ to the {rule:.2f}\n"
        f"the curve is shown to be the base run's up to κ = "
        f"{up_to('rule_keeps_the_curve')}, and the rule to end at most {s.bound:g}% "
        f"above the best up to κ = {up_to('rule_is_the_best')}\n"
        f"the lowest loss is {s.bound:g}% above the base run's at κ = {ends}"
    )


def figure(s: Settings, runs: Runs, place: Path) -> None:
    """Draws the best lr beside the rule's, the losses, and what the rule is off."""
    drawing, (left, middle, right) = plots.new_figure(3, width=13, height=4.4)
    kappas, rule, found = np.array(s.batches), rule_lr(s), path(s, runs)
    blue, orange, green, *_ = plots.COLOURS
    ends = 2.0 ** rule[:, None] * np.array([s.factors[0], s.factors[-1]])
    left.fill_between(kappas, *ends.T, color="0.9", lw=0, label="tried")
    left.plot(kappas, 2.0**rule, "--", color="0.4", label="the rule's")
    half = plots.half_width(found)
    middles, low, high = (2.0 ** (found.mean + x) for x in (0, -half, half))
    bars = np.abs(np.stack([low, high]) - middles)
    style = dict(capsize=3, ms=5, color=blue, label="best, half-lives the rule's")
    left.errorbar(kappas, middles, bars, fmt="o", **style)

    curves = {
        "the rule": (under_rule, orange),
        "the best of the grid": (lowest, blue),
        "lr tuned, half-lives in steps": (
            lambda s, runs, k: tuned(of_memory(s, runs, k, float(k))),
            green,
        ),
    }
    for number, (name, (of, colour)) in enumerate(curves.items()):
        losses = stack([estimate(of(s, runs, k)) for k in s.batches])
        style = dict(colour=colour, ls="-", ms=4, label=name)
        plots.points(middle, kappas * 1.05 ** (number - 1), losses, **style)
    for ask, shown, name, colour in (
        (off, s.batches[1:], "late loss, from the base run's", orange),
        (cost, s.batches, "last loss, above the best of the batch", blue),
    ):
        gaps = stack([ask(s, runs, k) for k in shown])
        plots.points(right, shown, gaps, colour=colour, ls="-", ms=4, label=name)
    plots.spans(right, [(-s.bound, s.bound)], along="y")
    for ax in (left, middle, right):
        ax.set_xscale("log", base=2)
        ax.set_xticks(kappas, [f"{k}" for k in kappas])
        ax.margins(y=0.45)  # room for the legend
    left.set_yscale("log")
    left.yaxis.set_major_formatter("{x:g}")
    plots.plain_symlog_axis(right, linear=2 * s.bound)
    for ax in (left, middle, right):
        ax.minorticks_off()
    x = "κ, batch in units of the base batch"
    y, title = "lr, in units of the base run's", "best lr, bars 95%, none at an end"
    plots.label(left, x=x, y=y, title=title, legend="upper left")
    y, title = "last held-out loss", "equal samples, bars 95%"
    plots.label(middle, x=x, y=y, title=title, legend="upper left")
    title = f"the rule: equal? best? grey: ±{s.bound:g}%"
    plots.label(right, x=x, y="%", title=title, legend="upper left")
    plots.save(drawing, place)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    answer=answer,
    figures={"optimum": figure},
    task=build_task,
)
