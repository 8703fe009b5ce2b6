"""What do catapults do to the neural tangent kernel? Its norm and condition number.

Odd against even digits with one output, full batch, a cyclic rate with growing peaks
against half the critical rate. Eigenvalues are those of the exact kernel in float64.
"""

import dataclasses

import jax
import numpy as np

from experiments.catapults import cycles, descent, nets
from experiments.catapults.cycles import Arm
from experiments.catapults.descent import Cycle
from optsde.analysis import above, agrees, estimate, plots, plus_minus, table
from optsde.measure import ntk, probe
from optsde.run import Progress
from optsde.study import Study

ARMS = {
    "growing": Arm("peaks 1.5, 2.25, …", Cycle(0.2, 1.5, 1.5)),
    "const": Arm("constant .5", Cycle(0.5, 0.5, 1.0)),
}
NAMES = {
    "condition": "condition number",
    "norm": "largest eigenvalue ‖K‖",
    "least": "smallest eigenvalue",
    "effective_rank": "effective rank",
}


class Settings(cycles.ObservedSettings):
    width = 512
    train_size = 128
    every = 5
    seeds = 4


def build_task(s):
    """Returns the task of one output: 1 for odd classes and −1 for even ones."""
    task, model = nets.build_task(s), nets.two_layer(s.width, 1)

    def odd(examples):
        inputs, targets = examples
        return inputs, 2.0 * (targets.argmax(-1, keepdims=True) % 2) - 1

    train, test = odd(task.train), odd(task.test)
    return dataclasses.replace(task, model=model, train=train, test=test)


def simulate(s, rundir, task):
    return cycles.by_arm(rundir.once("cycles", lambda: trained(s, task)), ARMS)


def trained(s, task):
    """Returns the loss before each step, and the numbers of NAMES now and then."""
    members = cycles.crossed(descent.members_of(s, task, root=2), ARMS)

    def probes(member):
        return [probe(lambda _, state: {"params": state.params}, times=s.times)]

    options = dict(period=s.period, probes=probes)
    found = descent.run(task.losses, members, s.steps, **options).metrics
    progress = Progress(f"{len(members.lr)} runs' spectra")
    progress.compiling()
    measured = []
    for number, time in enumerate(s.times):
        params = jax.tree.map(lambda x, n=number: x[:, n], found["params"].values)
        measured.append(spectra(task, members, params))
        progress.update(time, s.steps)
    arrays = {n: np.stack([x[n] for x in measured], axis=1) for n in NAMES}
    arrays["loss"] = found["loss"].values
    return {n: x.reshape(s.seeds, len(ARMS), -1) for n, x in arrays.items()}


def spectra(task, members, params):
    """Returns the numbers of NAMES for the kernel of each replica."""
    found = []
    for i, inputs in enumerate(members.examples[0]):
        own = jax.tree.map(lambda x, i=i: x[i], params)
        kernel = ntk.exact_kernel(task.apply, own, inputs, form="trace", block=64)
        found.append(ntk.spectrum(kernel))
    return {name: np.array([getattr(s, name) for s in found]) for name in NAMES}


def tables(s, runs):
    rows = []
    for name, arm in ARMS.items():
        for number, title in NAMES.items():
            x = runs[name][number]
            ends = x[:, 0], x[:, -1], x[:, -1] / x[:, 0]
            rows.append([arm.title, title, *(plus_minus(estimate(e)) for e in ends)])
    yield ""
    yield table(["learning rate", "", "start", "end", "end/start"], rows, "llrrr")


def claims(s, runs):
    def change(arm, name):
        """Returns log10 of end over start."""
        x = runs[arm][name]
        return np.log10(x[:, -1] / x[:, 0])

    fall = estimate(-change("growing", "condition"))
    yield above("condition_falls_fivefold", fall, np.log10(5), "powers of ten")
    rise = estimate(change("const", "condition"))
    claim = "condition_stays_at_half_critical"
    yield agrees(claim, rise, np.log10(1.5), "powers of ten")
    part = change("growing", "norm") / change("growing", "condition")
    claim, unit = "most_of_it_is_the_norm", "% of the fall, in logs"
    yield above(claim, estimate(100 * part), 50.0, unit)
    for name in ("norm", "condition"):
        # At the steps in between, the number is that of the measurement before.
        each_step = np.repeat(runs["growing"][name], s.every, axis=1)
        yield cycles.lower_after("catapult", each_step, runs["growing"]["spikes"], name)


def figure(s, runs, path):
    drawing, axes = plots.new_figure(3, width=13, height=4.4)
    (losses, eigenvalues, conditions), colours = axes, plots.colours(ARMS)
    for name, arm in ARMS.items():
        run, look = runs[name], dict(color=colours[name])
        losses.plot(run["loss"][0], label=arm.title, **look)
        for number, ls, text in (("norm", "-", "largest"), ("least", "--", "smallest")):
            text = f"{text} eigenvalue, {arm.title}"
            eigenvalues.plot(s.times, run[number][0], ls=ls, label=text, **look)
        conditions.plot(s.times, run["condition"][0], **look)
        conditions.plot(s.times, run["condition"][1:].T, lw=0.8, alpha=0.4, **look)
    for ax in axes:
        plots.mark_spikes(ax, runs["growing"]["spikes"][0], s.steps)
        ax.set(yscale="log")
    plots.plain_log_axis(conditions)
    low, high = eigenvalues.get_ylim()
    eigenvalues.set(ylim=(low, high * 20))
    x, legend = "step (red: catapults of the run drawn bold)", "upper right"
    plots.label(losses, x, "training loss", "loss", legend=legend)
    title = "eigenvalues of the kernel"
    plots.label(eigenvalues, x, "eigenvalue", title, legend=legend)
    plots.label(conditions, x, "‖K‖ / smallest eigenvalue", "condition number")
    plots.save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"kernel": figure},
    task=build_task,
    fixed_task=nets.FIXED,
)
