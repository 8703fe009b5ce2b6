"""With momentum, what is the intrinsic learning rate?

The heavy ball's velocity, and with it the l2 in its gradient, is 1/(1−β) times as long:
λ_e = lr·l2/(1−β). Runs of one λ_e must end alike, whatever β; those of one lr·l2 must
not. The mean gradient drives the norm less than SGD's by (1−β)/(1+β), so the effective
lr is a little larger than SGD's at the same λ_e, and nearer to what the SDE says.
"""

from functools import partial

from experiments.intrinsic_lr import equilibrium, nets
from optsde.analysis import above, agrees, percent_each, percent_paired
from optsde.measure import intrinsic_rates
from optsde.optimizers import HeavyBall
from optsde.study import Numbers, Study, setting


class Settings(equilibrium.Predicted):
    lrs: Numbers = setting((0.1, 0.01, 0.04, 0.1), "of each arm", above=0, entries=1)
    l2s: Numbers = setting(
        (0.03, 0.03, 0.0075, 0.03), "of each arm", above=0, like="lrs"
    )
    betas: Numbers = setting(
        (0.0, 0.9, 0.9, 0.9), "of each arm", at_least=0, below=1, like="lrs"
    )
    lr_bound: float = setting(
        6.0, "between arms of one λ_e", unit="%", above=0, at_most=100
    )
    loss_bound: float = setting(
        8.0, "between arms of one λ_e", unit="%", above=0, at_most=100
    )


def arms(s):
    for beta, lr, l2 in zip(s.betas, s.lrs, s.l2s, strict=True):
        ball = HeavyBall(lr=lr, beta=beta, l2=l2)
        yield s.arm(f"β {beta:g}, lr {lr:g}, l2 {l2:g}", ball)


def simulate(s, rundir, task):
    return equilibrium.train_weighed(s, rundir, task, list(arms(s)))


def claims(s, runs):
    """The first arm is what the others are compared with."""
    for number, run in enumerate(runs.values(), 1):
        gap = equilibrium.departure(s, run)
        yield agrees(f"equilibrium_of_arm_{number}", gap, s.bound, "% of effective lr")
    first, *others = runs.values()
    for number, run in enumerate(others, 2):
        losses = s.average(run.test_loss), s.average(first.test_loss)
        lrs = s.average(run.effective_lr), s.average(first.effective_lr)
        products = [
            intrinsic_rates(x.arm.plan.optimizer).intrinsic for x in (run, first)
        ]
        if abs(products[0] / products[1] - 1) > 1e-6:
            claim = f"arm_{number}_of_the_same_lr_l2_differs"
            yield above(claim, percent_each(*losses), 25.0, "% of loss")
            continue
        claim, change = f"arm_{number}_of_the_same_product_same_", percent_paired(*lrs)
        yield agrees(f"{claim}effective_lr", change, s.lr_bound, "% of effective_lr")
        change = percent_paired(*losses)
        yield agrees(f"{claim}test_loss", change, s.loss_bound, "% of test_loss")


study = Study(
    __name__,
    Settings,
    simulate,
    task=nets.build_task,
    by_accuracy=True,
    tables=equilibrium.tables,
    claims=claims,
    figures={"momentum": partial(equilibrium.figure, symbol="", axis="")},
)
