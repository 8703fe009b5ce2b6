"""Where do nine methods go on one function, from the same starting points?

Every method must end lower than it began. A step of Adam is about lr long, and has a
bound that is longer than the one of its paper (see `methods.longest_step`).
"""

import dataclasses
from functools import partial
from typing import Any

import numpy as np

from experiments.descent import methods, paths
from experiments.descent.functions import FUNCTIONS
from experiments.descent.methods import METHODS
from optsde.analysis import below, estimate_or_exact, exact, plots, table
from optsde.study import Names, Numbers, Seeds, Study, setting

OF_START = (plots.COLOURS[5], plots.COLOURS[0], plots.COLOURS[2], plots.COLOURS[3])


class Settings(Seeds):
    function: str = setting("bowl", "what is descended", one_of=FUNCTIONS)
    methods: Names = setting(
        tuple(METHODS), "that descend it", some_of=METHODS, entries=1
    )
    start: Numbers = setting((), "x, y of each point", zero="the function's own")
    steps: int = setting(0, "steps of a path", zero="the function's own", at_least=0)
    lr: float = setting(
        0.0, "learning rate along gradients", zero="the function's own", at_least=0
    )
    stride: float = setting(
        0.0, "lr of scaled steps and signs", zero="the function's own", at_least=0
    )
    seeds = 64  # where there is noise; the first is drawn

    def demands(self):
        yield from super().demands()
        domain, numbers = FUNCTIONS[self.function].domain, self.start
        whole = len(numbers) % len(domain) == 0
        fine = whole and len(numbers) <= len(domain) * len(OF_START)
        allowed = (
            f"{len(domain)} coordinates for each of at most {len(OF_START)} points"
        )
        yield fine, "start", allowed
        bounds = domain * (len(numbers) // len(domain))
        inside = all(
            low <= x <= high for x, (low, high) in zip(numbers, bounds, strict=True)
        )
        spans = " × ".join(f"[{low:g}, {high:g}]" for low, high in domain)
        yield inside, "start", f"points in the domain of {self.function}, {spans}"


def function_of(s):
    """Returns the function, with what the settings say in place of its own."""
    function = FUNCTIONS[s.function]
    size, steps = len(function.domain), s.steps or function.steps
    points = [s.start[i : i + size] for i in range(0, len(s.start), size)]
    given: dict[str, Any] = {"lr": s.lr, "stride": s.stride, "starts": tuple(points)}
    changes = {name: value for name, value in given.items() if value}
    if changes or steps < function.steps:
        changes["lesson"] = ""  # which is that of the function's own settings
    return dataclasses.replace(function, steps=steps, **changes)


def simulate(s, rundir):
    """Returns the paths of each method, [starts, seeds, steps + 1, coordinates]."""
    function = function_of(s)
    seeds = s.seeds if function.noise else 1
    return descend(s, rundir, function.starts, seeds)


def descend(s, rundir, starts, seeds):
    """Returns the paths of all methods from these points."""
    function = function_of(s)
    optimizers = methods.optimizers(s.methods, function)
    make = partial(
        paths.descend, function, optimizers, starts, function.steps, seeds, s.seed
    )
    return rundir.once("paths", make)


# ---- what is made of them


def tables(s, runs):
    """Yields where the first seed's paths ended."""
    function, rows = function_of(s), []
    for name, path in runs.items():
        for start, end in zip(function.starts, path[:, 0, -1], strict=True):
            cells = [" ".join(f"{x:.3g}" for x in point) for point in (start, end)]
            rows.append([METHODS[name].title, *cells, f"{function.height(end):.3g}"])
    yield table(["method", "from", "to", "above the minimum"], rows, "lrrr")


def claims(s, runs):
    function = function_of(s)
    for name, path in runs.items():
        left = function.height(path[:, :, -1]) / function.height(path[:, :, 0])
        x = estimate_or_exact(left.max(axis=0))
        yield below(f"{name}_ends_lower", x, 1.0, "of the height at first")
    if "adam" in runs:
        adam: Any = methods.optimizers(["adam"], function)["adam"]
        steps = np.abs(np.diff(runs["adam"], axis=2))
        longest = exact(steps.max() / adam.lr)
        bound = methods.longest_step(adam.b1, adam.b2)
        yield below("adam_steps_are_about_lr", longest, 1.1, "lr")
        yield below("adam_longest_step", longest, bound, "lr")


def figure(s, runs, path):
    """Draws a panel for each method, with a colour for each starting point."""
    function = function_of(s)
    dot = 3.5 if function.steps <= 20 else 2.0 if function.steps <= 100 else 0.8
    columns = min(3, len(runs))
    rows = -(-len(runs) // columns)
    drawing, axes = plots.new_figure(columns, plots.HALF_SLIDE, 0.6 + 1.95 * rows, rows)
    across, up = ("x", "y") if len(function.domain) == 2 else ("x", "f(x)")
    for number, (ax, (name, walks)) in enumerate(zip(axes, runs.items(), strict=False)):
        draw_function(ax, function)
        for walk, colour in zip(walks[:, 0], OF_START, strict=False):
            xy = on_picture(function, walk)
            ax.plot(*xy, color=colour, lw=1.4, marker="o", ms=dot)
            ax.plot(*xy[:, 0], color=colour, marker="o", ms=6, mec="white")
        lowest, first = number >= len(runs) - columns, number % columns == 0
        ax.tick_params(labelbottom=lowest, labelleft=first)
        x, y = across if lowest else "", up if first else ""
        plots.label(ax, x=x, y=y, title=METHODS[name].title)
    for ax in axes[len(runs) :]:
        ax.set_visible(False)
    drawing.suptitle(heading(function))
    plots.save(drawing, path)


def heading(function):
    """Returns the title of a picture of the function."""
    lesson = f":\n{function.lesson}" if function.lesson else ""
    return f"{function.title}, {function.steps} steps{lesson}"


def on_picture(function, walk):
    """Returns [2, points]: the coordinates, or for one coordinate the graph."""
    if len(function.domain) == 1:
        return np.stack([walk[:, 0], function.loss(walk.T)])
    return walk.T


def draw_function(ax, function):
    """Draws contours, close together near the minimum, or a graph; crosses: minima."""
    grid = function.grid()
    above = function.height(np.stack(grid, axis=-1))
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


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"trajectories": figure},
)
