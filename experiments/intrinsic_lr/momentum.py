"""With momentum, what is the intrinsic learning rate?

The heavy ball's velocity, and with it the l2 in its gradient, is 1/(1−β) times as long:
λ_e = lr·l2/(1−β). Runs of one λ_e must end alike, whatever β; those of one lr·l2 must
not. The mean gradient drives the norm less than SGD's by (1−β)/(1+β), so the effective
lr is a little larger than SGD's at the same λ_e, and nearer to what the SDE says.
"""

from ml_collections import ConfigDict

import optsde
from experiments.intrinsic_lr import equilibrium, runs
from experiments.intrinsic_lr.runs import Arm, Curves
from experiments.intrinsic_lr.setting import build, check_arms, check_run
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import (
    Verdict,
    above,
    agrees,
    percent_each,
    percent_paired,
)


def check(config: ConfigDict) -> None:
    check_run(config)
    check_arms(config, "lrs", "l2s")
    betas = config.betas
    require(
        len(betas) == len(config.lrs) and min(betas) >= 0 and max(betas) < 1,
        config,
        "betas",
        f"{len(config.lrs)} numbers 0 ≤ β < 1",
    )


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    setting, arms = build(config), arms_of(config)
    runs.report(config, setting, arms[0])
    first = config.window * config.steps
    curves = runs.train_arms(
        config, setting, rundir, arms, weighed=lambda step: step > first
    )
    print(equilibrium.levels_table(arms, curves, first))
    equilibrium.draw(arms, curves, first, rundir.figure("momentum"), "")
    return judge(config, arms, curves, first)


def arms_of(config: ConfigDict) -> list[Arm]:
    return [
        Arm(
            f"β {beta:g}, lr {lr:g}, l2 {l2:g}",
            optsde.HeavyBall(lr=lr, beta=beta, l2=l2),
        )
        for beta, lr, l2 in zip(config.betas, config.lrs, config.l2s, strict=True)
    ]


def judge(config, arms: list[Arm], curves: dict[str, Curves], first: float):
    """The first arm is what the others are compared with."""
    from optsde.measure import intrinsic_rates

    verdicts = []
    for number, arm in enumerate(arms, 1):
        change = equilibrium.departure(arm, curves[arm.name], first, True)
        claim = f"equilibrium_of_arm_{number}"
        verdicts.append(agrees(claim, change, config.bound, "% of effective lr"))
    reference, *others = arms
    base = curves[reference.name]
    wanted = intrinsic_rates(reference.optimizer).intrinsic
    for number, arm in enumerate(others, 2):
        mine = curves[arm.name]
        lrs = [
            runs.mean_over(c, runs.effective_lr(a, c), first)
            for a, c in ((arm, mine), (reference, base))
        ]
        losses = [runs.mean_over(c, c["test_loss"], first) for c in (mine, base)]
        same = abs(intrinsic_rates(arm.optimizer).intrinsic / wanted - 1) < 1e-6
        if not same:
            gap = percent_each(*losses)
            claim = f"arm_{number}_of_the_same_lr_l2_differs"
            verdicts.append(above(claim, gap, 25.0, "% of loss"))
            continue
        for name, pair, bound in (
            ("effective_lr", lrs, config.lr_bound),
            ("test_loss", losses, config.loss_bound),
        ):
            claim = f"arm_{number}_of_the_same_product_same_{name}"
            change = percent_paired(*pair)
            verdicts.append(agrees(claim, change, bound, f"% of {name}"))
    return verdicts
