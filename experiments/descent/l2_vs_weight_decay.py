"""Is weight decay the same as L2 in the gradient?

For plain SGD yes: θ − η(g + λθ) is both. Momentum sums the λθ of many steps, and Adam
divides it by √v, so that L2 shrinks least the weights with the largest gradients. On
digits, held-out loss over λ × lr for both forms. The best setting of a map is chosen on
one half of the seeds and judged on the other.
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import optsde
from experiments.descent import held_out
from experiments.descent.held_out import HeldOutSettings, best, judged
from optsde.analysis import (
    above,
    agrees,
    estimate,
    exact,
    percent_of_mean,
    plots,
    plus_minus,
    table,
)
from optsde.study import Names, Numbers, Study, setting
from optsde.study.tasks import build_task

FORMS = {"l2": "L2 in the gradient", "weight_decay": "Decoupled decay"}


class Family(NamedTuple):
    title: str
    make: type[optsde.Optimizer]
    lrs: tuple[float, ...]


OPTIMIZERS = {
    "sgd": Family("SGD", optsde.SGD, (0.02, 0.06, 0.2, 0.6)),
    "heavyball": Family("Momentum", optsde.HeavyBall, (0.002, 0.006, 0.02, 0.06)),
    "adam": Family("Adam", optsde.Adam, (1e-3, 3e-3, 1e-2, 3e-2)),
}


class Settings(HeldOutSettings):
    optimizers: Names = setting(
        tuple(OPTIMIZERS), "that are run", some_of=OPTIMIZERS, entries=1
    )
    decays: Numbers = setting(
        (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0),
        "λ of the maps",
        above=0,
        entries=3,
        rising=True,
    )


def simulate(s, rundir, task):
    """Returns the maps of each optimizer."""
    return {
        name: rundir.once(name, partial(maps, s, task, name)) for name in s.optimizers
    }


def maps(s, task, name):
    """Returns loss and accuracy [forms, decays, lrs, seeds], of one ensemble."""
    family = OPTIMIZERS[name]
    decay, lr = np.meshgrid(s.decays, family.lrs, indexing="ij")
    lam, nothing = decay.ravel(), np.zeros(decay.size)
    members = {
        "lr": np.concatenate([lr.ravel(), lr.ravel()]),
        "l2": np.concatenate([lam, nothing]),
        "weight_decay": np.concatenate([nothing, lam]),
    }

    def plan_of(member):
        return optsde.Plan(
            optimizer=family.make(**member), batch_size=s.batch_size, horizon=s.steps
        )

    stacked = {field: jnp.asarray(x, jnp.float32) for field, x in members.items()}
    metrics = held_out.train(s, task, plan_of, stacked)
    shape = (len(FORMS), *decay.shape, s.seeds)
    return {metric: x.reshape(shape) for metric, x in metrics.items()}


# ---- what is made of them


def flat(maps):
    """Returns [forms, settings, seeds]."""
    return maps.reshape(len(maps), -1, maps.shape[-1])


def cost_of_exchange(loss):
    """Returns the % of loss lost by taking each form's best (λ, lr) to the other form.

    It is the mean of the two ways, on seeds that had no part in the choice.
    """
    chosen = [best(x) for x in flat(loss)]
    costs = []
    for x, own, other in zip(flat(loss), chosen, reversed(chosen), strict=True):
        at_own, taken = judged(x)[[own, other]]
        costs.append(100 * (taken - at_own) / at_own.mean())
    return estimate(np.mean(costs, axis=0))


def gain_of_decoupling(loss):
    """Returns by how many % of loss decoupled decay at its best is below L2."""
    l2, decoupled = (judged(x)[best(x)] for x in flat(loss))
    return -percent_of_mean(decoupled, l2)


def shift(s, loss):
    """Returns log10 of (best decoupled λ / best L2 λ), each seed's own."""
    fine = np.where(np.isfinite(loss), loss, np.nan)
    row = np.nanargmin(flat(fine), axis=1) // loss.shape[2]
    l2, decoupled = np.log10(s.decays)[row]
    return estimate(decoupled - l2)


def largest_difference(loss):
    """Returns by how many % the forms differ at most; inf if they diverge apart."""
    l2, decoupled = loss
    fine = np.isfinite(l2)
    if not np.array_equal(fine, np.isfinite(decoupled)):
        return np.inf
    return 100 * np.max(np.abs(l2[fine] / decoupled[fine] - 1))


def tables(s, runs):
    """Yields the best of each form, chosen on half of the seeds, judged on the rest."""
    header = ["", "", "best λ", "best lr", "held-out loss", "accuracy %"]
    for name, mine in runs.items():
        title, _, lrs = OPTIMIZERS[name]
        rows = []
        for form, *metrics in zip(
            FORMS.values(), flat(mine["loss"]), flat(mine["accuracy"]), strict=True
        ):
            number = best(metrics[0])
            loss, accuracy = (estimate(judged(x)[number]) for x in metrics)
            decay, lr = divmod(number, len(lrs))
            cells = [f"{s.decays[decay]:g}", f"{lrs[lr]:g}"]
            cells += [plus_minus(loss, 4), plus_minus(100 * accuracy, 2)]
            rows.append([title, form, *cells])
        yield table(header, rows, "llrrrr")


def claims(s, runs):
    for name, mine in runs.items():
        loss = mine["loss"]
        moved = shift(s, loss)
        if name == "sgd":
            largest = exact(largest_difference(loss))
            yield agrees("sgd_maps_are_one", largest, 0.1, "% of loss, largest")
            yield agrees("sgd_optimum_stays", moved, 0.1, "log10 λ")
        else:
            cost, gain = cost_of_exchange(loss), gain_of_decoupling(loss)
            yield above(f"{name}_optimum_moves", moved, 0.25, "log10 λ")
            yield above(f"{name}_exchange_costs", cost, 1.0, "% of loss")
            yield above(f"{name}_decoupled_is_better", gain, 0.0, "% of loss")


def figure(s, runs, path):
    """Draws a row for each form, a column for each optimizer; crosses: the best."""
    columns = len(runs)
    drawing, axes = plots.new_figure(columns, plots.HALF_SLIDE, 5.6, rows=2)
    panels = {
        (form, name): estimate(np.moveaxis(mine["loss"][number], -1, 0))
        for number, form in enumerate(FORMS)
        for name, mine in runs.items()
    }
    low = min(np.nanmin(x.mean) for x in panels.values())
    for number, (ax, (key, x)) in enumerate(zip(axes, panels.items(), strict=True)):
        (form, name), lowest, first = key, number >= columns, number % columns == 0
        title, _, lrs = OPTIMIZERS[name]
        span = dict(vmin=low, vmax=1.6 * low, cmap="cividis_r")
        image = plots.heat_map(ax, lrs, s.decays, x.mean, **span)
        row, column = np.unravel_index(np.nanargmin(x.mean), x.mean.shape)
        ax.plot(lrs[column], s.decays[row], "x", color="black", ms=9, mew=2.5)
        at_best = plus_minus(x.at((row, column)), 3)
        plots.label(
            ax,
            x="learning rate" if lowest else "",
            y=f"{FORMS[form]}, λ" if first else "",
            title=at_best if lowest else f"{title}\n{at_best}",
        )
        ax.tick_params(labelbottom=lowest, labelleft=first)
    title = "Do both forms want the same λ?"
    drawing.suptitle(f"{title}\nCrosses: the best, its loss and standard error above")
    bar = drawing.colorbar(image, ax=axes, pad=0.02, extend="max")
    bar.set_label("held-out loss")
    plots.save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"l2_vs_weight_decay": figure},
    task=build_task,
    by_accuracy=True,
)
