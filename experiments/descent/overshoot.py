"""Why does momentum run past the minimum, and from which β on?

On ½λx² the heavy ball is x″ with friction: its roots are those of
z² − (1 + β − ηλ) z + β, and are real, so that nothing swings, up to β = (1 − √(ηλ))².
Descent alone swings only where ηλ > 1.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from experiments.descent import paths
from experiments.descent.functions import FUNCTIONS
from optsde.analysis import above, below, exact, interval, plots, within
from optsde.study import Numbers, Study, setting
from optsde.study import Settings as Base

FUNCTION = FUNCTIONS["parabola"]
CURVATURE = 2.0  # of x²
SHADES = (plots.COLOURS[4], plots.COLOURS[0], plots.COLOURS[2])  # of the values of β
FORMS = {  # colour, line, words
    "heavy_ball": (plots.COLOURS[0], "-", "Heavy ball"),
    "nesterov": (plots.COLOURS[5], "--", "Nesterov"),
}


class Settings(Base):
    lr: float = setting(
        0.05, "so low that descent does not swing", above=0, below=1 / CURVATURE
    )
    betas: Numbers = setting(
        (0.5, 0.9), "up to 3, of the paths", above=0, below=1, entries=1
    )
    steps: int = setting(200, "of a path", at_least=20)
    points: int = setting(100, "values of β from 0 to 0.99", at_least=3)

    def demands(self):
        yield from super().demands()
        yield len(self.betas) <= len(SHADES), "betas", f"at most {len(SHADES)}"
        swings = max(self.betas) > threshold(self)
        allowed = f"one above {threshold(self):.3f}, from where on momentum swings"
        yield swings, "betas", allowed


def threshold(s):
    """Returns the β above which the heavy ball swings."""
    return (1 - (s.lr * CURVATURE) ** 0.5) ** 2


def simulate(s, rundir):
    """Returns the paths, and the overshoot over a grid of β."""
    return {
        "paths": rundir.once("paths", partial(paths_of, s)),
        "overshoot": rundir.once("overshoot", partial(overshoot_of, s)),
    }


def paths_of(s):
    """Returns the paths from 1 of descent, each β and Nesterov's form, [steps + 1]."""
    methods: dict[str, optsde.Optimizer] = {"gd": optsde.SGD(lr=s.lr)}
    for beta in s.betas:
        methods[f"{beta:g}"] = optsde.HeavyBall(lr=s.lr, beta=beta)
    largest = max(s.betas)
    methods["nesterov"] = optsde.HeavyBall(lr=s.lr, beta=largest, nesterov=True)
    walks = paths.descend(FUNCTION, methods, [(1.0,)], s.steps)
    return {name: walk[0, 0, :, 0] for name, walk in walks.items()}


def overshoot_of(s):
    """Returns a grid of `betas`, and the overshoot at each in both forms."""
    betas = np.linspace(0.0, 0.99, s.points)

    def walk(form, beta):
        nesterov = form == "nesterov"
        optimizer = optsde.HeavyBall(lr=s.lr, beta=beta, nesterov=nesterov)
        run = paths.dynamics_of(FUNCTION, optimizer, jnp.ones(1), s.steps)
        return paths.follow(run, jax.random.key(0), s.steps)[:, 0]

    with jax.enable_x64(True):
        walks = {
            form: np.asarray(jax.jit(jax.vmap(partial(walk, form)))(jnp.asarray(betas)))
            for form in FORMS
        }
    return {"betas": betas, **{form: past(walk) for form, walk in walks.items()}}


def past(walk):
    """Returns how far a path from 1 gets beyond 0, over its last axis."""
    return np.maximum(-walk.min(axis=-1), 0)


def claims(s, runs):
    walks, betas = runs["paths"], runs["overshoot"]["betas"]
    far = float(past(walks[f"{max(s.betas):g}"]))
    yield below("gd_never_passes", exact(past(walks["gd"])), 1e-12, "of the start")
    yield above("momentum_passes", exact(far), 0.1, "of the start")
    ratio = exact(past(walks["nesterov"]) / far)
    yield below("nesterov_passes_less", ratio, 1, "ratio")
    begins = betas[np.argmax(runs["overshoot"]["heavy_ball"] > 0)]
    late, cell = interval(exact(begins - threshold(s))), float(betas[1] - betas[0])
    yield within("begins_at_the_critical_beta", late, -cell, cell, "β; bound: grid")


def figure(s, runs, path):
    drawing, (left, right) = plots.new_figure(2, plots.HALF_SLIDE, 3.9)
    styles = {"gd": (plots.COLOURS[6], "-", "descent")}
    for beta, colour in zip(s.betas, SHADES, strict=False):
        styles[f"{beta:g}"] = (colour, "-", f"β = {beta:g}")
    styles["nesterov"] = (plots.COLOURS[5], "--", f"Nesterov, {max(s.betas):g}")
    for name, (colour, line, words) in styles.items():
        left.plot(runs["paths"][name], color=colour, ls=line, lw=1.8, label=words)
    left.axhline(0, color="0.5", lw=0.8)
    left.set(xlim=(0, 80))
    title = "Momentum swings past 0"
    plots.label(left, x="step", y="x, from 1", title=title, legend="upper right")
    betas, foreseen = runs["overshoot"]["betas"], threshold(s)
    for form, (colour, line, words) in FORMS.items():
        percent = 100 * runs["overshoot"][form]
        right.plot(betas, percent, color=colour, ls=line, lw=1.8, label=words)
    right.plot([foreseen] * 2, [0, 60], color="0.4", ls=":", lw=1.5)
    beside = dict(ha="right", va="center", rotation=90)
    right.text(foreseen - 0.03, 30, "(1 − √(ηλ))²", **beside)
    title, y = "… from a critical β on", "overshoot, % of the start"
    plots.label(right, x="β", y=y, title=title, legend="upper left")
    plots.save(drawing, path)


study = Study(
    __name__, Settings, simulate, claims=claims, figures={"overshoot": figure}
)
