"""Is the product λ_e = lr·decay all that lasts of lr, decay and initial norm?

Arms of one λ_e must end with the same effective lr and losses, and those of another
must not. An arm whose lr is c² times the first one's, decay c⁻² and initial weights c
times, is not even another run: its directions are the first one's at every step.
"""

import numpy as np

from experiments.intrinsic_lr import nets
from experiments.intrinsic_lr.settings import Averaged
from optsde.analysis import above, agrees, estimate, percent_paired, plots, table
from optsde.optimizers import SGD
from optsde.study import Numbers, Study, panels, setting

SAME = {"effective_lr": "effective lr", "train_loss": "loss", "test_loss": "loss"}


class Settings(Averaged):
    lrs: Numbers = setting((0.1, 0.4, 0.1), "of each arm", above=0, entries=2)
    decays: Numbers = setting((0.03, 0.0075, 0.1), "of each arm", above=0, like="lrs")
    scales: Numbers = setting((1, 2, 1), "of initial weights", above=0, like="lrs")
    lr_bound: float = setting(
        2.0, "between arms of one product", unit="%", above=0, at_most=100
    )
    loss_bound: float = setting(
        8.0, "between arms of one product", unit="%", above=0, at_most=100
    )
    apart: float = setting(75.0, "between products", unit="% of train loss", above=0)

    def demands(self):
        yield from super().demands()
        names = {arm.name for arm in arms(self)}
        yield len(names) == len(self.lrs), "lrs", "arms that all differ"
        first, *others = map(product, arms(self))
        both = "with decays: another arm of the first one's product, and one of another"
        yield first in others and set(others) != {first}, "lrs", both


def arms(s):
    for lr, decay, scale in zip(s.lrs, s.decays, s.scales, strict=True):
        name = f"lr {lr:g}, decay {decay:g}, initial × {scale:g}"
        yield s.arm(name, SGD(lr=lr, weight_decay=decay), scale=scale)


def product(arm):
    """Returns λ_e, rounded so that equal ones are equal."""
    return float(f"{arm.plan.optimizer.lr * arm.plan.optimizer.weight_decay:.6g}")


def is_rescaled(arm, first):
    """Tells whether an arm of the same λ_e is the first one with weights times 2ⁿ."""
    c = arm.scale / first.scale
    lrs = arm.plan.optimizer.lr / first.plan.optimizer.lr
    return c != 1 and np.log2(c) % 1 == 0 and np.isclose(lrs, c * c)


def simulate(s, rundir, task):
    return nets.train(s, rundir, task, arms(s))


def tables(s, runs):
    metrics, rows = [*SAME, "test_error"], []
    for number, (name, run) in enumerate(runs.items(), 1):
        cells = [nets.shown(s.average(run[metric]), metric) for metric in metrics]
        rows.append([number, f"{product(run.arm):g}", name, *cells])
    header = ["", "λ_e", "arm", *(nets.TITLES[metric] for metric in metrics)]
    yield table(header, rows, "rrlrrrr")


def claims(s, runs):
    first, *others = runs.values()
    for number, run in enumerate(others, 2):
        if product(run.arm) != product(first.arm):
            ratio = s.average(first.train_loss) / s.average(run.train_loss)
            apart = estimate(100 * (np.maximum(ratio, 1 / ratio) - 1))
            claim = f"other_product_{product(run.arm):g}_differs_{number}"
            yield above(claim, apart, s.apart, "% of loss")
            continue
        if is_rescaled(run.arm, first.arm):
            gap = np.abs(run.train_loss.values - first.train_loss.values).max(axis=1)
            claim = f"rescaled_run_{number}_is_the_first"
            yield agrees(claim, estimate(gap), 1e-6, "nats, largest")
        for metric, unit in SAME.items():
            change = percent_paired(s.average(run[metric]), s.average(first[metric]))
            bound = s.lr_bound if metric == "effective_lr" else s.loss_bound
            claim = f"same_product_{number}_same_{metric}"
            yield agrees(claim, change, bound, f"% of {unit}")


def figure(s, runs, path):
    canvas, (left, right) = plots.new_figure(2)
    colours = panels.bands(
        left,
        runs,
        "effective_lr",
        scale=1e3,
        group=lambda x: f"λₑ = {product(x.arm):g}",
    )
    products = sorted({product(run.arm) for run in runs.values()})
    for place, wanted in enumerate(products):
        same = [name for name, run in runs.items() if product(run.arm) == wanted]
        for number, name in enumerate(same):
            loss = estimate(s.average(runs[name].test_loss))
            x = place + 0.1 * (number - (len(same) - 1) / 2)
            plots.points(right, x, loss, colour=colours[name])
    plots.plain_log_axis(left)
    plots.label(left, x="step", y="effective learning rate × 10³", legend="best")
    title = "a point for each run of lr, decay, initial norm"
    y = "held-out loss, later part of the run"
    plots.label(right, x="λₑ", y=y, title=title)
    right.set_xticks(range(len(products)), [f"{value:g}" for value in products])
    right.set_xlim(-0.5, len(products) - 0.5)
    right.set_ylim(bottom=0)
    plots.save(canvas, path)


study = Study(
    __name__,
    Settings,
    simulate,
    task=nets.build_task,
    by_accuracy=True,
    tables=tables,
    claims=claims,
    figures={"same_product": figure},
)
