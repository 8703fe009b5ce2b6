"""Does it matter by which learning rates a run has come to its last one?

Runs with several drops end, after a time of a few 1/λ_e, where the run ends that had
the last lr from the start: a large lr early is only a faster way to the equilibrium.
"""

import numpy as np
from ml_collections import ConfigDict

from experiments.intrinsic_lr import runs
from experiments.intrinsic_lr.equilibrium import shown
from experiments.intrinsic_lr.runs import Arm, Curves, sgd
from experiments.intrinsic_lr.setting import build, check_multiple, check_run
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import Verdict, above, agrees, estimate, percent_paired, table
from optsde.analysis.plots import COLOURS, band, new_figure, plain_log_axis, save

LOSSES = ("train_loss", "test_loss")


def check(config: ConfigDict) -> None:
    check_run(config)
    check_multiple(config, "first_drop", "second_drop")
    require(
        config.first_drop < config.second_drop < config.window * config.steps,
        config,
        "second_drop",
        "a step after first_drop and before the window",
    )
    lrs = config.lr < config.middle_lr < config.large_lr
    require(lrs and config.lr > 0, config, "middle_lr", "a number from lr to large_lr")
    require(config.decay > 0, config, "decay", "a number above 0")


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    setting, arms = build(config), arms_of(config)
    runs.report(config, setting, arms[0])
    curves = runs.train_arms(config, setting, rundir, arms)
    print(averages_table(config, arms, curves))
    draw(config, arms, curves, rundir.figure("only_the_last"))
    return judge(config, arms, curves)


def arms_of(config: ConfigDict) -> list[Arm]:
    """The last lr from the start; one drop to it; two drops."""
    lr, middle, large = config.lr, config.middle_lr, config.large_lr
    start = sgd(large, config.decay)
    two = ((config.first_drop, middle), (config.second_drop, lr))
    return [
        Arm(f"lr {lr:g}", sgd(lr, config.decay)),
        Arm(f"lr {large:g}, {lr:g}", start, drops=((config.second_drop, lr),)),
        Arm(f"lr {large:g}, {middle:g}, {lr:g}", start, drops=two),
    ]


def judge(config: ConfigDict, arms: list[Arm], curves: dict[str, Curves]):
    first = config.window * config.steps
    plain, *dropped = arms
    verdicts = []

    def average(arm, name, *window):
        mine = curves[arm.name]
        series = mine | {"effective_lr": runs.effective_lr(arm, mine)}
        return runs.mean_over(mine, series[name], *window)

    for number, arm in enumerate(dropped, 1):
        drops = "one_drop" if number == 1 else "two_drops"
        early = config.second_drop / 2, config.second_drop
        gap = percent_paired(*(average(a, "train_loss", *early) for a in (arm, plain)))
        verdicts.append(above(f"{drops}_differs_before", gap, 25.0, "% of loss"))
        for name in LOSSES:
            change = percent_paired(*(average(a, name, first) for a in (arm, plain)))
            verdicts.append(agrees(f"{drops}_same_{name}", change, 10.0, "% of loss"))
        lrs = [average(a, "effective_lr", first) for a in (arm, plain)]
        claim = f"{drops}_same_effective_lr"
        verdicts.append(
            agrees(
                claim,
                percent_paired(*lrs),
                2.0,
                "% of effective lr",
                expected=claim not in config.known_false,
            )
        )
    return verdicts


def averages_table(config: ConfigDict, arms: list[Arm], curves) -> str:
    first, half = config.window * config.steps, config.second_drop
    rows = []
    for arm in arms:
        mine = curves[arm.name]
        before = runs.mean_over(mine, mine["train_loss"], half / 2, half)
        lrs = 1e3 * runs.mean_over(mine, runs.effective_lr(arm, mine), first)
        late = [runs.mean_over(mine, mine[name], first) for name in LOSSES]
        error = 100 * runs.mean_over(mine, mine["test_error"], first)
        rows.append([arm.name, *map(shown, (before, lrs, *late, error))])
    header = ["arm", "train loss before the last drop", "10³ × effective lr"]
    header += ["train loss", "held-out loss", "held-out error %"]
    return table(header, rows, "lrrrrr")


def draw(config: ConfigDict, arms: list[Arm], curves, path) -> None:
    figure, (left, right) = new_figure(2)
    width = 10  # looks that are averaged, so that three curves can be told apart
    for arm, colour in zip(arms, COLOURS, strict=False):
        mine = curves[arm.name]
        lrs = estimate(1e3 * runs.effective_lr(arm, mine))
        band(left, mine["step"] / 1000, lrs, label=arm.name, colour=colour)
        loss = _smooth(mine["train_loss"], width)
        steps = _smooth(mine["step"][None] / 1000, width)[0]
        band(right, steps, estimate(loss), label=arm.name, colour=colour)
    for ax in (left, right):
        plain_log_axis(ax)
        ax.set(xlabel="thousands of steps")
        compared = config.window * config.steps / 1000, config.steps / 1000
        ax.axvspan(*compared, color="0.92", zorder=0)
    left.set(ylabel="effective learning rate × 10³")
    right.set(ylabel="train loss, mean of ten looks")
    left.legend(fontsize=10, title="grey: compared")
    save(figure, path)


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Means of `width` successive columns."""
    count = values.shape[1] // width
    return values[:, : count * width].reshape(len(values), count, width).mean(-1)
