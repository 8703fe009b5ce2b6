"""What do AdaGrad and RMSprop remember of the gradients' squares?

AdaGrad sums them: under noise the sum grows as t, and the step shrinks as 1/√t. RMSprop
averages them: v stays where E g² is, and the step keeps its length.
"""

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.descent import paths
from experiments.descent.functions import FUNCTIONS
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import (
    Estimate,
    Verdict,
    estimate,
    estimate_or_exact,
    interval,
    within,
)
from optsde.analysis.plots import COLOURS, HALF_SLIDE, band, new_figure, save

PANELS = {"bowl": "Without noise", "noisy": "With noise"}
STYLES = {  # colour, line, words
    "adagrad": (COLOURS[5], "--", "AdaGrad's sum"),
    "rmsprop": (COLOURS[0], "-", "RMSprop's average"),
}


def check(config: ConfigDict) -> None:
    require(config.steps >= 40, config, "steps", "at least 40")
    require(config.seeds >= 2, config, "seeds", "at least 2, for intervals")
    require(0 < config.beta < 1, config, "beta", "a decay in (0, 1)")


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    found = {
        f"{function}_{name}": norms
        for function in PANELS
        for name, norms in norms_of(config, function).items()
    }
    rundir.add_curves(found)
    draw(config, found, rundir.figure("second_moment"))
    return judge(found)


def norms_of(config: ConfigDict, function: str) -> dict[str, np.ndarray]:
    """|second moments| after each step, [seeds, steps]."""
    import jax.numpy as jnp

    chosen = FUNCTIONS[function]
    stride = chosen.stride
    optimizers = {
        "adagrad": optsde.AdaGrad(lr=3 * stride),
        "rmsprop": optsde.RMSprop(lr=stride, beta=config.beta, bias_correction=False),
    }
    seeds = config.seeds if chosen.noise else 1

    def held(state):
        second, *_ = state.optimizer.direction  # AdaGrad's s, RMSprop's v
        return jnp.linalg.norm(second)

    found = paths.descend(
        chosen, optimizers, chosen.starts[:1], config.steps, seeds, config.seed, held
    )
    return {name: norms[0, :, 1:] for name, norms in found.items()}


def growth(norms: np.ndarray) -> Estimate:
    """p in |memory| ∝ t^p over the second half of the steps, of each seed."""
    half = norms.shape[1] // 2
    t = np.log(np.arange(1, norms.shape[1] + 1)[half:])
    y = np.log(norms[:, half:])
    t = t - t.mean()
    return estimate(y @ t / (t @ t))


def judge(found: dict[str, np.ndarray]) -> list[Verdict]:
    sums, averages = found["noisy_adagrad"], found["noisy_rmsprop"]
    return [
        within("adagrad_grows_as_t", interval(growth(sums)), 0.9, 1.1, "power of t"),
        within(
            "rmsprop_does_not_grow", interval(growth(averages)), -0.1, 0.1, "power of t"
        ),
    ]


def draw(config: ConfigDict, found, path) -> None:
    figure, axes = new_figure(2, HALF_SLIDE, 3.7)
    t = np.arange(1, config.steps + 1)
    for ax, (function, title) in zip(axes, PANELS.items(), strict=True):
        for name, (colour, line, label) in STYLES.items():
            norms = found[f"{function}_{name}"]
            band(ax, t, estimate_or_exact(norms), colour=colour, ls=line, label=label)
        ax.set(xscale="log", yscale="log", xlabel="step", title=title)
    axes[0].set_ylabel("norm of the second moment")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2)
    figure.suptitle("AdaGrad's memory only grows, RMSprop's forgets")
    save(figure, path)
