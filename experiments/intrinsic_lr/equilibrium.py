"""Do norms and effective learning rates go where the noise on the sphere says?

The prediction is √(λ_e (2 − λ_e)/(Ḡ + Tr Σ̄)) with signal and noise measured by draws
that the run does not see. That E‖w‖⁴ matches the gradients of the run itself would test
no more than that the run is stationary.
"""

import numpy as np

from experiments.intrinsic_lr import nets
from experiments.intrinsic_lr.settings import Averaged, Weighed
from optsde.analysis import agrees, percent_each, plots, stack, table
from optsde.measure import intrinsic_rates
from optsde.optimizers import SGD
from optsde.study import Numbers, Study, panels, setting


class Predicted(Averaged, Weighed):
    """Settings of a study that predicts the effective lr from signal and noise."""

    bound: float = setting(
        2.0, "on the departure", unit="% of effective lr", above=0, at_most=100
    )


class Settings(Predicted):
    lrs: Numbers = setting((0.1, 0.1, 0.1), "of each arm", above=0, entries=1)
    decays: Numbers = setting((0.01, 0.03, 0.1), "of each arm", above=0, like="lrs")


def arms(s):
    for lr, decay in zip(s.lrs, s.decays, strict=True):
        yield s.arm(f"{lr * decay:.3g}", SGD(lr=lr, weight_decay=decay))


def simulate(s, rundir, task):
    return train_weighed(s, rundir, task, list(arms(s)))


def train_weighed(s, rundir, task, arms):
    """Returns the runs of all arms, with signal and noise of their later part."""
    noise = nets.noise_probe(s, task, arms[0], lambda step: step > s.late)
    return nets.train(s, rundir, task, arms, [noise])


def predicted(s, run, signal=True):
    """Returns √(λ_e (2 − λ_e)/(a Ḡ + Tr Σ̄)) [seeds]; else √(2 λ_e/Tr Σ̄)."""
    rates = intrinsic_rates(run.arm.plan.optimizer)
    push = s.average(run.noise)
    if not signal:
        return np.sqrt(2 * rates.intrinsic / push)
    push = push + rates.share * s.average(run.signal)
    return np.sqrt(rates.intrinsic * (2 - rates.intrinsic) / push)


def departure(s, run, signal=True):
    """Returns how far the effective lr is from the predicted one, in percent."""
    return percent_each(s.average(run.effective_lr), predicted(s, run, signal))


def ratio(s, run):
    """Returns Ḡ/Tr Σ̄ of one batch [seeds]."""
    return s.average(run.signal) / s.average(run.noise)


def tables(s, runs):
    rows = []
    for name, run in runs.items():
        lrs = s.average(run.effective_lr), predicted(s, run), predicted(s, run, False)
        cells = [nets.shown(lr, "effective_lr") for lr in lrs]
        others = s.average(run.noise), ratio(s, run)
        losses = s.average(run.train_loss), s.average(run.test_loss)
        cells += [nets.shown(x) for x in (*others, *losses)]
        rows.append([name, run.arm.plan.optimizer.lr, *cells])
    header = ["λ_e", "lr", "10³ × effective lr", "predicted", "without Ḡ", "Tr Σ̄"]
    header += ["Ḡ/Tr Σ̄", "train loss", "held-out loss"]
    yield table(header, rows, "rrrrrrrrr")


def claims(s, runs):
    """The second leaves out Ḡ, as the SDE does: it must fail where Ḡ counts."""
    unit = "% of effective lr"
    for name, run in runs.items():
        yield agrees(f"equilibrium_at_{name}", departure(s, run), s.bound, unit)
        claim = f"without_the_gradients_share_at_{name}"
        small = bool(50 * ratio(s, run).mean() < s.bound)
        yield agrees(claim, departure(s, run, False), s.bound, unit, small)


def figure(s, runs, path, symbol="λₑ = ", axis="intrinsic learning rate λₑ"):
    canvas, (left, right) = plots.new_figure(2)
    colours = panels.bands(
        left, runs, "effective_lr", scale=1e3, group=lambda run: symbol + run.arm.name
    )
    for name, run in runs.items():
        level = 1e3 * predicted(s, run).mean()
        left.plot([s.late, s.steps], [level] * 2, "--", color=colours[name], lw=2.5)
    left.plot([], [], "--", color="0.3", lw=2.5, label="predicted")
    plots.plain_log_axis(left)
    plots.label(left, x="step", y="effective learning rate × 10³", legend="best")
    places = np.arange(len(runs))
    for shift, signal, marker, colour, words in (
        (-0.08, True, "o", plots.COLOURS[0], "predicted from Ḡ and Tr Σ̄"),
        (0.08, False, "s", plots.COLOURS[5], "from Tr Σ̄ alone, as the SDE has it"),
    ):
        y = stack(departure(s, run, signal) for run in runs.values())
        plots.points(
            right, places + shift, y, label=words, colour=colour, marker=marker
        )
    right.axhline(0, color="0.4", lw=1)
    right.set_xticks(places, [name.replace(", ", "\n") for name in runs])
    right.set_xlim(-0.5, len(runs) - 0.5)
    plots.label(right, x=axis, y="measured − predicted, %", legend="best")
    plots.save(canvas, path)


study = Study(
    __name__,
    Settings,
    simulate,
    task=nets.build_task,
    by_accuracy=True,
    tables=tables,
    claims=claims,
    figures={"equilibrium": figure},
)
