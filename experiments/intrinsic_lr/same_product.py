"""Is the product λ_e = lr·decay all that lasts of lr, decay and initial norm?

Arms of one λ_e must end with the same effective lr and losses, and those of another
must not. An arm whose lr is c² times the first one's, decay c⁻² and initial weights c
times, is not even another run: its directions are the first one's at every step.
"""

import numpy as np
from ml_collections import ConfigDict

from experiments.intrinsic_lr import runs
from experiments.intrinsic_lr.equilibrium import shown
from experiments.intrinsic_lr.runs import Arm, Curves, sgd
from experiments.intrinsic_lr.setting import build, check_arms, check_run
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import (
    Verdict,
    above,
    agrees,
    estimate,
    interval,
    percent_paired,
    table,
)
from optsde.analysis.plots import COLOURS, band, new_figure, plain_log_axis, save

UNIT = {"effective_lr": "effective lr", "train_loss": "loss", "test_loss": "loss"}


def check(config: ConfigDict) -> None:
    check_run(config)
    check_arms(config, "lrs", "decays", "scales")
    for name in ("lr_bound", "loss_bound", "apart"):
        require(config[name] > 0, config, name, "a percentage above 0")
    arms = arms_of(config)
    names = [arm.name for arm in arms]
    require(len(set(names)) == len(names), config, "lrs", "arms that all differ")
    same = [product(arm) for arm in arms]
    require(
        same.count(same[0]) > 1 and len(set(same)) > 1,
        config,
        "lrs",
        "with decays: another arm of the first one's product, and one of another",
    )


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    setting, arms = build(config), arms_of(config)
    runs.report(config, setting, arms[0])
    curves = runs.train_arms(config, setting, rundir, arms)
    first = config.window * config.steps
    print(averages_table(arms, curves, first))
    draw(arms, curves, first, rundir.figure("same_product"))
    return judge(config, arms, curves, first)


def arms_of(config: ConfigDict) -> list[Arm]:
    settings = zip(config.lrs, config.decays, config.scales, strict=True)
    return [
        Arm(f"lr {lr:g}, decay {decay:g}, initial × {scale:g}", sgd(lr, decay), scale)
        for lr, decay, scale in settings
    ]


def product(arm: Arm) -> float:
    """λ_e, rounded so that equal ones are equal."""
    return float(f"{arm.optimizer.lr * arm.optimizer.weight_decay:.6g}")


def is_rescaled(arm: Arm, reference: Arm) -> bool:
    """c²·lr, decay/c², c·w with c a power of two: the same run bit for bit."""
    c = arm.scale / reference.scale
    lr = arm.optimizer.lr / reference.optimizer.lr
    exact = np.log2(c) == round(np.log2(c)) and c != 1
    same = product(arm) == product(reference) and np.isclose(lr, c * c)
    return bool(exact and same)


def averages(arm: Arm, curves: Curves, first: float) -> dict[str, np.ndarray]:
    """[seeds] of each quantity, over the window."""
    series = curves | {"effective_lr": runs.effective_lr(arm, curves)}
    return {n: runs.mean_over(curves, series[n], first) for n in UNIT}


def judge(config, arms: list[Arm], curves: dict[str, Curves], first: float):
    reference, *others = arms
    base = averages(reference, curves[reference.name], first)
    verdicts = []
    for number, arm in enumerate(others, 2):
        mine = averages(arm, curves[arm.name], first)
        if product(arm) != product(reference):
            gap = base["train_loss"] / mine["train_loss"]
            apart = estimate(100 * (np.maximum(gap, 1 / gap) - 1))
            claim = f"other_product_{product(arm):g}_differs_{number}"
            expected = claim not in config.known_false
            verdicts.append(above(claim, apart, config.apart, "% of loss", expected))
            continue
        if is_rescaled(arm, reference):
            both = [curves[a.name]["train_loss"] for a in (arm, reference)]
            largest = np.abs(np.subtract(*both)).max(axis=1)
            claim = f"rescaled_run_{number}_is_the_first"
            verdicts.append(agrees(claim, estimate(largest), 1e-6, "nats, largest"))
        for name, unit in UNIT.items():
            bound = config.lr_bound if name == "effective_lr" else config.loss_bound
            change = percent_paired(mine[name], base[name])
            claim = f"same_product_{number}_same_{name}"
            verdicts.append(agrees(claim, change, bound, f"% of {unit}"))
    return verdicts


def averages_table(arms: list[Arm], curves: dict[str, Curves], first: float) -> str:
    rows = []
    for number, arm in enumerate(arms, 1):
        mine = averages(arm, curves[arm.name], first)
        mine["effective_lr"] = 1e3 * mine["effective_lr"]
        error = runs.mean_over(curves[arm.name], curves[arm.name]["test_error"], first)
        cells = [shown(mine[name]) for name in UNIT]
        rows.append([number, f"{product(arm):g}", arm.name, *cells, shown(100 * error)])
    header = ["", "λ_e", "arm", "10³ × effective lr", "train loss", "held-out loss"]
    return table([*header, "held-out error %"], rows, "rrlrrrr")


def draw(arms: list[Arm], curves: dict[str, Curves], first: float, path) -> None:
    figure, (left, right) = new_figure(2)
    reference = product(arms[0])
    styles = ("-", "--", "-.", ":", (0, (1, 3)))
    kinds = list(dict.fromkeys(product(arm) for arm in arms))
    of_kind = dict.fromkeys(kinds, 0)
    for number, arm in enumerate(arms):
        kind = product(arm)
        style = styles[of_kind[kind] % len(styles)]
        of_kind[kind] += 1
        mine = curves[arm.name]
        lrs = estimate(1e3 * runs.effective_lr(arm, mine))
        colour = COLOURS[number] if kind == reference else "0.6"
        label = arm.name if kind == reference else ""
        band(left, mine["step"], lrs, label=label, colour=colour, ls=style)
    for kind in kinds:
        if kind != reference:
            last = next(arm for arm in arms if product(arm) == kind)
            value = 1e3 * runs.effective_lr(last, curves[last.name])[:, -1].mean()
            left.annotate(
                f"λₑ = {kind:g}",
                (curves[last.name]["step"][-1], value),
                ha="right",
                va="bottom",
                fontsize=10,
                color="0.35",
            )
    plain_log_axis(left)
    left.set(xlabel="step", ylabel="effective learning rate × 10³")
    left.legend(fontsize=8.5, title=f"λₑ = {reference:g}", title_fontsize=10)
    for number, arm in enumerate(arms):
        kind = product(arm)
        mine = averages(arm, curves[arm.name], first)
        loss = estimate(mine["test_loss"])
        right.errorbar(
            number,
            float(loss.mean),
            interval(loss).high - float(loss.mean),
            fmt="o",
            capsize=3,
            color=COLOURS[number] if kind == reference else "0.6",
        )
    right.set_xticks(
        range(len(arms)), [f"{product(arm):g}" for arm in arms], rotation=45
    )
    right.set(xlabel="λₑ of the arm", ylabel="held-out loss, second half of the run")
    right.set_ylim(bottom=0)
    save(figure, path)
