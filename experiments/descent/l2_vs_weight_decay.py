"""Is weight decay the same as L2 in the gradient?

For plain SGD yes: θ − η(g + λθ) is both. Momentum sums the λθ of many steps, and Adam
divides it by √v, so that L2 shrinks least the weights with the largest gradients. On
digits, held-out loss over λ × lr for both forms. The best setting of a map is chosen on
one half of the seeds and judged on the other.
"""

import functools

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.descent import digits
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import (
    Estimate,
    Verdict,
    above,
    agrees,
    estimate,
    exact,
    percent_of_mean,
    plus_minus,
    table,
)
from optsde.analysis.plots import HALF_SLIDE, heat_map, new_figure, save

FORMS = {"l2": "L2 in the gradient", "weight_decay": "Decoupled decay"}
OPTIMIZERS = {
    "sgd": ("SGD", optsde.SGD, (0.02, 0.06, 0.2, 0.6)),
    "heavyball": ("Momentum", optsde.HeavyBall, (0.002, 0.006, 0.02, 0.06)),
    "adam": ("Adam", optsde.Adam, (1e-3, 3e-3, 1e-2, 3e-2)),
}


def check(config: ConfigDict) -> None:
    digits.check(config)
    allowed = ", ".join(OPTIMIZERS)
    known = bool(config.optimizers) and set(config.optimizers) <= set(OPTIMIZERS)
    require(known, config, "optimizers", f"some of: {allowed}")
    decays = config.decays
    rising = len(decays) >= 3 and decays[0] > 0 and list(decays) == sorted(set(decays))
    require(rising, config, "decays", "three or more rising positive numbers")


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    task = digits.build_task(config)
    verdicts = []
    losses = {}
    for name in config.optimizers:
        train = functools.partial(train_grid, config, task, name)
        found = digits.finished(rundir, name, train)
        print(best_table(config, name, found), flush=True)
        losses[name] = {form: found[f"{form}_loss"] for form in FORMS}
        verdicts += judge(config, name, losses[name])
    draw(config, losses, rundir.figure("l2_vs_weight_decay"))
    return verdicts


def train_grid(config: ConfigDict, task, name: str) -> dict[str, np.ndarray]:
    """Held-out FORM_loss and FORM_accuracy, [λ, lr, seeds]; one ensemble."""
    import jax.numpy as jnp

    _, family, lrs = OPTIMIZERS[name]
    decay, lr = np.meshgrid(config.decays, lrs, indexing="ij")
    nothing = np.zeros(decay.size)
    lam = decay.ravel()
    members = {
        "lr": np.concatenate([lr.ravel(), lr.ravel()]),
        "l2": np.concatenate([lam, nothing]),
        "weight_decay": np.concatenate([nothing, lam]),
    }
    members = {n: jnp.asarray(x, jnp.float32) for n, x in members.items()}

    def plan_of(member):
        return optsde.Plan(
            optimizer=family(**member),
            batch_size=config.batch_size,
            horizon=config.steps,
        )

    found = digits.held_out(config, task, plan_of, members)
    shape = (2, *decay.shape, config.seeds)
    return {
        f"{form}_{n}": x.reshape(shape)[number]
        for number, form in enumerate(FORMS)
        for n, x in found.items()
    }


def flat(loss: np.ndarray) -> np.ndarray:
    """[settings, seeds]."""
    return loss.reshape(-1, loss.shape[-1])


def cost_of_exchange(loss: dict[str, np.ndarray]) -> Estimate:
    """% of loss lost by taking each form's best (λ, lr) over to the other form.

    The mean of the two ways, on seeds that had no part in the choice.
    """
    chosen = {form: digits.best(flat(x)) for form, x in loss.items()}
    costs = []
    for form, other in zip(FORMS, reversed(FORMS), strict=True):
        judged = digits.judged(flat(loss[form]))
        own, taken = judged[chosen[form]], judged[chosen[other]]
        costs.append(100 * (taken - own) / own.mean())
    return estimate(np.mean(costs, axis=0))


def gain_of_decoupling(loss: dict[str, np.ndarray]) -> Estimate:
    """% of loss by which decoupled decay at its best is below L2 at its best."""
    at_best = {
        form: digits.judged(flat(x))[digits.best(flat(x))] for form, x in loss.items()
    }
    return -percent_of_mean(at_best["weight_decay"], at_best["l2"])


def shift(config: ConfigDict, loss: dict[str, np.ndarray]) -> Estimate:
    """log10 of (best decoupled λ / best L2 λ), each seed's own."""
    best = {}
    for form, x in loss.items():
        of_each = np.nanargmin(np.where(np.isfinite(flat(x)), flat(x), np.nan), axis=0)
        row, _ = np.unravel_index(of_each, x.shape[:2])
        best[form] = np.log10(np.array(config.decays)[row])
    return estimate(best["weight_decay"] - best["l2"])


def judge(config: ConfigDict, name: str, loss) -> list[Verdict]:
    moved, cost = shift(config, loss), cost_of_exchange(loss)
    if name == "sgd":
        l2, decoupled = loss["l2"], loss["weight_decay"]
        fine = np.isfinite(l2)
        same = np.array_equal(fine, np.isfinite(decoupled))  # diverged together
        largest = np.max(np.abs(l2[fine] / decoupled[fine] - 1)) if same else np.inf
        return [
            agrees("sgd_maps_are_one", exact(100 * largest), 0.1, "% of loss, largest"),
            agrees("sgd_optimum_stays", moved, 0.1, "log10 λ"),
        ]
    better = f"{name}_decoupled_is_better"
    expected = better not in config.known_false
    gain = gain_of_decoupling(loss)
    return [
        above(f"{name}_optimum_moves", moved, 0.25, "log10 λ"),
        above(f"{name}_exchange_costs", cost, 1.0, "% of loss"),
        above(better, gain, 0.0, "% of loss", expected),
    ]


def best_table(config: ConfigDict, name: str, found) -> str:
    """The best of each form, chosen on one half of the seeds, judged on the other."""
    title, _, lrs = OPTIMIZERS[name]
    rows = []
    for form, words in FORMS.items():
        number = digits.best(flat(found[f"{form}_loss"]))
        decay, lr = np.unravel_index(number, (len(config.decays), len(lrs)))
        loss, accuracy = (
            estimate(digits.judged(flat(found[f"{form}_{n}"]))[number])
            for n in ("loss", "accuracy")
        )
        cells = [f"{config.decays[decay]:g}", f"{lrs[lr]:g}"]
        cells += [plus_minus(loss, 4), plus_minus(100 * accuracy, 2)]
        rows.append([title, words, *cells])
    header = ["", "", "best λ", "best lr", "held-out loss", "accuracy %"]
    return table(header, rows, "llrrrr")


def draw(config: ConfigDict, losses, path) -> None:
    """A row for each form, a column for each optimizer; crosses mark the best."""
    columns = len(losses)
    figure, axes = new_figure(columns, HALF_SLIDE, 5.6, rows=2)
    means = {
        (form, name): loss[form].mean(axis=-1)
        for form in FORMS
        for name, loss in losses.items()
    }
    low = min(np.nanmin(mean) for mean in means.values())
    span = dict(vmin=low, vmax=1.6 * low)
    for ax, ((form, name), mean) in zip(axes, means.items(), strict=True):
        title, _, lrs = OPTIMIZERS[name]
        image = heat_map(ax, lrs, config.decays, mean, cmap="cividis_r", **span)
        row, column = np.unravel_index(np.nanargmin(mean), mean.shape)
        ax.plot(lrs[column], config.decays[row], "x", color="black", ms=9, mew=2.5)
        errors = losses[name][form].std(axis=-1, ddof=1) / config.seeds**0.5
        at_best = f"{mean[row, column]:.3f} ± {errors[row, column]:.3f}"
        ax.set_title(f"{title}\n{at_best}" if form == "l2" else at_best)
        ax.tick_params(labelbottom=form != "l2", labelleft=name == next(iter(losses)))
    for ax, words in zip(axes[::columns], FORMS.values(), strict=True):
        ax.set_ylabel(f"{words}, λ")
    title = "Do both forms want the same λ?"
    figure.suptitle(f"{title}\nCrosses: the best, its loss and standard error above")
    figure.supxlabel("learning rate", fontsize=12)
    bar = figure.colorbar(image, ax=axes, pad=0.02, extend="max")
    bar.set_label("held-out loss")
    save(figure, path)
