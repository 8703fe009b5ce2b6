"""How many catapults does a cyclic learning rate give?

Full-batch descent on digits; rates in units of the critical one at the start. Peaks
of one height give one catapult, since ‖K‖ stays as low as that one left it. Peaks that
grow go on giving them.
"""

import numpy as np

from experiments.catapults import cycles, descent, nets
from experiments.catapults.cycles import Arm
from experiments.catapults.descent import Cycle
from optsde.analysis import above, estimate, plots, plus_minus, table
from optsde.study import Study

ARMS = {
    "const": Arm("constant .9", Cycle(0.9, 0.9, 1.0), (-0.5, 0.5)),
    "equal": Arm("equal peaks of 3", Cycle(0.2, 3.0, 1.0), (0.5, 1.5)),
    "growing": Arm("peaks 1.5, 2.25, … 11.4", Cycle(0.2, 1.5, 1.5), (2.5, 5.5)),
}


class Settings(cycles.CycleSettings):
    width = 512


def simulate(s, rundir, task):
    return cycles.by_arm(rundir.once("cycles", lambda: trained(s, task)), ARMS)


def trained(s, task):
    """Returns the loss and ‖K‖ before each step, all arms in one run."""
    members = cycles.crossed(descent.members_of(s, task), ARMS)
    norms = descent.norms(task, s.steps)
    result = descent.run(task.losses, members, s.steps, period=s.period, probes=norms)
    return descent.by_seed(result.metrics, s.seeds)


def tables(s, runs):
    rows = []
    for name, arm in ARMS.items():
        loss, norm, spikes = (runs[name][x] for x in ("loss", "ntk_norm", "spikes"))
        heights = [spike.height for found in spikes for spike in found]
        span = f"{min(heights):.2g}–{max(heights):.3g}" if heights else "–"
        ends = plus_minus(estimate(norm[:, -1] / norm[:, 0]))
        final = plus_minus(estimate(loss[:, -1]))
        rows.append([arm.title, cycles.counts(spikes), span, ends, final])
    header = ["learning rate", "catapults of each seed", "heights", "‖K‖ end/start"]
    yield ""
    yield table([*header, "loss at the end"], rows, "lrrrr")


def claims(s, runs):
    for name, arm in ARMS.items():
        claim = "catapults_of_none" if name == "const" else f"catapults_of_{name}_peaks"
        yield cycles.number_of_catapults(claim, arm, runs[name]["spikes"])
    for name in ("equal", "growing"):
        norm = runs[name]["ntk_norm"]
        yield cycles.lower_after(f"{name}_peak", norm, runs[name]["spikes"])
        fall = estimate(100 * (1 - norm[:, -1] / norm[:, 0]))
        yield above(f"norm_falls_to_a_fifth_{name}", fall, 80.0, "% of ‖K‖")


def figure(s, runs, path):
    drawing, (rates, losses, norms) = plots.new_figure(3, width=14, height=4.4)
    steps, colours = np.arange(s.steps), plots.colours(ARMS)
    for name, arm in ARMS.items():
        colour, norm = colours[name], runs[name]["ntk_norm"]
        rates.plot(steps, arm.rate(s), color=colour, label=arm.title)
        rates.plot(steps, norm[0, 0] / norm[0], color=colour, ls=":")
        losses.plot(steps, runs[name]["loss"][0], color=colour)
        plots.curves(norms, steps, norm / norm[:, :1], colour=colour)
    for ax in (losses, norms):
        plots.mark_spikes(ax, runs["growing"]["spikes"][0], steps[-1])
    for ax in (rates, norms):
        plots.plain_log_axis(ax)
    rates.set(ylim=(None, 90))
    losses.set(yscale="log")
    y, title = cycles.IN_UNITS, "rate (solid) against critical rate (dotted)"
    plots.label(rates, "step", y, title, legend="upper left")
    title = "loss of one run; red: its catapults"
    plots.label(losses, "step", "training loss", title)
    y, title = "‖K‖ in units of that at the start", "all runs and their median"
    plots.label(norms, "step", y, f"sharpness of the kernel, {title}")
    plots.save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"cyclic": figure},
    task=nets.build_task,
    fixed_task=nets.FIXED,
)
