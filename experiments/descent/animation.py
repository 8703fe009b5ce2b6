"""The same paths as a race: one picture in motion, as a GIF."""

import numpy as np
from ml_collections import ConfigDict

from experiments.descent import methods, paths, trajectories
from experiments.descent.functions import Function
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import Verdict
from optsde.analysis.plots import COLOURS, HALF_SLIDE, new_figure

DPI = 100


def check(config: ConfigDict) -> None:
    trajectories.check(config)
    few = len(config.methods) <= len(COLOURS)
    require(few, config, "methods", f"at most {len(COLOURS)}, one for each colour")
    require(2 <= config.frames <= 200, config, "frames", "2 to 200")
    require(1 <= config.frames_per_second <= 50, config, "frames_per_second", "1 to 50")
    plane = len(trajectories.function_of(config).domain) == 2
    require(plane, config, "function", "a function of two coordinates")


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    function = trajectories.function_of(config)
    optimizers = methods.optimizers(config.methods, function)
    start = function.starts[:1]
    found = paths.descend(function, optimizers, start, function.steps, 1, config.seed)
    rundir.add_curves(found)
    walks = {name: path[0, 0] for name, path in found.items()}
    file = rundir.figure("race").with_suffix(".gif")
    animate(config, function, walks, file)
    print(f"{file.stat().st_size / 1e6:.2f} MB: {file}")
    return trajectories.judge(function, optimizers, found)


def animate(config: ConfigDict, function: Function, walks, file) -> None:
    """Each frame shows the paths up to a step; the frames are equally far apart."""
    from matplotlib.animation import FuncAnimation, PillowWriter

    figure, (ax,) = new_figure(1, HALF_SLIDE, 4.4)
    trajectories.draw_function(ax, function)
    lines, heads = {}, {}
    for (name, walk), colour in zip(walks.items(), COLOURS, strict=False):
        title = methods.METHODS[name].title
        (lines[name],) = ax.plot([], [], color=colour, lw=1.6)
        (heads[name],) = ax.plot(
            *walk[:1].T, color=colour, marker="o", ms=8, mec="white", ls="none"
        )
        heads[name].set_label(title)
    figure.legend(loc="outside right center", handletextpad=0.1)
    clock = ax.set_title("step 0")
    shown = np.linspace(0, function.steps, config.frames).round().astype(int)
    figure.suptitle(trajectories.heading(function), fontsize=12)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, so that nothing moves but paths

    def show(step):
        clock.set_text(f"step {step}")
        for name, walk in walks.items():
            lines[name].set_data(*walk[: step + 1].T)
            heads[name].set_data(*walk[step : step + 1].T)

    pause = [shown[-1]] * config.frames_per_second
    film = FuncAnimation(figure, show, frames=[*shown, *pause])
    film.save(file, writer=PillowWriter(config.frames_per_second), dpi=DPI)
