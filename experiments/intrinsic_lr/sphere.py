"""Known noise on a sphere: the run, its SDE, and what closed forms say of both.

Tr Σ̄ is the same everywhere, so that γ = ‖w‖⁴/η² follows its closed form, and ‖w‖⁴ ends
at η² Tr Σ̄/(2 λ_e). Runs start with other norms than those, and arms of one λ_e must end
alike in effective lr and loss.
"""

import dataclasses
import itertools
from functools import partial

import jax.numpy as jnp
import numpy as np

from experiments.intrinsic_lr import nets
from optsde import gradients
from optsde.analysis import agrees, estimate, percent, plots, table
from optsde.checks import LARGEST
from optsde.dynamics import discrete
from optsde.dynamics.sphere import gamma_at, sphere
from optsde.optimizers import SGD
from optsde.plans import Plan
from optsde.problems.sphere import curvatures, loss_of, tangent_noise
from optsde.run import Progress, ensemble, parts
from optsde.study import Numbers, Seeds, Study, refuse_divergence, setting


class Settings(Seeds):
    lrs: Numbers = setting((0.1, 0.1, 0.01, 0.4), "of each arm", above=0, entries=1)
    decays: Numbers = setting(
        (0.1, 0.01, 0.1, 0.025), "of each arm", above=0, like="lrs"
    )
    starts: Numbers = setting(
        (2.0, 0.7, 2.0, 0.7),
        "‖w‖ at the start of each arm, of that at equilibrium",
        above=0,
        like="lrs",
    )
    dimension: int = setting(20, "of w; the noise has variance 1 along it", at_least=2)
    curvature: float = setting(1.0, "the largest one", at_least=0)
    looks: int = setting(40, "measurements of a run", at_least=4)
    length: float = setting(3.0, "of a run", unit="1/λ_e", above=0)
    substeps: int = setting(1, "of the SDE in a step of the run", at_least=1)
    bound: float = setting(
        1.0, "on departures", unit="% of effective lr", above=0, at_most=100
    )
    seeds = 2048

    def demands(self):
        yield from super().demands()
        fine = all(x.intrinsic < 0.1 and x.every >= 1 for x in cases(self))
        words = f"times decays below 0.1, and a step to each of {self.looks} looks"
        yield fine, "lrs", words
        longest = max(case.every for case in cases(self)) * self.looks
        yield longest <= LARGEST, "length", f"at most {LARGEST} steps of each arm"


@dataclasses.dataclass(frozen=True)
class Case:
    """An arm: what is run, and what closed forms say of it."""

    s: Settings
    lr: float
    decay: float
    start: float

    @property
    def name(self):
        return f"lr {self.lr:g}, decay {self.decay:g}"

    @property
    def intrinsic(self):
        """λ_e."""
        return self.lr * self.decay

    @property
    def every(self):
        """Steps between measurements."""
        return int(self.s.length / self.intrinsic / self.s.looks)

    @property
    def times(self):
        return self.every * np.arange(1, self.s.looks + 1)

    @property
    def still(self):
        """γ at equilibrium."""
        return (self.s.dimension - 1) / (2 * self.intrinsic)

    def closed_form(self, at):
        """Returns the effective lr at these times, γ^-½."""
        trace = self.s.dimension - 1
        return gamma_at(at, self.start**4 * self.still, trace, self.intrinsic) ** -0.5


def cases(s):
    return [Case(s, *each) for each in zip(s.lrs, s.decays, s.starts, strict=True)]


def simulate(s, rundir):
    return {
        (case.name, arm): rundir.once(
            f"{case.name}: {arm}", partial(measured, s, case, arm)
        )
        for case, arm in parts([*itertools.product(cases(s), ("run", "sde"))])
    }


def measured(s, case, arm):
    """Returns the effective lr and the loss of a run or its SDE [seeds, times]."""
    loss, noise = loss_of(curvatures(s.dimension, s.curvature)), tangent_noise()
    plan = Plan(
        optimizer=SGD(lr=case.lr, weight_decay=case.decay),
        batch_size=1,
        horizon=s.length / case.intrinsic,
    )
    size = case.start * (case.lr**2 * case.still) ** 0.25
    start = jnp.full(s.dimension, size / np.sqrt(s.dimension))

    def of_run(state):
        lr = case.lr / jnp.sum(state.params**2)
        return {"effective_lr": lr, "loss": loss(state.params)}

    def of_sde(state):
        return {"effective_lr": state.gamma**-0.5, "loss": loss(state.direction)}

    if arm == "run":
        dynamics = discrete(plan, gradients.gaussian(loss, noise), start)
    else:
        law = gradients.from_covariance(loss, noise)
        dynamics = sphere(plan, law, start, s.substeps, keep_signal=True)
    label = f"{case.name}: {arm}"
    found = ensemble(
        dynamics,
        s.keys(),
        case.times,
        of_run if arm == "run" else of_sde,
        progress=Progress(f"{label:28}"),
    )
    refuse_divergence(found, label, "try a smaller lr or curvature")
    return found.values


def late(s, values):
    """Returns the means over the last third of the times, at equilibrium [seeds]."""
    return values[:, -(s.looks // 3) :].mean(axis=1)


def tables(s, runs):
    rows = []
    for case in cases(s):
        cells = [case.name, f"{case.intrinsic:g}", f"{1e3 * case.still**-0.5:.3f}"]
        for arm in ("run", "sde"):
            for metric, values in runs[case.name, arm].items():
                cells.append(nets.shown(late(s, values), metric))
        rows.append(cells)
    header = ["arm", "λ_e", "√(2λ_e/Tr Σ̄) · 10³"]
    for arm in ("run", "SDE"):
        header += [f"10³ × effective lr, {arm}", f"loss, {arm}"]
    yield table(header, rows, "lrrrrrr")


def claims(s, runs):
    for case in cases(s):
        run, sde = runs[case.name, "run"], runs[case.name, "sde"]
        name, unit = f"{case.lr:g}_{case.decay:g}", "% of effective lr"
        lrs, expected = run["effective_lr"], case.closed_form(case.times)
        end = estimate(late(s, 100 * (lrs / case.still**-0.5) - 100))
        yield agrees(f"equilibrium_{name}", end, s.bound, unit)
        furthest = np.argmax(np.abs(lrs.mean(axis=0) / expected - 1))
        path = estimate(100 * (lrs / expected)[:, furthest] - 100)
        claim = f"closed_form_at_every_time_{name}"
        yield agrees(claim, path, 2 * s.bound, unit)
        losses = (estimate(late(s, arm["loss"])) for arm in (run, sde))
        claim = f"sde_has_the_loss_{name}"
        yield agrees(claim, percent(*losses), 3 * s.bound, "% of loss")


def figure(s, runs, path):
    canvas, (left, right) = plots.new_figure(2)
    panels = (left, "effective_lr", 1e3), (right, "loss", 1)
    for number, case in enumerate(cases(s)):
        colour = plots.COLOURS[number % len(plots.COLOURS)]
        time = case.intrinsic * case.times
        for ax, metric, scale in panels:
            sde, run = (scale * runs[case.name, x][metric] for x in ("sde", "run"))
            plots.band(ax, time, estimate(sde), colour=colour, lw=1.0)
            words = f"{case.name}, λₑ = {case.intrinsic:g}"
            marks = dict(marker="os^Dv"[number % 5], ls="none", ms=5, label=words)
            ax.plot(time[::2], run.mean(axis=0)[::2], color=colour, **marks)
        dense = np.linspace(0, case.times[-1], 400)
        left.plot(case.intrinsic * dense, 1e3 * case.closed_form(dense), "k--", lw=1)
    left.plot([], [], "k--", lw=1, label="closed form")
    left.plot([], [], "-", color="0.4", lw=1, label="SDE")
    plots.plain_log_axis(left)
    x, y = "time in 1/λₑ", "effective learning rate × 10³"
    plots.label(left, x=x, y=y, legend="best", legend_title="marks: the run")
    plots.label(right, x=x, y="loss")
    plots.save(canvas, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"sphere": figure},
)
