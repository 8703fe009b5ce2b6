"""Does it help to be catapulted, and is it the spike that helps?

A segment is 30 steps at a base rate, 20 at `ratio` times the critical rate as it is
then, and 50 at the base rate; the first k segments have their pulse, which mostly
gives k catapults. Two targets: a function of three directions among many, where one can
see what the net has learnt, and the digits. Each from two inits: random, and
antisymmetric, where the first function is zero. `capped` cuts each pulse short once the
loss is large: spikes, but no flatter kernel.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.catapults import descent, nets
from experiments.catapults.descent import Cycle, Member
from experiments.catapults.targets import RANK3, target_of
from optsde.analysis import (
    above,
    agrees,
    estimate_finite,
    find_spikes,
    none,
    plots,
    plus_minus,
    stack,
    table,
)
from optsde.measure import probe
from optsde.run import Progress
from optsde.study import Integers, Seeds, Study, setting

INITS = {"random": "random function", "zero": "zero function"}
BEFORE, PULSE, AFTER = 30, 20, 50
SEGMENT = BEFORE + PULSE + AFTER
CAP = 0.3  # of the loss at the start, where a capped pulse ends


class Settings(Seeds):
    target: str = setting(RANK3, "rank3, or the name of images, see optsde.data.load")
    width: int = setting(
        256, "of the hidden layer", at_least=2, multiple_of=2, needs="an even number"
    )
    train_size: int = setting(400, "examples that a seed trains on", at_least=2)
    segments: int = setting(10, f"of {SEGMENT} steps", at_least=2)
    pulses: Integers = setting(
        (0, 1, 2), "of the arms, from 0 on", rising=True, entries=2, at_least=0
    )
    base: float = setting(0.5, "rate", unit="η_crit at the start", above=0)
    ratio: float = setting(1.4, "rate in a pulse", unit="η_crit then", above=0)
    capped: bool = setting(True, "whether there is an arm of capped pulses")
    capped_ratio: float = setting(1.6, "rate in those", unit="η_crit then", above=0)

    def demands(self):
        yield from super().demands()
        fine = self.pulses[0] == 0 and self.pulses[-1] <= self.segments
        allowed = f"rising numbers from 0 to segments={self.segments}, with 0"
        yield fine, "pulses", allowed
        size = target_of(self.target).size
        yield self.train_size <= size, "train_size", f"2 to {size} examples"


class Arm(NamedTuple):
    init: str
    pulses: int
    capped: bool = False


def arms(s) -> list[Arm]:
    made = [Arm(init, count) for init in INITS for count in s.pulses]
    return [*made, Arm("random", s.segments, True)] if s.capped else made


def simulate(s, rundir):
    """Returns each arm's numbers at the end [seeds]; NaN where a run diverged."""
    ends = rundir.once("runs", lambda: trained(s))
    return {
        arm: {name: x[:, i] for name, x in ends.items()}
        for i, arm in enumerate(arms(s))
    }


def trained(s):
    """Returns the numbers [seeds, arms] of each run at its end."""
    target = target_of(s.target)
    model = nets.two_layer(s.width, target.outputs)
    apply, end = nets.apply_of(model), s.segments * SEGMENT
    pulses = [SEGMENT * segment + BEFORE for segment in range(s.segments)]

    def critical(inputs, state):
        return {"critical": nets.critical_lr(apply, state.params, inputs)}

    def evaluate(held_out, state):
        return target.evaluate(apply, state.params, held_out)

    def probes(member):
        return [
            probe(critical, member.examples[0], [0, *pulses, end]),
            probe(evaluate, member.held_out, [end]),
        ]

    progress = Progress(f"{s.seeds * len(arms(s))} runs")
    progress.compiling()
    members = members_of(s, target, model, [arm.init for arm in arms(s)])
    run = descent.begin(nets.losses_of(model), members, end, probes=probes)
    begun = run.to(0).metrics["critical"].values[:, 0]
    loss, metrics = pulsed(s, run, members, begun, progress)
    ends = {name: metrics[name].values[:, -1] for name in ("test_error", target.skill)}
    ends |= {
        "spikes": np.array([len(find_spikes(x)) for x in loss]),
        "train_loss": loss[:, -1],
        "norm": begun / metrics["critical"].values[:, -1],
    }
    lost = ~np.isfinite(loss[:, -1])
    return {n: np.where(lost, np.nan, x).reshape(s.seeds, -1) for n, x in ends.items()}


def members_of(s, target, model, inits) -> Member:
    """Returns each seed's examples, with the start of every init, seed by seed."""

    def make(seed):
        data, draw = jax.random.split(jax.random.fold_in(jax.random.key(1), seed))
        examples, held_out = target.draw(data, s.train_size)
        starts = [
            nets.initial(draw, model, examples[0], init == "zero") for init in inits
        ]
        return examples, held_out, jax.tree.map(lambda *x: jnp.stack(x), *starts)

    made = jax.jit(jax.vmap(make))(s.seed + jnp.arange(s.seeds))
    examples, held_out = descent.repeated(made[:2], len(inits))
    start = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), made[2])
    ones = jnp.ones(s.seeds * len(inits))
    return Member(ones, examples, start, Cycle(ones, ones, ones), held_out)


def pulsed(s, run, members, begun, progress):
    """Returns the loss before each step, and the metrics of the last stretch.

    The rate at the start is in units of `begun`, each pulse's in critical rates then.
    """
    pulses = np.tile([arm.pulses for arm in arms(s)], s.seeds)
    capped = np.tile([arm.capped for arm in arms(s)], s.seeds)
    ratio = np.where(capped, s.capped_ratio, s.ratio)
    base = s.base * begun
    losses = []

    def go_on(steps, lr):
        run.set_members(members._replace(lr=jnp.asarray(lr, jnp.float32)))
        result = run.to(run.time + steps, stop_at_divergence=False)
        losses.append(result.metrics["loss"].values)
        progress.update(run.time, s.segments * SEGMENT)
        return result.metrics

    metrics = {}
    for segment in range(s.segments):
        critical = go_on(BEFORE, base)["critical"].values[:, -1]
        high = np.where(segment < pulses, ratio * critical, base)
        over = np.zeros(len(base), bool)
        for _ in range(PULSE):
            go_on(1, np.where(over, base, high))
            over |= capped & (losses[-1][:, 0] > CAP * losses[0][:, 0])
        metrics = go_on(AFTER, base)
    return np.concatenate(losses, axis=1), metrics


def gain(runs, name, arm, control):
    """Returns arm − control in that number, paired by seed, where both are finite."""
    return estimate_finite(runs[arm][name] - runs[control][name])


def tables(s, runs):
    target, rows = target_of(s.target), []
    for arm, run in runs.items():
        lost = int((~np.isfinite(run["train_loss"])).sum())
        title = f"{INITS[arm.init]}{', capped' if arm.capped else ''}"
        names = (target.skill, "test_error", "norm", "spikes")
        numbers = [plus_minus(estimate_finite(run[name])) for name in names]
        rows.append([title, arm.pulses, *numbers, lost])
    header = ["start", "pulses", target.skill_name, "held-out error", "‖K‖ end/start"]
    yield ""
    yield table([*header, "spikes", "lost"], rows, "lrrrrrr")


def claims(s, runs):
    most, skill = s.pulses[-1], target_of(s.target).skill
    for init in INITS:
        arm, control = Arm(init, most), Arm(init, 0)
        claim = f"{most}_pulses_raise_{skill}_from_{init}"
        unit = "points" if skill == "accuracy" else "of cosine"
        yield above(claim, gain(runs, skill, arm, control), 0.0, unit)
        lower = -gain(runs, "test_error", arm, control)
        claim = f"{most}_pulses_lower_test_error_from_{init}"
        yield above(claim, lower, 0.0, "of the held-out error")
    if skill == "accuracy":
        claim = "zero_function_does_as_well_without_any"
        apart = gain(runs, skill, Arm("zero", 0), Arm("random", most))
        yield agrees(claim, apart, 1.0, "points")
    if s.capped:
        arm, control = Arm("random", s.segments, True), Arm("random", 0)
        count = estimate_finite(runs[arm]["spikes"])
        yield above("capped_pulses_give_spikes", count, 1.0, "spikes")
        apart = gain(runs, "test_error", arm, control)
        claim = "and_change_the_error_little"
        yield agrees(claim, apart, 0.05, "of the held-out error")
        flatter = estimate_finite(100 * (runs[arm]["norm"] / runs[control]["norm"] - 1))
        yield agrees("since_they_flatten_little", flatter, 20.0, "% of ‖K‖")
    ends = [run["train_loss"] for run in runs.values()]
    yield none("no_run_diverged", ~np.isfinite(ends))


def figure(s, runs, path):
    target, most = target_of(s.target), s.pulses[-1]
    drawing, axes = plots.new_figure(3, width=13, height=4.4)
    names = {
        "test_error": "held-out error",
        target.skill: target.skill_name,
        "norm": "‖K‖ at the end, in units of the start",
    }
    titles = f"means of {s.seeds} seeds, 95% bars", target.title, ""
    for ax, title, (name, y) in zip(axes, titles, names.items(), strict=True):
        for number, (init, start) in enumerate(INITS.items()):
            x = np.array(s.pulses) + (0.06 * number - 0.03) * most
            ends = stack(estimate_finite(runs[init, k, False][name]) for k in s.pulses)
            looks = dict(colour=plots.COLOURS[number], label=start, ls="-")
            plots.points(ax, x, ends, **looks)
        if s.capped:
            end = estimate_finite(runs["random", s.segments, True][name])
            looks = dict(label="random, spikes that are cut short", marker="s")
            plots.points(ax, -0.4 * most, end, colour=plots.COLOURS[5], **looks)
            ax.set_xticks([-0.4 * most, *s.pulses], ["cut short", *s.pulses])
        else:
            ax.set_xticks(s.pulses)
        plots.label(ax, "pulses above the critical rate", y, title)
    axes[2].set(ylim=(0, None))
    plots.shared_legend(drawing, axes[0], columns=3)
    plots.save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"{target}": figure},
)
