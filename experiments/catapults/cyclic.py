"""How many catapults does a cyclic learning rate give?

Full-batch descent on digits; rates in units of the critical one at the start. Peaks
of one height give one catapult, since ‖K‖ stays as low as that one left it. Peaks that
grow go on giving them.
"""

from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.catapults import full_batch, nets
from experiments.catapults.steps import watch
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import (
    Verdict,
    above,
    estimate,
    interval,
    least_above,
    plus_minus,
    table,
    within,
)
from optsde.analysis.plots import COLOURS, new_figure, plain_log_axis, save
from optsde.analysis.spikes import Spike, find_spikes, phases


class Cycle(NamedTuple):
    """Triangles from low to high·growth^c, in units of the critical rate."""

    title: str
    low: float
    high: float
    growth: float
    counts: tuple[float, float]  # of catapults, what is claimed


ARMS = {
    "const": Cycle("constant .9", 0.9, 0.9, 1.0, (-0.5, 0.5)),
    "equal": Cycle("equal peaks of 3", 0.2, 3.0, 1.0, (0.5, 1.5)),
    "growing": Cycle("peaks 1.5, 2.25, … 11.4", 0.2, 1.5, 1.5, (2.5, 5.5)),
}


def check(config: ConfigDict) -> None:
    check_digits(config)
    require(config.cycles >= 1, config, "cycles", "an integer ≥ 1")
    require(config.period >= 40, config, "period", "at least 40 steps")


def check_digits(config: ConfigDict) -> None:
    """What all studies of full batches of digits need."""
    require(config.seeds >= 2, config, "seeds", "at least 2, for standard errors")
    require(config.width >= 1, config, "width", "an integer ≥ 1")
    allowed = 2 <= config.train_size <= full_batch.HELD_OUT
    require(allowed, config, "train_size", f"2 to {full_batch.HELD_OUT} images")


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    curves = rundir.once(lambda: simulate(config))
    spikes = {name: [find_spikes(x) for x in curves[f"{name}_loss"]] for name in ARMS}
    print("", arm_table(curves, spikes), sep="\n")
    draw(config, curves, spikes, rundir)
    return judge(curves, spikes)


def simulate(config: ConfigDict) -> dict[str, np.ndarray]:
    """Of each arm, loss and ‖K‖ [seeds, steps], in one compiled loop."""
    import jax
    import jax.numpy as jnp

    model = nets.two_layer(config.width, 10)
    members = full_batch.digits_members(config, model)
    cycles = jnp.array([cycle[1:4] for cycle in ARMS.values()])
    low, high, growth = jnp.tile(cycles, (config.seeds, 1)).T
    members = full_batch.repeated(members, len(ARMS))
    members = members._replace(low=low, high=high, growth=growth)
    steps = config.cycles * config.period
    engine = full_batch.engine_of(model, members, steps, config.period)
    look, memory = full_batch.norms(engine, model, members)
    state = full_batch.started(engine)
    progress = optsde.Progress(f"{engine.replicas} runs")
    series = watch(engine, state, steps, look, memory, progress=progress)
    rates = np.asarray(jax.device_get(members.lr))[:: len(ARMS)]

    def of_arm(x, number):
        return x.reshape(config.seeds, len(ARMS), -1)[:, number]

    curves = {"critical": rates}
    for number, name in enumerate(ARMS):
        curves[f"{name}_loss"] = of_arm(series.loss, number)
        curves[f"{name}_norm"] = of_arm(series.seen["norm"], number)
    return curves


def lower_after(
    peaks: str, series: np.ndarray, spikes: list[list[Spike]], name: str = "norm"
) -> Verdict:
    """Is a number lower after each catapult than before? The mean, least and most."""
    fall = [
        100 * (1 - of_run[spike.end] / of_run[spike.start - 1])
        for of_run, found in zip(series, spikes, strict=True)
        for spike in found
        if spike.end is not None
    ]
    return least_above(f"{name}_is_lower_after_each_{peaks}", fall, 0.0, "% less")


def judge(curves: dict, spikes: dict[str, list[list[Spike]]]) -> list[Verdict]:
    verdicts = []
    for name, cycle in ARMS.items():
        counts = estimate([len(found) for found in spikes[name]])
        low, high = cycle.counts
        claim = f"catapults_of_{name}_peaks" if name != "const" else "catapults_of_none"
        verdicts.append(within(claim, interval(counts), low, high, "catapults"))
    for name in ("equal", "growing"):
        norm = curves[f"{name}_norm"]
        verdicts.append(lower_after(f"{name}_peak", norm, spikes[name]))
        share = 100 * (1 - norm[:, -1] / norm[:, 0])
        claim = f"norm_falls_to_a_fifth_{name}"
        verdicts.append(above(claim, estimate(share), 80.0, "% of ‖K‖"))
    return verdicts


def arm_table(curves: dict, spikes: dict[str, list[list[Spike]]]) -> str:
    rows = []
    for name, cycle in ARMS.items():
        norm, loss = curves[f"{name}_norm"], curves[f"{name}_loss"]
        counts = " ".join(str(len(found)) for found in spikes[name])
        heights = [s.height for found in spikes[name] for s in found]
        span = f"{min(heights):.2g}–{max(heights):.3g}" if heights else "–"
        ends = plus_minus(estimate(norm[:, -1] / norm[:, 0]))
        final = plus_minus(estimate(loss[:, -1]))
        rows.append([cycle.title, counts, span, ends, final])
    header = ["learning rate", "catapults of each seed", "heights", "‖K‖ end/start"]
    return table([*header, "loss at the end"], rows, "lrrrr")


def draw(config: ConfigDict, curves: dict, spikes: dict, rundir: RunDir) -> None:
    import jax.numpy as jnp

    from optsde.plans.schedules import exponential_cyclic

    figure, (rates, losses, norms) = new_figure(3, width=14, height=4.4)
    steps = np.arange(config.cycles * config.period)
    for (name, cycle), colour in zip(ARMS.items(), COLOURS, strict=False):
        rate = exponential_cyclic(config.period, *cycle[1:4])
        norm = curves[f"{name}_norm"]
        style = dict(color=colour, lw=1.8)
        rates.plot(
            steps, np.asarray(rate(jnp.asarray(steps))), **style, label=cycle.title
        )
        rates.plot(steps, norm[0, 0] / norm[0], ls=":", **style)
        losses.plot(steps, curves[f"{name}_loss"][0], **style)
        for seed in norm:
            norms.plot(steps, seed / seed[0], color=colour, lw=0.8, alpha=0.35)
        norms.plot(steps, np.median(norm / norm[:, :1], axis=0), **style)
    for ax in (losses, norms):
        for first, last in phases(spikes["growing"][0], steps[-1]):
            ax.axvspan(first, last, color=COLOURS[5], alpha=0.15, lw=0)
    rates.set_title("rate (solid) against critical rate (dotted)", fontsize=12)
    rates.set_ylabel("in units of the critical rate at the start", fontsize=12)
    losses.set_title("loss of one run; red: its catapults", fontsize=12)
    losses.set_ylabel("training loss", fontsize=12)
    losses.set_yscale("log")
    norms.set_title("sharpness of the kernel, all runs and median", fontsize=12)
    norms.set_ylabel("‖K‖ in units of that at the start", fontsize=12)
    for ax in (rates, norms):
        plain_log_axis(ax)
    for ax in (rates, losses, norms):
        ax.set_xlabel("step", fontsize=12)
    rates.set_ylim(top=90)
    rates.legend(fontsize=10, frameon=False, loc="upper left")
    save(figure, rundir.figure("cyclic"))
