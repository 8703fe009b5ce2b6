"""What do AdaGrad and RMSprop remember of the gradients' squares?

AdaGrad sums them: under noise the sum grows as t, and the step shrinks as 1/√t. RMSprop
averages them: v stays where E g² is, and the step keeps its length.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np

import optsde
from experiments.descent import paths
from experiments.descent.functions import FUNCTIONS
from optsde.analysis import (
    estimate,
    estimate_or_exact,
    interval,
    plots,
    within,
)
from optsde.study import Seeds, Study, setting

PANELS = {"bowl": "Without noise", "noisy": "With noise"}
STYLES = {  # colour, line, words
    "adagrad": (plots.COLOURS[5], "--", "AdaGrad's sum"),
    "rmsprop": (plots.COLOURS[0], "-", "RMSprop's average"),
}


class Settings(Seeds):
    steps: int = setting(1000, "of a run", at_least=40)
    beta: float = setting(0.9, "memory of RMSprop", above=0, below=1)
    seeds = 64


def simulate(s, rundir):
    """Returns the norms of each optimizer [seeds, steps], by function."""
    return {name: rundir.once(name, partial(norms_of, s, name)) for name in PANELS}


def norms_of(s, name):
    """Returns |second moments| after each step on a function, [seeds, steps]."""
    function = FUNCTIONS[name]
    optimizers = {
        "adagrad": optsde.AdaGrad(lr=3 * function.stride, s0=0.0),
        "rmsprop": optsde.RMSprop(
            lr=function.stride, beta=s.beta, bias_correction=False
        ),
    }
    seeds = s.seeds if function.noise else 1

    def observe(state):
        second, *_ = state.optimizer.direction  # AdaGrad's s, RMSprop's v
        return jnp.linalg.norm(second)

    starts = function.starts[:1]
    norms = paths.descend(function, optimizers, starts, s.steps, seeds, s.seed, observe)
    return {name: x[0, :, 1:] for name, x in norms.items()}


def growth(norms):
    """Returns p in |memory| ∝ t^p over the second half of the steps."""
    half = norms.shape[1] // 2
    t = np.log(np.arange(1, norms.shape[1] + 1)[half:])
    y = np.log(norms[:, half:])
    t = t - t.mean()
    return estimate(y @ t / (t @ t))


def claims(s, runs):
    sums, averages = (
        interval(growth(runs["noisy"][name])) for name in ("adagrad", "rmsprop")
    )
    yield within("adagrad_grows_as_t", sums, 0.9, 1.1, "power of t")
    yield within("rmsprop_does_not_grow", averages, -0.1, 0.1, "power of t")


def figure(s, runs, path):
    drawing, axes = plots.new_figure(2, plots.HALF_SLIDE, 3.7)
    t = np.arange(1, s.steps + 1)
    for ax, (function, title) in zip(axes, PANELS.items(), strict=True):
        for name, (colour, line, words) in STYLES.items():
            norms = estimate_or_exact(runs[function][name])
            plots.band(ax, t, norms, colour=colour, ls=line, label=words)
        ax.set(xscale="log", yscale="log")
        plots.label(ax, x="step", title=title)
    axes[0].set_ylabel("norm of the second moment")
    plots.shared_legend(drawing, axes[0])
    drawing.suptitle("AdaGrad's memory only grows, RMSprop's forgets")
    plots.save(drawing, path)


study = Study(
    __name__, Settings, simulate, claims=claims, figures={"second_moment": figure}
)
