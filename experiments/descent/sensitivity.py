"""How much do lr and β matter, and together?

Final loss over lr × β for momentum and for Adam: all runs of a map are one compiled
call. On a quadratic the heavy ball diverges above ηλ_max = 2(1 + β), and is fastest
along its slowest direction at β = (1 − √(ηλ_min))²; both lines are drawn.
"""

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.descent import paths
from experiments.descent.functions import FUNCTIONS, Function
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import Verdict, above, exact, interval, within
from optsde.analysis.plots import COLOURS, HALF_SLIDE, heat_map, new_figure, save

QUADRATIC = ("parabola", "bowl", "ravine")
TITLES = {"momentum": "Momentum (heavy ball)", "adam": "Adam"}
FLOOR = -8.0  # of log10: below that, all is well


def check(config: ConfigDict) -> None:
    allowed = ", ".join(name for name, f in FUNCTIONS.items() if not f.noise)
    known = config.function in allowed.split(", ")
    require(known, config, "function", f"one of: {allowed}")
    require(config.steps >= 1, config, "steps", "an integer ≥ 1")
    for name in ("rates", "betas"):
        require(config[name] >= 4, config, name, "at least 4 values")


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    function = FUNCTIONS[config.function]
    curvatures = curvatures_of(function)
    rates = rates_of(config, function, curvatures)
    memory = np.geomspace(1.0, 0.01, config.betas)  # 1 − β
    left = maps(function, rates, 1 - memory, config.steps)
    named = {f"{name}_rates": lrs for name, lrs in rates.items()}
    rundir.add_curves({**left, **named, "memory": memory})
    draw(config, left, rates, memory, curvatures, rundir.figure("sensitivity"))
    return judge(config, left, rates, memory, curvatures)


def curvatures_of(function: Function) -> np.ndarray:
    """Eigenvalues of the Hessian at the first minimum, rising."""
    import jax

    with jax.enable_x64(True):
        hessian = jax.hessian(function.loss)(np.array(function.minima[0], float))
        return np.linalg.eigvalsh(np.asarray(hessian))


def rates_of(config: ConfigDict, function: Function, curvatures) -> dict:
    """Learning rates: past where momentum diverges, and to steps that are too long."""
    return {
        "momentum": np.geomspace(2e-3, 6.0, config.rates) / curvatures[-1],
        "adam": np.geomspace(0.01, 30.0, config.rates) * function.stride,
    }


def maps(function: Function, rates, betas, steps: int) -> dict[str, np.ndarray]:
    """Height at the end, of the height at first, [β, lr] for each method."""
    import jax
    import jax.numpy as jnp

    def momentum(lr, beta):
        return optsde.HeavyBall(lr=lr, beta=beta)

    def adam(lr, beta):
        return optsde.Adam(lr=lr, b1=beta, b2=0.99)

    start = np.array(function.starts[0], float)
    at_first = function.loss(start) - function.lowest

    def all_of_them(rates, betas):
        def left(make, lr, beta):
            run = paths.dynamics_of(function, make(lr, beta), start, steps)
            end = paths.follow(run, jax.random.key(0), steps)[-1]
            return (function.loss(end) - function.lowest) / at_first

        def of_all(make, lrs):
            over_lr = jax.vmap(lambda lr, beta: left(make, lr, beta), (0, None))
            return jax.vmap(over_lr, (None, 0))(lrs, betas)

        makers = {"momentum": momentum, "adam": adam}
        return {name: of_all(make, rates[name]) for name, make in makers.items()}

    with jax.enable_x64(True):
        found = jax.jit(all_of_them)(rates, jnp.asarray(betas))
        return {name: np.asarray(found[name]) for name in TITLES}


def judge(config: ConfigDict, left, rates, memory, curvatures) -> list[Verdict]:
    """Momentum diverges where theory says, and is best at long memory where lr is low.

    The second claim is of rates at which the best memory is shorter than the run.
    """
    lr, beta = np.meshgrid(rates["momentum"], 1 - memory)
    diverges = lr * curvatures[-1] > 2 * (1 + beta)
    seen = ~(left["momentum"] < 1)
    right = exact(np.mean(diverges == seen))
    quadratic = config.function in QUADRATIC
    verdicts = [above("stable_below_2(1+β)/λ", right, 0.97, "of the map", quadratic)]
    ridge = critical_memory(rates["momentum"], curvatures[0])
    judged = (ridge > 5 / config.steps) & (ridge < 1)
    best = memory[np.argmin(np.where(seen, np.inf, left["momentum"]), axis=0)]
    judged &= rates["momentum"] * curvatures[-1] < 2
    if judged.any():
        off = exact(np.median(np.log2(best / ridge)[judged]))
        verdicts.append(
            within("best_memory_is_critical", interval(off), -1, 1, "log2", quadratic)
        )
    return verdicts


def critical_memory(lr, curvature: float):
    """1 − β with β = (1 − √(ηλ))²."""
    return 1 - np.maximum(1 - np.sqrt(lr * curvature), 0) ** 2


def draw(config: ConfigDict, left, rates, memory, curvatures, path) -> None:
    figure, axes = new_figure(2, HALF_SLIDE, 4.0)
    for ax, (name, share) in zip(axes, left.items(), strict=True):
        with np.errstate(invalid="ignore", divide="ignore"):
            shown = np.where(share < 1, np.maximum(np.log10(share), FLOOR), np.nan)
        image = heat_map(ax, rates[name], memory, shown, vmin=FLOOR, vmax=0)
        ax.set(xlabel="learning rate η", title=TITLES[name])
    first, lrs = axes[0], rates["momentum"]
    if config.function in QUADRATIC:
        limits = first.get_xlim(), first.get_ylim()
        border = 2 * (2 - memory) / curvatures[-1]
        first.plot(border, memory, color=COLOURS[5], lw=2.5, label="limit of stability")
        ridge = critical_memory(lrs, curvatures[0])
        damping = dict(color=COLOURS[3], lw=2.5, ls="--")
        first.plot(lrs, ridge, **damping, label="critical damping (slow axis)")
        first.set(xlim=limits[0], ylim=limits[1])
        handles = first.get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=2)
    axes[0].set_ylabel("1 − β   (longer memory below)")
    axes[1].tick_params(labelleft=False)
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label("log₁₀ of the height left")
    title = FUNCTIONS[config.function].title
    figure.suptitle(f"{title} after {config.steps} steps; grey: higher than at first")
    save(figure, path)
