"""Which method is where at which step? The same paths as a race, a GIF."""

import numpy as np

from experiments.descent import trajectories
from experiments.descent.functions import FUNCTIONS
from experiments.descent.methods import METHODS
from experiments.descent.trajectories import function_of
from optsde.analysis import plots
from optsde.study import Study, setting


class Settings(trajectories.Settings):
    frames: int = setting(60, "of the GIF", at_least=2, at_most=200)
    frames_per_second: int = setting(12, "of the GIF", at_least=1, at_most=50)
    function = "saddle"
    steps = 60
    methods = ("gd", "momentum", "nesterov", "adagrad", "rmsprop", "adam")

    def demands(self):
        yield from super().demands()
        few = len(self.methods) <= len(plots.COLOURS)
        yield few, "methods", f"at most {len(plots.COLOURS)}, one for each colour"
        plane = len(FUNCTIONS[self.function].domain) == 2
        yield plane, "function", "a function of two coordinates"


def simulate(s, rundir):
    """Returns one path of each method, from the first starting point."""
    return trajectories.descend(s, rundir, function_of(s).starts[:1], seeds=1)


def figure(s, runs, path):
    """Draws the paths up to one step in each frame."""
    from matplotlib.animation import FuncAnimation, PillowWriter

    function = function_of(s)
    drawing, (ax,) = plots.new_figure(1, plots.HALF_SLIDE, 4.4)
    trajectories.draw_function(ax, function)
    movers = []  # line, head, path
    for (name, paths), colour in zip(runs.items(), plots.COLOURS, strict=False):
        walk, dot = paths[0, 0], dict(marker="o", ms=8, mec="white", ls="none")
        (line,) = ax.plot([], [], color=colour, lw=1.6)
        (head,) = ax.plot(*walk[:1].T, color=colour, label=METHODS[name].title, **dot)
        movers.append((line, head, walk))
    drawing.legend(loc="outside right center", handletextpad=0.1)
    clock = ax.set_title("step 0")
    drawing.suptitle(trajectories.heading(function))
    drawing.draw_without_rendering()
    drawing.set_layout_engine("none")  # laid out once, so that nothing moves but paths

    def show(step):
        clock.set_text(f"step {step}")
        for line, head, walk in movers:
            line.set_data(*walk[: step + 1].T)
            head.set_data(*walk[step : step + 1].T)

    steps = np.linspace(0, function.steps, s.frames).round().astype(int)
    pause = [steps[-1]] * s.frames_per_second
    film = FuncAnimation(drawing, show, frames=[*steps, *pause])
    film.save(path, writer=PillowWriter(s.frames_per_second), dpi=100)


study = Study(
    __name__,
    Settings,
    simulate,
    claims=trajectories.claims,
    figures={"race.gif": figure},
)
