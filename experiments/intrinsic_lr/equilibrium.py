"""Do norms and effective learning rates go where the noise on the sphere says?

The prediction is √(λ_e (2 − λ_e)/(Ḡ + Tr Σ̄)) with signal and noise measured by draws
that the run does not see. That E‖w‖⁴ matches the gradients of the run itself would test
no more than that the run is stationary.
"""

import numpy as np
from ml_collections import ConfigDict

from experiments.intrinsic_lr import runs
from experiments.intrinsic_lr.runs import Arm, Curves, sgd
from experiments.intrinsic_lr.setting import build, check_arms, check_run
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import (
    Estimate,
    Verdict,
    agrees,
    estimate,
    interval,
    percent_each,
    plus_minus,
    table,
)
from optsde.analysis.plots import COLOURS, band, new_figure, plain_log_axis, save


def check(config: ConfigDict) -> None:
    check_run(config)
    check_arms(config, "lrs", "decays")
    require(config.bound > 0, config, "bound", "a percentage above 0")


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    setting, arms = build(config), arms_of(config)
    runs.report(config, setting, arms[0])
    first = config.window * config.steps
    curves = runs.train_arms(
        config, setting, rundir, arms, weighed=lambda step: step > first
    )
    print(levels_table(arms, curves, first))
    draw(arms, curves, first, rundir.figure("equilibrium"))
    return [v for arm in arms for v in judge(config, arm, curves[arm.name], first)]


def arms_of(config: ConfigDict) -> list[Arm]:
    pairs = zip(config.lrs, config.decays, strict=True)
    return [Arm(f"{lr * decay:.3g}", sgd(lr, decay)) for lr, decay in pairs]


def judge(config, arm: Arm, curves: Curves, first: float) -> list[Verdict]:
    """Measured over predicted effective lr; the second leaves out Ḡ, as the SDE does.

    That one must fail where Ḡ/Tr Σ̄ is more than twice the bound.
    """
    name = arm.name
    with_signal, without = (departure(arm, curves, first, s) for s in (True, False))
    share = np.mean(mean_ratio(curves, first))
    unit = "% of effective lr"
    return [
        agrees(f"equilibrium_at_{name}", with_signal, config.bound, unit),
        agrees(
            f"without_the_gradients_share_at_{name}",
            without,
            config.bound,
            unit,
            expected=bool(50 * share < config.bound),
        ),
    ]


def departure(arm: Arm, curves: Curves, first: float, signal: bool) -> Estimate:
    """Of the measured effective lr from the predicted one, in percent, over seeds."""
    measured = runs.mean_over(curves, runs.effective_lr(arm, curves), first)
    return percent_each(measured, predicted(arm, curves, first, signal))


def predicted(arm: Arm, curves: Curves, first: float, signal: bool = True):
    """[seeds]: √(λ_e (2 − λ_e)/(a Ḡ + Tr Σ̄)); without the signal √(2 λ_e/Tr Σ̄)."""
    from optsde.measure import intrinsic_rates

    rates = intrinsic_rates(arm.at(int(first)))
    push = runs.mean_over(curves, curves["noise"], first)
    if not signal:
        return np.sqrt(2 * rates.intrinsic / push)
    push = push + rates.share * runs.mean_over(curves, curves["signal"], first)
    return np.sqrt(rates.intrinsic * (2 - rates.intrinsic) / push)


def mean_ratio(curves: Curves, first: float) -> np.ndarray:
    """[seeds]: Ḡ/Tr Σ̄ of one batch."""
    return runs.mean_over(curves, curves["signal"], first) / runs.mean_over(
        curves, curves["noise"], first
    )


def levels_table(arms: list[Arm], curves: dict[str, Curves], first: float) -> str:
    rows = []
    for arm in arms:
        mine = curves[arm.name]
        lrs = 1e3 * runs.mean_over(mine, runs.effective_lr(arm, mine), first)
        cells = [arm.name, arm.optimizer.lr, shown(lrs)]
        cells += [shown(1e3 * predicted(arm, mine, first, s)) for s in (True, False)]
        cells += [shown(runs.mean_over(mine, mine["noise"], first))]
        cells += [shown(mean_ratio(mine, first))]
        for name in ("train_loss", "test_loss"):
            cells.append(shown(runs.mean_over(mine, mine[name], first)))
        rows.append(cells)
    header = ["λ_e", "lr", "10³ × effective lr", "predicted", "without Ḡ", "Tr Σ̄"]
    header += ["Ḡ/Tr Σ̄", "train loss", "held-out loss"]
    return table(header, rows, "rrrrrrrrr")


def shown(values) -> str:
    return plus_minus(estimate(values), beyond=2)


def draw(arms: list[Arm], curves, first: float, path, name: str = "λₑ = ") -> None:
    """`name` stands before the name of an arm in the legend."""
    figure, (left, right) = new_figure(2)
    for arm, colour in zip(arms, COLOURS, strict=False):
        mine = curves[arm.name]
        lrs = estimate(1e3 * runs.effective_lr(arm, mine))
        label = name + arm.name
        band(left, mine["step"], lrs, label=label, colour=colour)
        level = 1e3 * predicted(arm, mine, first).mean()
        left.plot([first, mine["step"][-1]], [level] * 2, "--", color=colour, lw=2.5)
    left.plot([], [], "--", color="0.3", lw=2.5, label="predicted")
    plain_log_axis(left)
    left.set(xlabel="step", ylabel="effective learning rate × 10³")
    left.legend(fontsize=10)
    places = np.arange(len(arms))
    for shift, signal, colour, marker, label in (
        (-0.08, True, COLOURS[0], "o", "predicted from Ḡ and Tr Σ̄"),
        (0.08, False, COLOURS[5], "s", "from Tr Σ̄ alone, as the SDE has it"),
    ):
        found = [departure(arm, curves[arm.name], first, signal) for arm in arms]
        right.errorbar(
            places + shift,
            [float(e.mean) for e in found],
            [interval(e).high - float(e.mean) for e in found],
            fmt=marker,
            color=colour,
            capsize=3,
            label=label,
        )
    right.axhline(0, color="0.4", lw=1)
    right.set_xticks(places, [arm.name.replace(", ", "\n") for arm in arms])
    right.set_xlim(-0.5, len(arms) - 0.5)
    right.set(
        xlabel="intrinsic learning rate λₑ" if name else "",
        ylabel="measured − predicted, %",
    )
    right.legend(fontsize=10)
    save(figure, path)
