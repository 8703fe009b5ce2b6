"""Does a plain run lie on its SDE, and does SVAG(ℓ) approach it as ℓ grows?

Li, Malladi and Arora (2021) and Malladi et al. (2022) compare plain runs with SVAG(ℓ),
which approaches the SDE; here the SDE is integrated too, with the exact covariance of
the data, at two step sizes from which the limit is extrapolated: few of its paths at
the finer one, since the two differ little on one path (Giles 2008). Discrete runs with
Gaussian noise of that covariance tell apart why a run leaves its SDE: the shape of its
noise, or its finite steps. Runs at smaller batches by the scaling rule belong on SVAG
of the same κ. The train loss of all stands on one clock, the steps of the base run.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import optsde
from optsde import gradients
from optsde.analysis import (
    Estimate,
    Verdict,
    above,
    all_agree,
    combination,
    estimate,
    percent,
    percent_paired,
    plus_minus,
    table,
)
from optsde.analysis.plots import (
    COLOURS,
    band,
    label,
    new_figure,
    plain_log_axis,
    points,
    save,
    shared_legend,
    spans,
)
from optsde.dynamics import Dynamics
from optsde.run import Task, parts
from optsde.study import (
    Integers,
    RunDir,
    Seeds,
    Study,
    UsageError,
    refuse_divergence,
    require,
    results,
    seed_setting,
    setting,
)
from optsde.study.tasks import TaskSettings, build_task

Curves = dict[str, np.ndarray]  # of each arm, train loss [seeds, grid]
SHOWN_TIMES = 4  # columns of the table
TASK = ("widths",)  # settings of the built-in task, besides those of all studies
COARSE = "_coarse"  # ends the name of an SDE's arm at twice its step, in all seeds


class Settings(TaskSettings, Seeds):
    optimizer: optsde.Optimizer = setting(
        optsde.Adam(lr=1e-3, b1=0.9, b2=0.99), "of the base run"
    )
    batch_size: int = setting(8, "of the base run", at_least=1)
    widths: Integers = setting(
        (64,), "of the hidden layers, where model is mlp", at_least=1
    )
    ells: Integers = setting(
        (1, 2, 4, 8),
        "of SVAG; 1 is the plain run",
        at_least=1,
        entries=2,
        distinct=True,
    )
    small_batches: Integers = setting(
        (2, 1), "also run, by the scaling rule", at_least=1, distinct=True
    )
    sde_seeds: int = setting(
        32,
        "runs with noise of the data's covariance, at a full-batch gradient a step",
        at_least=2,
        needs="at least 2, for standard errors",
    )
    sde_pairs: int = setting(
        8,
        "at most so many of these also at half the step, on the same paths",
        at_least=2,
    )
    init_seed: int = seed_setting(0, "of the initial point, the same for all runs")
    times: Integers = setting(
        tuple(range(50, 401, 50)),
        "at which runs are compared, in steps of the base run",
        above=0,
        entries=1,
        rising=True,
    )
    curve_every: int = setting(10, "steps between points of the figure", at_least=1)
    substeps: int = setting(
        2,
        "Euler–Maruyama steps of the SDE in a base step, of those pairs; half as many "
        "of all",
        at_least=2,
        multiple_of=2,
    )
    sde_bound: float = setting(
        1.0,
        "on what halving the SDE's step changes",
        unit="% of loss",
        above=0,
        at_most=100,
    )
    bound: float = setting(
        3.0,
        "for 'the same as the SDE'",
        unit="% of loss",
        above=0,
        at_most=100,
    )
    dataset = "all_digits"
    seeds = 96

    def base_plan(self) -> optsde.Plan:
        """Returns the plan of the base run."""
        return optsde.Plan(
            optimizer=self.optimizer,
            batch_size=self.batch_size,
            horizon=max(self.times),
        )

    def demands(self):
        yield from super().demands()
        every = self.curve_every
        yield 1 in self.ells, "ells", "1 among them: it is the plain run"
        fine = all(time % every == 0 for time in self.times)
        yield fine, "times", f"multiples of curve_every={every}"
        fine = self.augment == "none"
        yield fine, "augment", "none: the SDE's noise is that of the plain examples"
        for name, plan in plans(self).items():
            steps = every / plan.dt
            culprit = "small_batches" if name.startswith("batch") else "ells"
            fine = abs(steps - round(steps)) < 1e-9
            yield fine, culprit, f"whole steps in curve_every={every}"


def of_plan(plan: optsde.Plan, **settings) -> Settings:
    """Returns the settings of a study whose base run is this plan, up to the last time.

    An SDE has no clipping and no average of the weights.
    """
    end = max(settings.get("times", Settings().times))
    require(end <= plan.horizon, "times", end, f"at most the horizon {plan.horizon:g}")

    class OfPlan(Settings):
        def base_plan(self):
            return dataclasses.replace(plan, horizon=max(self.times)).checked()

    return OfPlan(**results.of_plan(plan, settings, ("optimizer", "batch_size"), TASK))


def grid(s: Settings) -> np.ndarray:
    """Returns the times of the curves."""
    return np.arange(0, max(s.times) + 1, s.curve_every)


def svag_arm(ell: float) -> str:
    """Returns the name of the arm of SVAG(ℓ)."""
    return "discrete" if ell == 1 else f"ell{ell:g}"


def plans(s: Settings) -> dict[str, optsde.Plan]:
    """Returns a plan for each discrete arm, all rescaled from the base run's."""
    base = s.base_plan()
    arms = {svag_arm(ell): optsde.svag(base, ell) for ell in sorted(s.ells)}
    for batch in s.small_batches:
        arms[f"batch{batch}"] = optsde.scale(base, batch / s.batch_size)
    return arms


def is_adaptive(s: Settings) -> bool:
    """Returns whether noise sets the size of a step, and so the mean's share counts."""
    return s.optimizer.noise_exponent == 2


def arm_label(s: Settings, name: str) -> str:
    """Returns the words for an arm in tables and legends."""
    if name.endswith(COARSE):
        return f"{arm_label(s, name.removesuffix(COARSE))}, twice the step"
    if name.startswith("ell"):
        return f"SVAG ℓ = {name.removeprefix('ell')}"
    if name.startswith("batch"):
        return f"discrete, batch {name.removeprefix('batch')} by the rule"
    return {
        "discrete": f"discrete, batch {s.batch_size}",
        "gaussian": "discrete, Gaussian noise",
        "sde": "Itô SDE",
        "sde_signal": "Itô SDE, mean gradient in v",
    }[name]


def built_in(s: Settings) -> Task:
    """Returns the task of the settings; `widths` are those of an MLP."""
    options = {"hidden": s.widths, **s.options} if s.model == "mlp" else s.options
    return build_task(dataclasses.replace(s, options=options))


# ---- the runs


def simulate(s: Settings, rundir: RunDir, task: Task) -> Curves:
    """Returns the train loss [seeds, grid] of every arm.

    Each has seeds of its own, but for the two step sizes of an SDE, which share paths.
    """
    arms = plans(s)
    root, made = jax.random.key(s.seed), dynamics(s, task)
    print(what_is_run(s, task), end="\n\n", flush=True)
    numbers = {name: number for number, name in enumerate(made)}
    runs, rows = {}, []
    for name, arm in parts(made.items()):
        seeds = s.seeds if name in arms else s.sde_seeds
        number = numbers[name.removesuffix(COARSE)]
        keys = jax.random.split(jax.random.fold_in(root, number), seeds)
        if name in sdes(s):
            keys = keys[: pairs(s)]
        make = partial(run_arm, s, task, name, arm, keys)
        runs[name] = rundir.once(name, make)["train_loss"]
        means = zip(grid(s).tolist(), runs[name].mean(axis=0).tolist(), strict=True)
        rows += [{"arm": name, "time": time, "loss": loss} for time, loss in means]
        rundir.write_rows(rows)
    return runs


def what_is_run(s: Settings, task: Task) -> str:
    """Returns the plan beside SVAG's finest, and what each arm costs."""
    arms = plans(s)
    finest = arms[svag_arm(max(s.ells))]
    return f"{optsde.explain(arms['discrete'], finest)}\n\n{costs(s, task.size)}"


def costs(s: Settings, size: int) -> str:
    """Returns how many gradients of examples each arm takes, of a set of this size.

    A step of an SDE, and one with Gaussian noise, is a pass over the whole set.
    """
    arms = plans(s)
    base = arms["discrete"]
    rows = {}
    for name, plan in arms.items():
        draws = 1 if plan.noise_gain == 1 else 2
        rows[name] = s.seeds, plan.steps, draws * plan.batch_size
    for name in sdes(s):
        rows[name + COARSE] = s.sde_seeds, base.steps * s.substeps // 2, size
        rows[name] = pairs(s), base.steps * s.substeps, size
    rows["gaussian"] = s.sde_seeds, base.steps, size
    cells = []
    for name, (runs, steps, examples) in rows.items():
        times = runs * steps * examples / (s.seeds * base.steps * base.batch_size)
        numbers = f"{runs}", f"{steps:,}", f"{examples:,}", f"{times:.3g}"
        cells.append([arm_label(s, name), *numbers])
    header = ["cost", "runs", "steps", "gradients a step", "× the plain runs"]
    return table(header, cells, "lrrrr")


def show_costs(s: Settings, task: Task | None = None) -> None:
    """Prints what would be run, and what it costs."""
    print(what_is_run(s, built_in(s) if task is None else task))


def sdes(s: Settings) -> dict[str, bool]:
    """Returns the SDEs by name, and whether each keeps the mean gradient in v."""
    kinds = {"sde": False, "sde_signal": True}
    return kinds if is_adaptive(s) else {"sde": False}


def dynamics(s: Settings, task: Task) -> dict[str, Dynamics]:
    """Returns what every arm runs; adaptive methods have a second SDE.

    Each SDE is run at two step sizes, on the same Brownian paths.
    """
    params = task.init(jax.random.key(s.init_seed))
    sampler = gradients.minibatch(task.losses, task.train)
    arms = plans(s)
    runs = {name: optsde.discrete(arm, sampler, params) for name, arm in arms.items()}
    try:
        law = task.law(s.batch_size)
    except ValueError as error:
        raise UsageError(f"--config.model={s.model}: {error}") from None
    base = arms["discrete"]
    for name, keep_signal in sdes(s).items():
        make = partial(optsde.sde, base, law, params, keep_signal=keep_signal)
        runs[name] = make(s.substeps)
        runs[name + COARSE] = make(s.substeps // 2, parts=2)
    runs["gaussian"] = optsde.discrete(base, gradients.drawn_from(task.law), params)
    return runs


def run_arm(
    s: Settings, task: Task, name: str, arm: Dynamics, keys: jax.Array
) -> Curves:
    """Returns the train loss of one arm."""
    title = arm_label(s, name)
    loss = optsde.fit(
        arm,
        keys,
        max(s.times),
        probes=[task.train_loss().at(grid(s).tolist())],
        progress=optsde.Progress(f"{title:43}"),
    ).metrics["train_loss"]
    refuse_divergence(loss, title, "try a smaller --config.optimizer.lr")
    return {"train_loss": loss.values}


# ---- what is made of them


def pairs(s: Settings) -> int:
    """Returns how many paths of an SDE are run at both step sizes: some, or all."""
    return s.sde_pairs if s.sde_pairs + 2 <= s.sde_seeds else s.sde_seeds


def limit(coarse: np.ndarray, fine: np.ndarray) -> Estimate:
    """Returns the mean 2·X_{h/2} − X_h of runs [seeds, …], the first on shared paths.

    The error of this mean is of the order h² (Talay and Tubaro 1990). It is the mean of
    X_h in all runs, and twice the mean of X_{h/2} − X_h in those that have both.
    """
    both, share = coarse[: len(fine)], len(fine) / len(coarse)
    paired = estimate(both + 2 / share * (fine - both))
    if share == 1:
        return paired
    rest = estimate(coarse[len(fine) :])
    return combination((share, 1 - share), (paired, rest))


def estimates(s: Settings, runs: Curves, times) -> dict[str, Estimate]:
    """Returns the mean loss of each arm at some of the times, of SDEs in the limit."""
    index = np.searchsorted(grid(s), times)
    at = {name: run[:, index] for name, run in runs.items()}
    return {
        name: limit(at[name + COARSE], run) if name + COARSE in at else estimate(run)
        for name, run in at.items()
        if not name.endswith(COARSE)
    }


def tables(s: Settings, runs: Curves) -> Iterator[str]:
    count = len(s.times)
    few = np.unique(np.linspace(0, count - 1, SHOWN_TIMES).round().astype(int))
    times = np.array(s.times)[few]
    at = estimates(s, runs, times)
    losses = {arm_label(s, name): x for name, x in at.items()}
    yield table_of("train loss", times, losses, 4)
    yield table_of("discrete run above the SDE, % of loss", times, reasons(at), 2)


def table_of(title: str, times, rows: dict[str, Estimate], places: int) -> str:
    """Returns a table of estimates over time, a row for each name."""
    header = [title, *(f"t = {t:g}" for t in times)]
    lines = [[k, *(plus_minus(x, places) for x in v.each())] for k, v in rows.items()]
    return table(header, lines, "l" + "r" * len(times))


def reasons(at: dict[str, Estimate]) -> dict[str, Estimate]:
    """Returns the gap from the SDE to the discrete run, and its two parts, in %."""
    run, gaussian, sde = at["discrete"], at["gaussian"], at["sde"]
    gaps = {
        "in all": run - sde,
        "by the shape of the noise": run - gaussian,
        "by finite steps": gaussian - sde,
    }
    return {reason: 100 * gap / sde.mean for reason, gap in gaps.items()}


def claims(s: Settings, runs: Curves) -> Iterator[Verdict]:
    at = estimates(s, runs, s.times)
    ells = [svag_arm(ell) for ell in sorted(s.ells)]
    adaptive, at_the_end = is_adaptive(s), "% of loss, at the end"

    def same(claim: str, a: str, b: str) -> Verdict:
        return all_agree(claim, percent(at[a], at[b]).each(), s.bound, "% of loss")

    index = np.searchsorted(grid(s), s.times)
    for name in runs:
        if name + COARSE in runs:
            fine, coarse = (runs[x][:, index] for x in (name, name + COARSE))
            halving = percent_paired(coarse[: len(fine)], fine).each()
            claim = f"{name}_has_converged"
            yield all_agree(claim, halving, s.sde_bound, "% of loss")
    yield same(f"{ells[-1]}_matches_sde", ells[-1], "sde")
    yield same("discrete_matches_sde", "discrete", "sde")
    yield same("discrete_matches_gaussian", "discrete", "gaussian")
    if adaptive:
        yield same("discrete_matches_sde_with_signal", "discrete", "sde_signal")
        for coarse, fine in itertools.pairwise(ells):
            last = fine == ells[-1] and len(ells) > 2
            claim = f"{coarse}_not_below_{fine}" if last else f"{coarse}_above_{fine}"
            gap = percent(at[coarse], at[fine]).at(-1)
            yield above(claim, gap, -1.0 if last else 0.0, at_the_end)
    for batch in s.small_batches:
        kappa, name = batch / s.batch_size, f"batch{batch}"
        twin = svag_arm(kappa ** (-1 / s.optimizer.noise_exponent))
        if twin in ells:
            yield same(f"{name}_matches_{twin}", name, twin)
        if adaptive and kappa <= 0.5:
            claim = f"{name}_gap_below_{2 * kappa:g}_of_discrete"
            slack = gap_slack(at["discrete"], at["sde"], at[name], 2 * kappa)
            yield above(claim, slack.at(-1), 0.0, at_the_end)


def gap_slack(base: Estimate, sde: Estimate, small: Estimate, share: float):
    """Returns share·(base − sde) − (small − sde), in percent of the SDE's loss."""
    slack = combination((share, 1 - share, -1.0), (base, sde, small))
    return 100 * slack / sde.mean


def figure(s: Settings, runs: Curves, path: Path) -> None:
    """Draws the loss on the common clock, and its distance from the SDE."""
    drawing, (left, right) = new_figure(2, height=5.2)
    times, styles = grid(s), line_styles(s)
    at = estimates(s, runs, s.times)
    apart = {name: percent(x, at["sde"]) for name, x in at.items() if name != "sde"}
    nearest_last = sorted(apart, key=lambda name: -abs(apart[name].mean[-1]))
    shifts = 0.4 * np.diff([0, *s.times]).min() * np.linspace(-0.5, 0.5, len(apart))
    for name, curve in estimates(s, runs, times).items():
        band(left, times, curve, label=arm_label(s, name), **styles[name])
    for name, shift in zip(nearest_last, shifts, strict=True):
        thin = dict(lw=0.9, ms=3.5, capsize=0)
        looks: dict[str, Any] = dict(ls="-") | styles[name] | thin
        points(right, np.array(s.times) + shift, apart[name], **looks)
    plain_log_axis(left)
    spans(right, [(-s.bound, s.bound)], along="y")
    right.axhline(0, color="black", lw=1.8)
    clock, optimizer = "time, in steps of the base run", type(s.optimizer).__name__
    label(
        left,
        x=clock,
        y="train loss",
        title=f"{optimizer} on one clock, bands 95%",
    )
    shared_legend(drawing, left, columns=3)
    label(
        right,
        x=clock,
        y="difference from the SDE, % of loss",
        title=f"grey: ±{s.bound:g}%, stated beforehand; bars 95%",
    )
    left.set_xlim(0, times[-1])
    save(drawing, path)


def line_styles(s: Settings) -> dict[str, dict]:
    """Returns colour and dashes of each arm: SVAG in full, small batches dotted."""
    names = [svag_arm(ell) for ell in sorted(s.ells)]
    colours = zip(names, itertools.cycle(COLOURS[:-2]), strict=False)
    styles: dict[str, dict] = {name: dict(colour=colour) for name, colour in colours}
    styles["gaussian"] = styles["discrete"] | dict(ls="-.")
    styles["sde"] = dict(colour="black")
    styles["sde_signal"] = dict(colour="black", ls="--", lw=1.4)
    dotted = dict(ls=(0, (1, 1.2)), lw=2.6)
    colours = zip(s.small_batches, itertools.cycle(COLOURS[-2::-1]), strict=False)
    return styles | {
        f"batch{b}": dict(colour=colour, **dotted) for b, colour in colours
    }


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"svag": figure},
    task=built_in,
    dry_run=show_costs,
)
