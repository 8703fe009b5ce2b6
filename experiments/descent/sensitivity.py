"""How much do lr and β matter, and together?

Final loss over lr × β for momentum and for Adam: all runs of a map are one compiled
call. On a quadratic the heavy ball diverges above ηλ_max = 2(1 + β), and is fastest
along its slowest direction at β = (1 − √(ηλ_min))²; both lines are drawn.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from experiments.descent import paths
from experiments.descent.functions import FUNCTIONS
from optsde.analysis import above, exact, interval, plots, within
from optsde.run import Progress
from optsde.study import Settings as Base
from optsde.study import Study, setting

QUADRATIC = ("parabola", "bowl", "ravine")
TITLES = {"momentum": "Momentum (heavy ball)", "adam": "Adam"}
FLOOR = -8.0  # of log10: below that, all is well


class Settings(Base):
    function: str = setting(
        "ravine",
        "what is descended",
        one_of=[name for name, f in FUNCTIONS.items() if not f.noise],
    )
    steps: int = setting(100, "of each run", at_least=1)
    rates: int = setting(40, "of a map", at_least=4)
    betas: int = setting(30, "of a map", at_least=4)


def simulate(s, rundir):
    return rundir.once("maps", partial(maps, s))


def maps(s):
    """Returns for each method the height at the end, of that at first, [1 − β, lr].

    Besides them the grids: `memory` is 1 − β, METHOD_rates go past where momentum
    diverges, or to steps that are too long.
    """
    function = FUNCTIONS[s.function]
    memory = np.geomspace(1.0, 0.01, s.betas)
    fastest = curvatures_of(function)[-1]
    rates = {
        "momentum": np.geomspace(2e-3, 6.0, s.rates) / fastest,
        "adam": np.geomspace(0.01, 30.0, s.rates) * function.stride,
    }
    makers: dict[str, Callable] = {
        "momentum": lambda lr, beta: optsde.HeavyBall(lr=lr, beta=beta),
        "adam": lambda lr, beta: optsde.Adam(lr=lr, b1=beta, b2=0.99),
    }
    start = np.array(function.starts[0], float)
    at_first = function.loss(start) - function.lowest

    def height(make, lr, beta):
        run = paths.dynamics_of(function, make(lr, beta), start, s.steps)
        end = paths.follow(run, jax.random.key(0), s.steps)[-1]
        return (function.loss(end) - function.lowest) / at_first

    def of_grid(rates, betas):
        return {
            name: jax.vmap(jax.vmap(partial(height, make), (0, None)), (None, 0))(
                rates[name], betas
            )
            for name, make in makers.items()
        }

    Progress(f"{s.rates} × {s.betas} runs of each method").say("compiling")
    with jax.enable_x64(True):
        heights = jax.jit(of_grid)(rates, jnp.asarray(1 - memory))
        heights = {name: np.asarray(heights[name]) for name in TITLES}
    named = {f"{name}_rates": lrs for name, lrs in rates.items()}
    return {**heights, **named, "memory": memory}


def curvatures_of(function):
    """Returns the eigenvalues of the Hessian at the first minimum, rising."""
    with jax.enable_x64(True):
        hessian = jax.hessian(function.loss)(np.array(function.minima[0], float))
        return np.linalg.eigvalsh(np.asarray(hessian))


def critical_memory(lr, curvature):
    """Returns 1 − β with β = (1 − √(ηλ))²."""
    return 1 - np.maximum(1 - np.sqrt(lr * curvature), 0) ** 2


def claims(s, runs):
    """Momentum diverges where theory says, and is best at long memory where lr is low.

    The second claim is of rates at which the best memory is shorter than the run.
    """
    curvatures = curvatures_of(FUNCTIONS[s.function])
    left, rates, memory = runs["momentum"], runs["momentum_rates"], runs["memory"]
    lr, beta = np.meshgrid(rates, 1 - memory)
    foreseen = lr * curvatures[-1] > 2 * (1 + beta)
    diverged = ~(left < 1)
    right = exact(np.mean(foreseen == diverged))
    quadratic = s.function in QUADRATIC
    yield above("stable_below_2(1+β)/λ", right, 0.97, "of the map", quadratic)
    ridge = critical_memory(rates, curvatures[0])
    judged = (ridge > 5 / s.steps) & (ridge < 1)
    best = memory[np.argmin(np.where(diverged, np.inf, left), axis=0)]
    judged &= rates * curvatures[-1] < 2
    if judged.any():
        off = interval(exact(np.median(np.log2(best / ridge)[judged])))
        yield within("best_memory_is_critical", off, -1, 1, "log2", quadratic)


def figure(s, runs, path):
    drawing, axes = plots.new_figure(2, plots.HALF_SLIDE, 4.0)
    memory, curvatures = runs["memory"], curvatures_of(FUNCTIONS[s.function])
    for ax, (name, title) in zip(axes, TITLES.items(), strict=True):
        with np.errstate(invalid="ignore", divide="ignore"):
            heights = np.maximum(np.log10(runs[name]), FLOOR)
        heights = np.where(runs[name] < 1, heights, np.nan)
        image = plots.heat_map(
            ax, runs[f"{name}_rates"], memory, heights, vmin=FLOOR, vmax=0
        )
        plots.label(ax, x="learning rate η", title=title)
    first, last = axes
    if s.function in QUADRATIC:
        lrs, limits = runs["momentum_rates"], (first.get_xlim(), first.get_ylim())
        border = 2 * (2 - memory) / curvatures[-1]
        first.plot(
            border, memory, color=plots.COLOURS[5], lw=2.5, label="limit of stability"
        )
        ridge = critical_memory(lrs, curvatures[0])
        words = "critical damping (slow axis)"
        first.plot(lrs, ridge, color=plots.COLOURS[3], lw=2.5, ls="--", label=words)
        first.set(xlim=limits[0], ylim=limits[1])
        plots.shared_legend(drawing, first)
    first.set_ylabel("1 − β   (longer memory below)")
    last.tick_params(labelleft=False)
    bar = drawing.colorbar(image, ax=axes, pad=0.02)
    bar.set_label("log₁₀ of the height left")
    title = FUNCTIONS[s.function].title
    drawing.suptitle(f"{title} after {s.steps} steps; grey: higher than at first")
    plots.save(drawing, path)


study = Study(
    __name__, Settings, simulate, claims=claims, figures={"sensitivity": figure}
)
