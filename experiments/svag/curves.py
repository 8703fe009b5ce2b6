"""Does a plain run lie on its SDE, and does SVAG(ℓ) approach it as ℓ grows?

Li, Malladi and Arora (2021) and Malladi et al. (2022) compare plain runs with SVAG(ℓ),
which approaches the SDE; here the SDE is integrated too, with the exact covariance of
the data. Runs at smaller batches by the scaling rule belong on SVAG of the same κ. The
train loss of all of them stands on one clock, the steps of the base run.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

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
    plus_minus,
    table,
)
from optsde.analysis.plots import (
    COLOURS,
    band,
    label,
    new_figure,
    plain_log_axis,
    save,
    spans,
)
from optsde.dynamics import Dynamics
from optsde.run import Task
from optsde.study import (
    Integers,
    RunDir,
    Seeds,
    Study,
    UsageError,
    refuse_divergence,
    seed_setting,
    setting,
)
from optsde.study.tasks import TaskSettings, build_task

Curves = dict[str, np.ndarray]  # of each arm, train loss [seeds, grid]
SHOWN_TIMES = 4  # columns of the table


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
        "runs of the SDE, which costs a full-batch gradient a step",
        at_least=2,
        needs="at least 2, for standard errors",
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
        4, "Euler–Maruyama steps of the SDE in a base step", at_least=1
    )
    bound: float = setting(
        3.0,
        "for 'the same as the SDE'",
        unit="% of loss",
        above=0,
    )
    dataset = "all_digits"
    seeds = 96

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


def grid(s: Settings) -> np.ndarray:
    """Returns the times of the curves."""
    return np.arange(0, max(s.times) + 1, s.curve_every)


def svag_arm(ell: float) -> str:
    """Returns the name of the arm of SVAG(ℓ)."""
    return "discrete" if ell == 1 else f"ell{ell:g}"


def plans(s: Settings) -> dict[str, optsde.Plan]:
    """Returns a plan for each discrete arm, all rescaled from the base run's."""
    horizon = max(s.times)
    base = optsde.Plan(optimizer=s.optimizer, batch_size=s.batch_size, horizon=horizon)
    arms = {svag_arm(ell): optsde.svag(base, ell) for ell in sorted(s.ells)}
    for batch in s.small_batches:
        arms[f"batch{batch}"] = optsde.scale(base, batch / s.batch_size)
    return arms


def is_adaptive(s: Settings) -> bool:
    """Returns whether noise sets the size of a step, and so the mean's share counts."""
    return s.optimizer.noise_exponent == 2


def arm_label(s: Settings, name: str) -> str:
    """Returns the words for an arm in tables and legends."""
    if name.startswith("ell"):
        return f"SVAG ℓ = {name.removeprefix('ell')}"
    if name.startswith("batch"):
        return f"discrete, batch {name.removeprefix('batch')} by the rule"
    return {
        "discrete": f"discrete, batch {s.batch_size}",
        "sde": "Itô SDE",
        "sde_signal": "Itô SDE, mean gradient in v",
    }[name]


def task(s: Settings) -> Task:
    """Returns the task of the settings; `widths` are those of an MLP."""
    options = {"hidden": s.widths, **s.options} if s.model == "mlp" else s.options
    return build_task(dataclasses.replace(s, options=options))


# ---- the runs


def simulate(s: Settings, rundir: RunDir, task: Task) -> Curves:
    """Returns the train loss [seeds, grid] of every arm, each with seeds of its own."""
    arms = plans(s)
    finest = arms[svag_arm(max(s.ells))]
    print(optsde.explain(arms["discrete"], finest), end="\n\n", flush=True)
    root = jax.random.key(s.seed)
    runs = {}
    for number, (name, arm) in enumerate(dynamics(s, task).items()):
        seeds = s.sde_seeds if name.startswith("sde") else s.seeds
        keys = jax.random.split(jax.random.fold_in(root, number), seeds)
        make = partial(run_arm, s, rundir, task, name, arm, keys)
        runs[name] = rundir.once(name, make)["train_loss"]
    return runs


def dynamics(s: Settings, task: Task) -> dict[str, Dynamics]:
    """Returns what every arm runs; adaptive methods have a second SDE."""
    params = task.init(jax.random.key(s.init_seed))
    sampler = gradients.minibatch(task.losses, task.train)
    arms = plans(s)
    runs = {name: optsde.discrete(arm, sampler, params) for name, arm in arms.items()}
    try:
        law = task.law(s.batch_size)
    except ValueError as error:
        raise UsageError(f"--config.model={s.model}: {error}") from None
    base = arms["discrete"]
    runs["sde"] = optsde.sde(base, law, params, s.substeps)
    if is_adaptive(s):
        runs["sde_signal"] = optsde.sde(base, law, params, s.substeps, keep_signal=True)
    return runs


def run_arm(
    s: Settings, rundir: RunDir, task: Task, name: str, arm: Dynamics, keys: jax.Array
) -> Curves:
    """Returns the train loss of one arm, and logs its mean."""
    title = arm_label(s, name)
    loss = optsde.fit(
        arm,
        keys,
        max(s.times),
        probes=[task.train_loss().at(grid(s).tolist())],
        progress=optsde.Progress(f"{title:34}"),
    ).metrics["train_loss"]
    refuse_divergence(loss, title, "try a smaller --config.optimizer.lr")
    for time, mean in zip(loss.times, loss.values.mean(axis=0), strict=True):
        rundir.log(arm=name, time=float(time), loss=float(mean))
    return {"train_loss": loss.values}


# ---- what is made of them


def estimates(s: Settings, runs: Curves, times) -> dict[str, Estimate]:
    """Returns the mean loss of each arm at some of the times."""
    index = np.searchsorted(grid(s), times)
    return {name: estimate(curve[:, index]) for name, curve in runs.items()}


def tables(s: Settings, runs: Curves) -> Iterator[str]:
    count = len(s.times)
    few = np.unique(np.linspace(0, count - 1, SHOWN_TIMES).round().astype(int))
    times = np.array(s.times)[few]
    rows = [
        [arm_label(s, name), *(plus_minus(x, 4) for x in at.each())]
        for name, at in estimates(s, runs, times).items()
    ]
    header = ["train loss", *(f"t = {t:g}" for t in times)]
    yield table(header, rows, "l" + "r" * len(few))


def claims(s: Settings, runs: Curves) -> Iterator[Verdict]:
    at = estimates(s, runs, s.times)
    ells = [svag_arm(ell) for ell in sorted(s.ells)]
    adaptive, at_the_end = is_adaptive(s), "% of loss, at the end"

    def same(claim: str, a: str, b: str) -> Verdict:
        return all_agree(claim, percent(at[a], at[b]).each(), s.bound, "% of loss")

    yield same(f"{ells[-1]}_matches_sde", ells[-1], "sde")
    yield same("discrete_matches_sde", "discrete", "sde")
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
    drawing, (left, right) = new_figure(2, height=4.6)
    times, styles = grid(s), line_styles(s)
    for name, curve in runs.items():
        text = arm_label(s, name)
        band(left, times, estimate(curve), label=text, **styles[name])
        if name != "sde":
            x = percent(estimate(curve[:, 1:]), estimate(runs["sde"][:, 1:]))
            band(right, times[1:], x, label=text, **styles[name])
    plain_log_axis(left)
    spans(right, [(-s.bound, s.bound)], along="y")
    right.axhline(0, color="black", lw=1.8)
    clock, optimizer = "time, in steps of the base run", type(s.optimizer).__name__
    label(
        left,
        x=clock,
        y="train loss",
        title=f"{optimizer} on one clock, bands 95%",
        legend="upper right",
    )
    label(
        right,
        x=clock,
        y="difference from the SDE, % of loss",
        title=f"grey: ±{s.bound:g}%, stated beforehand",
    )
    for ax in (left, right):
        ax.set_xlim(0, times[-1])
    save(drawing, path)


def line_styles(s: Settings) -> dict[str, dict]:
    """Returns colour and dashes of each arm: SVAG in full, small batches dotted."""
    names = [svag_arm(ell) for ell in sorted(s.ells)]
    colours = zip(names, itertools.cycle(COLOURS[:-2]), strict=False)
    styles: dict[str, dict] = {name: dict(colour=colour) for name, colour in colours}
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
    task=task,
)
