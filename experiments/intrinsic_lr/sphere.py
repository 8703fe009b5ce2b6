"""Known noise on a sphere: the run, its SDE, and what closed forms say of both.

Tr Σ̄ is the same everywhere, so that γ = ‖w‖⁴/η² follows its closed form, and ‖w‖⁴ ends
at η² Tr Σ̄/(2 λ_e). Runs start with other norms than those, and arms of one λ_e must end
alike in effective lr and loss.
"""

from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.intrinsic_lr.equilibrium import shown
from experiments.intrinsic_lr.runs import sgd
from experiments.intrinsic_lr.setting import check_arms
from experiments.launch import refuse_divergence, require
from experiments.rundir import RunDir
from optsde.analysis import Estimate, Verdict, agrees, estimate, percent, table
from optsde.analysis.plots import COLOURS, band, new_figure, plain_log_axis, save
from optsde.problems import sphere as toy


class Case(NamedTuple):
    lr: float
    decay: float
    start: float  # ‖w‖ at the start, of that at equilibrium

    @property
    def intrinsic(self) -> float:
        return self.lr * self.decay

    @property
    def name(self) -> str:
        return f"lr {self.lr:g}, decay {self.decay:g}"


def check(config: ConfigDict) -> None:
    check_arms(config, "lrs", "decays", "starts")
    require(config.dimension >= 2, config, "dimension", "at least 2")
    require(config.seeds >= 2, config, "seeds", "at least 2, for intervals")
    require(config.looks >= 4, config, "looks", "at least 4")
    require(config.substeps >= 1, config, "substeps", "an integer ≥ 1")
    for name in ("length", "bound"):
        require(config[name] > 0, config, name, "a number above 0")
    for case in cases(config):
        require(
            case.intrinsic < 0.1 and times(config, case)[0] >= 1,
            config,
            "lrs",
            f"times decays below 0.1, and a step to each of {config.looks} looks",
        )


def cases(config: ConfigDict) -> list[Case]:
    settings = zip(config.lrs, config.decays, config.starts, strict=True)
    return [Case(*setting) for setting in settings]


def times(config: ConfigDict, case: Case) -> np.ndarray:
    every = int(config.length / case.intrinsic / config.looks)
    return every * np.arange(1, config.looks + 1)


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    for case in cases(config):
        if f"{case.name}/sde/loss" not in rundir.curves():
            rundir.add_curves(_both(config, case))
    held = rundir.curves()
    print(ends_table(config, held))
    draw(config, held, rundir.figure("sphere"))
    return [v for case in cases(config) for v in judge(config, case, held)]


def _both(config: ConfigDict, case: Case) -> dict[str, np.ndarray]:
    """Effective lr and loss of the run and of the SDE, [seeds, looks]."""
    from functools import partial

    import jax
    import jax.numpy as jnp

    from optsde import gradients
    from optsde.dynamics.sphere import sphere

    loss = toy.loss_of(toy.curvatures(config.dimension, config.curvature))
    noise = toy.tangent_noise()
    plan = optsde.Plan(
        optimizer=sgd(case.lr, case.decay),
        batch_size=1,
        horizon=config.length / case.intrinsic,
    )
    size = case.start * (case.lr**2 * still(config, case)) ** 0.25
    start = jnp.full(config.dimension, size / np.sqrt(config.dimension))
    law = gradients.from_covariance(loss, noise)
    arms = {
        "run": (
            optsde.discrete(plan, partial(gradients.gaussian, loss, noise), start),
            lambda s: {
                "effective_lr": case.lr / jnp.sum(s.params**2),
                "loss": loss(s.params),
            },
        ),
        "sde": (
            sphere(plan, law, start, config.substeps, keep_signal=True),
            lambda s: {"effective_lr": s.gamma**-0.5, "loss": loss(s.direction)},
        ),
    }
    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    out = {}
    for name, (dynamics, observe) in arms.items():
        label = f"{case.name}: {name}"
        found = optsde.ensemble(
            dynamics,
            keys,
            times(config, case),
            observe,
            progress=optsde.Progress(f"{label:28}"),
        )
        refuse_divergence(found, label, "try a smaller lr or curvature")
        out |= {f"{case.name}/{name}/{k}": v for k, v in found.values.items()}
    return out


def still(config: ConfigDict, case: Case) -> float:
    """γ at equilibrium."""
    return (config.dimension - 1) / (2 * case.intrinsic)


def closed_form(config: ConfigDict, case: Case, at: np.ndarray):
    """The effective lr at these times: γ^-½."""
    from optsde.dynamics.sphere import gamma_at

    end = still(config, case)
    trace = config.dimension - 1
    gamma = gamma_at(at, case.start**4 * end, trace, case.intrinsic)
    return gamma**-0.5


def late(config: ConfigDict, values: np.ndarray) -> Estimate:
    """Over the last third of the looks, at equilibrium."""
    return estimate(values[:, -(config.looks // 3) :].mean(axis=1))


def judge(config: ConfigDict, case: Case, held) -> list[Verdict]:
    name, at = f"{case.lr:g}_{case.decay:g}", times(config, case)
    series = {
        arm: [held[f"{case.name}/{arm}/{x}"] for x in ("effective_lr", "loss")]
        for arm in ("run", "sde")
    }
    lrs = series["run"][0]
    expected = closed_form(config, case, at)
    furthest = np.argmax(np.abs(lrs.mean(axis=0) / expected - 1))
    path = estimate(100 * (lrs / expected)[:, furthest] - 100)
    end = late(config, 100 * (lrs / still(config, case) ** -0.5) - 100)
    loss = percent(late(config, series["run"][1]), late(config, series["sde"][1]))
    unit = "% of effective lr"
    return [
        agrees(f"equilibrium_{name}", end, config.bound, unit),
        agrees(f"closed_form_at_every_time_{name}", path, 2 * config.bound, unit),
        agrees(f"sde_has_the_loss_{name}", loss, 3 * config.bound, "% of loss"),
    ]


def ends_table(config: ConfigDict, held) -> str:
    rows = []
    for case in cases(config):
        cells = [case.name, f"{case.intrinsic:g}"]
        cells.append(f"{1e3 * still(config, case) ** -0.5:.3f}")
        for arm in ("run", "sde"):
            lrs, loss = (
                held[f"{case.name}/{arm}/{x}"] for x in ("effective_lr", "loss")
            )
            ends = slice(-(config.looks // 3), None)
            cells += [shown(1e3 * lrs[:, ends].mean(1)), shown(loss[:, ends].mean(1))]
        rows.append(cells)
    header = ["arm", "λ_e", "√(2λ_e/Tr Σ̄) · 10³"]
    header += [
        f"{x}, {arm}" for arm in ("run", "SDE") for x in ("10³ × effective lr", "loss")
    ]
    return table(header, rows, "lrrrrrr")


def draw(config: ConfigDict, held, path) -> None:
    figure, (left, right) = new_figure(2)
    marks = "os^Dv"
    for number, (case, colour) in enumerate(zip(cases(config), COLOURS, strict=False)):
        at = times(config, case)
        time = case.intrinsic * at
        dense = np.linspace(0, at[-1], 400)
        for ax, what in ((left, "effective_lr"), (right, "loss")):
            scale = 1e3 if what == "effective_lr" else 1
            sde, discrete = (
                estimate(scale * held[f"{case.name}/{arm}/{what}"])
                for arm in ("sde", "run")
            )
            band(ax, time, sde, label="", colour=colour, lw=1.0)
            ax.plot(time[::2], discrete.mean[::2], marks[number % 5], color=colour,
                    ms=5, label=f"{case.name}, λₑ = {case.intrinsic:g}")  # fmt: skip
        left.plot(case.intrinsic * dense, 1e3 * closed_form(config, case, dense), "--",
                  color="black", lw=1)  # fmt: skip
    left.plot([], [], "k--", lw=1, label="closed form")
    left.plot([], [], "-", color="0.4", lw=1, label="SDE")
    plain_log_axis(left)
    left.set(ylabel="effective learning rate × 10³")
    left.legend(fontsize=8.5, title="marks: the run", title_fontsize=9)
    right.set(ylabel="loss")
    for ax in (left, right):
        ax.set(xlabel="time in 1/λₑ")
    save(figure, path)
