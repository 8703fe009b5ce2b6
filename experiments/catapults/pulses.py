"""Does it help to be catapulted, and is it the spike that helps?

A segment is 30 steps at a base rate, 20 at `ratio` times the critical rate as it is
then, and 50 at the base rate; the first k segments have their pulse, which mostly
gives k catapults. Two targets: a function of three directions among many, where one can
see what the net has learnt, and the digits. Each from two inits: random, and
antisymmetric, where the first function is zero. `capped` cuts each pulse short once the
loss is large: spikes, but no flatter kernel.
"""

import itertools

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.catapults import cyclic, full_batch, nets
from experiments.catapults.steps import Series, watch
from experiments.catapults.targets import TARGETS
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import (
    Estimate,
    Verdict,
    above,
    agrees,
    estimate_finite,
    none,
    plus_minus,
    table,
)
from optsde.analysis.plots import COLOURS, new_figure, save
from optsde.analysis.spikes import find_spikes
from optsde.dynamics import Engine

INITS = {"random": "random function", "zero": "zero function"}
BEFORE, PULSE, AFTER = 30, 20, 50
SEGMENT = BEFORE + PULSE + AFTER
CAP = 0.3  # of the loss at the start, where a capped pulse ends


def check(config: ConfigDict) -> None:
    require(config.seeds >= 2, config, "seeds", "at least 2, for standard errors")
    for name in ("width", "segments", "train_size"):
        require(config[name] >= 2, config, name, "an integer ≥ 2")
    require(config.width % 2 == 0, config, "width", "an even number")
    rising = all(a < b for a, b in itertools.pairwise(config.pulses))
    first, last = config.pulses[0], config.pulses[-1]
    allowed = f"rising numbers from 0 to segments={config.segments}, with 0"
    fine = rising and first == 0 < last <= config.segments
    require(fine, config, "pulses", allowed)
    for name in ("base", "ratio", "capped_ratio"):
        require(config[name] > 0, config, name, "a positive number")
    require(config.target in TARGETS, config, "target", ", ".join(TARGETS))
    if config.target == "digits":
        cyclic.check_digits(config)


def arms(config: ConfigDict) -> list[tuple[str, int, bool]]:
    """(init, number of pulses, whether they are capped)."""
    made = [(i, k, False) for i, k in itertools.product(INITS, config.pulses)]
    if config.capped:
        made.append(("random", config.segments, True))
    return made


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    found = rundir.once(lambda: simulate(config))
    rows = {
        arm: {name: x.reshape(config.seeds, -1)[:, i] for name, x in found.items()}
        for i, arm in enumerate(arms(config))
    }
    print("", arm_table(config, rows), sep="\n")
    draw(config, rows, rundir)
    return judge(config, rows)


def simulate(config: ConfigDict) -> dict[str, np.ndarray]:
    """Numbers of each run at its end, [seeds · arms]; NaN where it diverged."""
    import jax
    import jax.numpy as jnp

    target, made = TARGETS[config.target], arms(config)
    model = nets.two_layer(config.width, target.outputs)
    apply = nets.apply_of(model)

    def make(seed):
        data, draw = jax.random.split(jax.random.fold_in(jax.random.key(1), seed))
        examples, held_out = target.draw(data, config)
        starts = [
            nets.initial(draw, model, examples[0], init == "zero") for init, *_ in made
        ]
        start = jax.tree.map(lambda *x: jnp.stack(x), *starts)
        return jax.tree.map(
            lambda x: jnp.broadcast_to(x, (len(made), *x.shape)), (examples, held_out)
        ), start

    (examples, held_out), start = jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[2:]),
        jax.jit(jax.vmap(make))(config.seed + jnp.arange(config.seeds)),
    )
    ones = jnp.ones(config.seeds * len(made))
    members = full_batch.Member(ones, examples, start, ones, ones, ones)
    engine = full_batch.engine_of(model, members, config.segments * SEGMENT)
    series = pulsed(config, engine, model, members)
    test = engine.each(lambda held, state: target.judge(apply, state.params, held))
    ends = test(engine.spread(held_out), series.state)
    counts = [len(find_spikes(x)) for x in series.loss]
    first, last = series.seen["norm"].T
    ends = {k: np.asarray(x)[: engine.replicas] for k, x in ends.items()}
    ends |= {
        "spikes": np.array(counts),
        "train_loss": series.loss[:, -1],
        "norm": last / first,
    }
    lost = ~np.isfinite(series.loss[:, -1])
    return {name: np.where(lost, np.nan, x) for name, x in ends.items()}


def pulsed(config: ConfigDict, engine: Engine, model, members) -> Series:
    """The whole run; `norm` [replicas, 2] is ‖K‖ at its start and its end."""
    import jax.numpy as jnp

    made = arms(config)
    pulses, capped = (np.tile([arm[i] for arm in made], config.seeds) for i in (1, 2))
    ratio = np.where(capped, config.capped_ratio, config.ratio)
    inputs = engine.spread(members.examples[0])
    sizes = engine.each(
        lambda x, state: nets.critical_lr(nets.apply_of(model), state.params, x)
    )

    def critical(state):
        return np.asarray(sizes(inputs, state))[: engine.replicas]

    losses = []
    total = config.segments * SEGMENT
    progress = optsde.Progress(f"{engine.replicas} runs")

    def go(state, steps: int, lr):
        engine.set_members(members._replace(lr=jnp.asarray(lr, jnp.float32)))
        at = sum(loss.shape[1] for loss in losses)
        part = watch(engine, state, steps, start=at, total=total, progress=progress)
        losses.append(part.loss)
        return part.state

    state = full_batch.started(engine)
    begun = critical(state)
    base = config.base * begun
    for segment in range(config.segments):
        state = go(state, BEFORE, base)
        high = np.where(segment < pulses, ratio * critical(state), base)
        over = np.zeros(len(base), bool)
        for _ in range(PULSE):
            state = go(state, 1, np.where(over, base, high))
            over |= capped & (losses[-1][:, 0] > CAP * losses[0][:, 0])
        state = go(state, AFTER, base)
    norms = 1 / np.stack([begun, critical(state)], axis=1)
    return Series(np.concatenate(losses, axis=1), {"norm": norms}, state, ())


def gain(rows: dict, name: str, arm: tuple, control: tuple) -> Estimate:
    """arm − control in that number, paired by seed, where both are finite."""
    return estimate_finite(rows[arm][name] - rows[control][name])


def judge(config: ConfigDict, rows: dict) -> list[Verdict]:
    most = max(config.pulses)
    skill = TARGETS[config.target].skill
    verdicts = []
    for init in INITS:
        arm, control = (init, most, False), (init, 0, False)
        better = gain(rows, skill, arm, control)
        unit = "points" if skill == "accuracy" else "of cosine"
        claim = f"{most}_pulses_raise_{skill}_from_{init}"
        verdicts.append(above(claim, better, 0.0, unit))
        lower = -gain(rows, "test_error", arm, control)
        claim = f"{most}_pulses_lower_test_error_from_{init}"
        verdicts.append(above(claim, lower, 0.0, "of the held-out error"))
    if skill == "accuracy":
        claim = "zero_function_does_as_well_without_any"
        x = gain(rows, skill, ("zero", 0, False), ("random", most, False))
        verdicts.append(agrees(claim, x, 1.0, "points"))
    if config.capped:
        arm, control = ("random", config.segments, True), ("random", 0, False)
        count = estimate_finite(rows[arm]["spikes"])
        verdicts.append(above("capped_pulses_give_spikes", count, 1.0, "spikes"))
        x = gain(rows, "test_error", arm, control)
        claim = "and_change_the_error_little"
        verdicts.append(agrees(claim, x, 0.05, "of the held-out error"))
        flatter = estimate_finite(100 * (rows[arm]["norm"] / rows[control]["norm"] - 1))
        claim = "since_they_flatten_little"
        verdicts.append(agrees(claim, flatter, 20.0, "% of ‖K‖"))
    ends = [found["train_loss"] for found in rows.values()]
    verdicts.append(none("no_run_diverged", ~np.isfinite(ends)))
    return verdicts


def arm_table(config: ConfigDict, rows: dict) -> str:
    skill = TARGETS[config.target].skill
    cells = []
    for (init, count, capped), found in rows.items():
        lost = int((~np.isfinite(found["train_loss"])).sum())
        title = f"{INITS[init]}{', capped' if capped else ''}"
        names = (skill, "test_error", "norm", "spikes")
        numbers = [plus_minus(estimate_finite(found[name])) for name in names]
        cells.append([title, str(count), *numbers, str(lost)])
    header = ["start", "pulses", TARGETS[config.target].skill_name, "held-out error"]
    return table([*header, "‖K‖ end/start", "spikes", "lost"], cells, "lrrrrrr")


def draw(config: ConfigDict, rows: dict, rundir: RunDir) -> None:
    target = TARGETS[config.target]
    figure, axes = new_figure(3, width=13, height=4.4)
    names = {
        "test_error": "held-out error",
        target.skill: target.skill_name,
        "norm": "‖K‖ at the end, in units of the start",
    }
    for number, (init, title) in enumerate(INITS.items()):
        at = np.array(config.pulses) + 0.02 * number * max(config.pulses)
        for ax, name in zip(axes, names, strict=True):
            points = [
                estimate_finite(rows[init, k, False][name]) for k in config.pulses
            ]
            mean, error = ([getattr(p, f) for p in points] for f in ("mean", "se"))
            style = dict(color=COLOURS[number], marker="o", capsize=4, lw=1.8)
            ax.errorbar(at, mean, 1.96 * np.array(error), **style, label=title)
    if config.capped:
        for ax, name in zip(axes, names, strict=True):
            x = estimate_finite(rows["random", config.segments, True][name])
            style = dict(color=COLOURS[5], marker="s", capsize=4, ls="")
            label = "random, spikes that are cut short"
            at = 0.06 * max(config.pulses)
            ax.errorbar([at], x.mean, 1.96 * x.se, **style, label=label)
    for ax, label in zip(axes, names.values(), strict=True):
        ax.set_xlabel("pulses above the critical rate", fontsize=12)
        ax.set_ylabel(label, fontsize=12)
        ax.set_xticks(config.pulses)
    axes[0].legend(fontsize=10, frameon=False)
    axes[0].set_title(f"means of {config.seeds} seeds, 95% bars", fontsize=12)
    axes[1].set_title(target.title, fontsize=12)
    axes[2].set(ylim=(0, None))
    save(figure, rundir.figure(config.target))
