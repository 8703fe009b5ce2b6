"""Where do nine methods go on one function, from the same starting points?"""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from experiments.descent import methods, paths
from experiments.descent.functions import FUNCTIONS, Function, Point
from experiments.launch import UsageError, require
from experiments.rundir import RunDir
from optsde.analysis import Verdict, below, estimate_or_exact, exact, table
from optsde.analysis.plots import COLOURS, HALF_SLIDE, new_figure, save

OF_START = (COLOURS[5], COLOURS[0], COLOURS[2], COLOURS[3])


def check(config: ConfigDict) -> None:
    allowed = ", ".join(FUNCTIONS)
    require(config.function in FUNCTIONS, config, "function", f"one of: {allowed}")
    check_methods(config)
    require(config.steps >= 0, config, "steps", "steps, or 0 for the function's own")
    for name in ("lr", "stride"):
        require(config[name] >= 0, config, name, "a rate, or 0 for the function's own")
    require(config.seeds >= 2, config, "seeds", "at least 2, for functions with noise")
    function_of(config)


def check_methods(config: ConfigDict) -> None:
    allowed = ", ".join(methods.METHODS)
    known = all(name in methods.METHODS for name in config.methods)
    require(known and bool(config.methods), config, "methods", f"some of: {allowed}")


def function_of(config: ConfigDict) -> Function:
    """The function of this name, with what the config sets in place of its own."""
    function = FUNCTIONS[config.function]
    changes = {n: config[n] for n in ("lr", "stride") if config[n]}
    if config.start:
        changes["starts"] = _starts(config, function)
    steps = config.steps or function.steps
    if changes or steps < function.steps:
        changes["lesson"] = ""  # which is that of the function's own settings
    return dataclasses.replace(function, steps=steps, **changes)


def _starts(config: ConfigDict, function: Function) -> tuple[Point, ...]:
    """config.start cut into points."""
    size, given = len(function.domain), config.start
    numbers = all(isinstance(x, int | float) for x in given)
    require(numbers, config, "start", "numbers, such as 2.0,1.0")
    whole = len(given) % size == 0 and len(given) <= size * len(OF_START)
    allowed = f"{size} coordinates for each of at most {len(OF_START)} points"
    require(whole, config, "start", allowed)
    points = tuple(tuple(given[i : i + size]) for i in range(0, len(given), size))
    for point in points:
        for x, (low, high) in zip(point, function.domain, strict=True):
            if not low <= x <= high:
                raise UsageError(
                    f"--config.start={given}: {x:g} is outside the domain of "
                    f"{config.function}, {_spans(function)}"
                )
    return points


def _spans(function: Function) -> str:
    return " × ".join(f"[{low:g}, {high:g}]" for low, high in function.domain)


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    function = function_of(config)
    optimizers = methods.optimizers(config.methods, function)
    seeds = config.seeds if function.noise else 1
    found = paths.descend(
        function, optimizers, function.starts, function.steps, seeds, config.seed
    )
    rundir.add_curves(found)
    print(outcome(function, found))
    draw(function, found, rundir.figure("trajectories"))
    return judge(function, optimizers, found)


def outcome(function: Function, found: dict[str, np.ndarray]) -> str:
    """Where the first seed's paths ended."""
    rows = []
    for name, path in found.items():
        for start, end in zip(function.starts, path[:, 0, -1], strict=True):
            cells = [" ".join(f"{x:.3g}" for x in point) for point in (start, end)]
            value = f"{height(function, end):.3g}"
            rows.append([methods.METHODS[name].title, *cells, value])
    return table(["method", "from", "to", "above the minimum"], rows, "lrrr")


def height(function: Function, points: np.ndarray) -> np.ndarray:
    """Above the minimum, of points [..., coordinates]; NaN where a path diverged."""
    with np.errstate(over="ignore", invalid="ignore"):
        return function.loss(np.moveaxis(points, -1, 0)) - function.lowest


def judge(function: Function, optimizers, found) -> list[Verdict]:
    """Every method ends lower than it began; Adam's steps are about lr, or shorter."""
    verdicts = []
    for name, path in found.items():
        ends, starts = height(function, path[:, :, -1]), height(function, path[:, :, 0])
        left = np.max(ends / starts, axis=0)
        x = estimate_or_exact(left)
        verdicts.append(below(f"{name}_ends_lower", x, 1.0, "of the height at first"))
    if "adam" in found:
        adam = optimizers["adam"]
        steps = np.abs(np.diff(found["adam"], axis=2))
        longest = exact(steps.max() / adam.lr)
        bound = methods.longest_step(adam.b1, adam.b2)
        verdicts.append(below("adam_steps_are_about_lr", longest, 1.1, "lr"))
        verdicts.append(below("adam_longest_step", longest, bound, "lr"))
    return verdicts


def draw(function: Function, found: dict[str, np.ndarray], path) -> None:
    """One panel for each method; a colour for each starting point."""
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    figure, axes = new_figure(columns, HALF_SLIDE, 0.6 + 1.95 * rows, rows)
    for ax, (name, walks) in zip(axes, found.items(), strict=False):
        draw_function(ax, function)
        for walk, colour in zip(walks[:, 0], OF_START, strict=False):
            xy = on_picture(function, walk)
            ax.plot(*xy, color=colour, lw=1.4, marker="o", ms=_dot(function))
            ax.plot(*xy[:, 0], color=colour, marker="o", ms=6, mec="white")
        ax.set_title(methods.METHODS[name].title, fontsize=12)
    for ax in axes[len(found) :]:
        ax.set_visible(False)
    across, up = ("x", "y") if len(function.domain) == 2 else ("x", "f(x)")
    for number, ax in enumerate(axes[: len(found)]):
        lowest, first = number >= len(found) - columns, number % columns == 0
        ax.tick_params(labelbottom=lowest, labelleft=first)
        ax.set(xlabel=across if lowest else "", ylabel=up if first else "")
    figure.suptitle(heading(function))
    save(figure, path)


def heading(function: Function) -> str:
    lesson = f":\n{function.lesson}" if function.lesson else ""
    return f"{function.title}, {function.steps} steps{lesson}"


def _dot(function: Function) -> float:
    return 3.5 if function.steps <= 20 else 2.0 if function.steps <= 100 else 0.8


def on_picture(function: Function, walk: np.ndarray) -> np.ndarray:
    """[2, points]: the coordinates, or for one coordinate the graph."""
    if len(function.domain) == 1:
        return np.stack([walk[:, 0], function.loss(walk.T)])
    return walk.T


def draw_function(ax, function: Function) -> None:
    """Contours, close together near the minimum, or a graph; minima are crosses."""
    grid = function.grid()
    above = height(function, np.stack(grid, axis=-1))
    ax.grid(False)
    if len(grid) == 1:
        ax.plot(grid[0], function.value(*grid), color="0.6", lw=1.2)
    else:
        levels = above.max() * np.geomspace(2e-4, 1, 12)
        ax.contourf(*grid, above, [0, *levels], cmap="gray", norm="asinh", alpha=0.5)
        ax.contour(*grid, above, levels, colors="0.45", linewidths=0.4)
        ax.set(xlim=function.domain[0], ylim=function.domain[1])
    for minimum in function.minima:
        place = on_picture(function, np.array([minimum]))
        ax.plot(*place, color="black", marker="x", ms=7, mew=2, ls="none", zorder=5)
