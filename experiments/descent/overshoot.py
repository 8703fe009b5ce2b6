"""Why does momentum run past the minimum, and from which β on?

On ½λx² the heavy ball is x″ with friction: its roots are those of
z² − (1 + β − ηλ) z + β, and are real, so that nothing swings, up to β = (1 − √(ηλ))².
Descent alone swings only where ηλ > 1.
"""

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.descent import paths
from experiments.descent.functions import FUNCTIONS, Function
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import Verdict, above, below, exact, interval, within
from optsde.analysis.plots import COLOURS, HALF_SLIDE, new_figure, save

CURVATURE = 2.0  # of x²
SHADES = (COLOURS[4], COLOURS[0], COLOURS[2])  # of the values of β
FORMS = {  # colour, line, words
    "heavy_ball": (COLOURS[0], "-", "Heavy ball"),
    "nesterov": (COLOURS[5], "--", "Nesterov"),
}


def check(config: ConfigDict) -> None:
    calm = 0 < config.lr * CURVATURE < 1
    require(calm, config, "lr", "0 < lr < 0.5, where descent does not swing")
    require(config.steps >= 20, config, "steps", "at least 20")
    require(config.points >= 3, config, "points", "at least 3 values of β")
    fine = bool(config.betas) and all(0 < beta < 1 for beta in config.betas)
    require(fine and len(config.betas) <= 3, config, "betas", "up to 3 in (0, 1)")
    swings = max(config.betas) > threshold(config)
    allowed = f"one above {threshold(config):.3f}, from where on momentum swings"
    require(swings, config, "betas", allowed)


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    function = FUNCTIONS["parabola"]
    shown: dict[str, optsde.Optimizer] = {"gd": optsde.SGD(lr=config.lr)}
    for beta in config.betas:
        shown[f"{beta:g}"] = optsde.HeavyBall(lr=config.lr, beta=beta)
    largest = max(config.betas)
    shown["nesterov"] = optsde.HeavyBall(lr=config.lr, beta=largest, nesterov=True)
    found = paths.descend(function, shown, [(1.0,)], config.steps)
    walks = {name: path[0, 0, :, 0] for name, path in found.items()}
    betas = np.linspace(0.0, 0.99, config.points)
    reach = {form: overshoot_of(function, config, betas, form) for form in FORMS}
    rundir.add_curves({**walks, "betas": betas, **reach})
    draw(config, walks, betas, reach, rundir.figure("overshoot"))
    return judge(config, walks, betas, reach)


def threshold(config: ConfigDict) -> float:
    """The β above which the heavy ball swings."""
    return (1 - (config.lr * CURVATURE) ** 0.5) ** 2


def past(walk: np.ndarray) -> np.ndarray:
    """How far a path from 1 gets beyond 0, over its last axis."""
    return np.maximum(-walk.min(axis=-1), 0)


def overshoot_of(function: Function, config: ConfigDict, betas, form: str):
    """The overshoot at each β, all in one compiled call."""
    import jax
    import jax.numpy as jnp

    def of_one(beta):
        optimizer = optsde.HeavyBall(
            lr=config.lr, beta=beta, nesterov=form == "nesterov"
        )
        run = paths.dynamics_of(function, optimizer, jnp.ones(1), config.steps)
        return paths.follow(run, jax.random.key(0), config.steps)[:, 0]

    with jax.enable_x64(True):
        return past(np.asarray(jax.jit(jax.vmap(of_one))(jnp.asarray(betas))))


def judge(config: ConfigDict, walks, betas, reach) -> list[Verdict]:
    begins = betas[np.argmax(reach["heavy_ball"] > 0)]
    cell = float(betas[1] - betas[0])
    late = interval(exact(begins - threshold(config)))
    largest = f"{max(config.betas):g}"
    far = float(past(walks[largest]))
    return [
        below("gd_never_passes", exact(past(walks["gd"])), 1e-12, "of the start"),
        above("momentum_passes", exact(far), 0.1, "of the start"),
        below("nesterov_passes_less", exact(past(walks["nesterov"]) / far), 1, "ratio"),
        within("begins_at_the_critical_beta", late, -cell, cell, "β; bound: grid"),
    ]


def draw(config: ConfigDict, walks, betas, reach, path) -> None:
    figure, (left, right) = new_figure(2, HALF_SLIDE, 3.9)
    styles = {"gd": (COLOURS[6], "-", "descent")}
    for beta, colour in zip(config.betas, SHADES, strict=False):
        styles[f"{beta:g}"] = (colour, "-", f"β = {beta:g}")
    styles["nesterov"] = (COLOURS[5], "--", f"Nesterov, {max(config.betas):g}")
    for name, (colour, line, label) in styles.items():
        left.plot(walks[name], color=colour, ls=line, lw=1.8, label=label)
    left.axhline(0, color="0.5", lw=0.8)
    left.set(xlabel="step", xlim=(0, 80), ylabel="x, from 1")
    left.set_title("Momentum swings past 0")
    left.legend(handlelength=1.4, borderaxespad=0.1)
    for form, (colour, line, label) in FORMS.items():
        right.plot(betas, 100 * reach[form], color=colour, ls=line, lw=1.8, label=label)
    foreseen = threshold(config)
    right.plot([foreseen] * 2, [0, 60], color="0.4", ls=":", lw=1.5)
    beside = dict(ha="right", va="center", rotation=90)
    right.text(foreseen - 0.03, 30, "(1 − √(ηλ))²", **beside)
    right.set(xlabel="β", ylabel="overshoot, % of the start")
    right.set_title("… from a critical β on")
    right.legend(loc="upper left")
    save(figure, path)
