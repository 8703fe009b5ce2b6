"""Does a smaller batch give more catapults?

The critical rate of a batch fluctuates, so SGD at one rate is above it now and then,
more often with smaller batches (Zhu et al. 2023). Digits, at constant rates in units of
η_crit at the start; batches are drawn with replacement, and the loss on all images is
seen at each step. A seed's runs share their images and their start.
"""

import itertools
from functools import partial

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.catapults import cyclic, full_batch, nets
from experiments.catapults.steps import watch
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import (
    Verdict,
    above,
    estimate_finite,
    none,
    plus_minus,
    table,
)
from optsde.analysis.plots import COLOURS, new_figure, plain_log_axis, save
from optsde.analysis.spikes import find_spikes, phases
from optsde.dynamics import Engine


def check(config: ConfigDict) -> None:
    cyclic.check_digits(config)
    require(config.steps >= 21, config, "steps", "at least 21, to see a spike")
    falling = all(a > b for a, b in itertools.pairwise((*config.batch_sizes, 0)))
    fine = falling and len(config.batch_sizes) > 1
    require(fine, config, "batch_sizes", "two or more falling integers ≥ 1")
    rising = all(a < b for a, b in itertools.pairwise((0.0, *config.ratios)))
    fine = rising and len(config.ratios) > 0
    require(fine, config, "ratios", "positive, rising numbers")


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    curves = rundir.once(lambda: simulate(config))
    found = summarised(curves)
    print("", cell_table(config, found), sep="\n")
    draw(config, curves, found, rundir)
    return judge(config, found)


def simulate(config: ConfigDict) -> dict[str, np.ndarray]:
    """norm, ‖K‖ end/start [batches, seeds, ratios]; two losses [..., steps]."""
    import jax
    import jax.numpy as jnp

    model = nets.two_layer(config.width, 10)
    members = full_batch.digits_members(config, model)
    seeds = config.seed + jnp.arange(config.seeds)
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(3), seed))(seeds)
    keys, members = full_batch.repeated((keys, members), len(config.ratios))
    ratios = jnp.tile(jnp.array(config.ratios), config.seeds)
    critical, members = members.lr, members._replace(lr=members.lr * ratios)
    runs = [trained(config, model, members, keys, b) for b in config.batch_sizes]
    shape = len(runs), config.seeds, len(config.ratios)
    return {
        "norm": np.stack([critical / ended for _, ended in runs]).reshape(shape),
        "loss": np.stack([s.seen["loss"] for s, _ in runs]).reshape(*shape, -1),
        "batch_loss": np.stack([s.loss for s, _ in runs]).reshape(*shape, -1),
    }


def trained(config: ConfigDict, model, members: full_batch.Member, keys, size: int):
    """(all steps at that batch size, n/‖K‖ of each replica at the end)."""
    from optsde import gradients

    losses = nets.losses_of(model)

    def dynamics(member: full_batch.Member):
        plan = optsde.Plan(
            optimizer=optsde.SGD(lr=member.lr), batch_size=size, horizon=config.steps
        )
        sampler = partial(gradients.minibatch, losses, member.examples)
        return optsde.discrete(plan, sampler, member.start)

    engine = Engine(dynamics, len(keys), members=members, with_info=True)
    examples = engine.spread(members.examples)
    measure = engine.each(lambda xy, state: {"loss": losses(state.params, xy).mean()})
    critical = engine.each(
        lambda xy, state: nets.critical_lr(nets.apply_of(model), state.params, xy[0])
    )

    def look(state, memory):
        return measure(examples, state), memory

    progress = optsde.Progress(f"{len(keys)} runs at batch {size}")
    series = watch(engine, engine.init(keys), config.steps, look, progress=progress)
    return series, engine.kept(critical(examples, series.state))


def summarised(curves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """[batches, seeds, ratios] of each number; NaN where the run diverged."""
    loss = curves["loss"]

    def share(series) -> float:
        spans = phases(find_spikes(series), len(series))
        return 100 * sum(last - first for first, last in spans) / len(series)

    found = {
        "catapults": np.apply_along_axis(lambda x: len(find_spikes(x)), -1, loss),
        "share": np.apply_along_axis(share, -1, curves["batch_loss"]),
        "largest": loss.max(axis=-1) / loss[..., 0],
        "norm": curves["norm"],
    }
    lost = ~np.isfinite(loss[..., -1])
    return {name: np.where(lost, np.nan, x) for name, x in found.items()}


def judge(config: ConfigDict, found: dict) -> list[Verdict]:
    """The smallest batch against the largest, paired by seed."""
    verdicts = []
    count, norm = found["catapults"], found["norm"]
    for i, ratio in enumerate(config.ratios):
        more = estimate_finite(count[-1, :, i] - count[0, :, i])
        claim = f"smaller_batch_gives_more_catapults_at_{ratio:g}"
        verdicts.append(above(claim, more, 0.0, "catapults a run"))
        flatter = estimate_finite(norm[0, :, i] - norm[-1, :, i])
        claim = f"smaller_batch_ends_flatter_at_{ratio:g}"
        verdicts.append(above(claim, flatter, 0.0, "of ‖K‖ at the start"))
    verdicts.append(none("no_run_diverged", np.isnan(norm)))
    return verdicts


COLUMNS = {
    "catapults": "catapults",
    "largest": "largest/first loss",
    "share": "batch loss in a spike, % of steps",
    "norm": "‖K‖ end/start",
}


def cell_table(config: ConfigDict, found: dict) -> str:
    rows = []
    for i, ratio in enumerate(config.ratios):
        for j, size in enumerate(config.batch_sizes):
            means = [estimate_finite(found[name][j, :, i]) for name in COLUMNS]
            cells = [plus_minus(x) for x in means]
            rows.append([f"{ratio:g}", str(size), *cells])
    return table(["rate in η_crit", "batch", *COLUMNS.values()], rows, "rrrrrr")


def draw(config: ConfigDict, curves: dict, found: dict, rundir: RunDir) -> None:
    figure, (left, right) = new_figure(2, width=11, height=4.4)
    sizes = config.batch_sizes
    for i, ratio in enumerate(config.ratios):
        cells = [estimate_finite(of_batch[:, i]) for of_batch in found["norm"]]
        mean, error = np.array([(x.mean, 1.96 * x.se) for x in cells]).T
        style = dict(color=COLOURS[i % 7], marker="o", capsize=4, lw=1.8)
        left.errorbar(sizes, mean, error, label=f"{ratio:g}", **style)
    left.set(xscale="log", xticks=sizes, xticklabels=sizes, ylim=(0, 1.05))
    left.minorticks_off()
    left.set_xlabel("batch size", fontsize=12)
    left.set_ylabel("‖K‖ at the end, in units of the start", fontsize=12)
    left.legend(title="rate in η_crit", fontsize=10, frameon=False, loc="lower right")
    left.set_title(f"flatness: means of {config.seeds} seeds, 95% bars", fontsize=12)
    steps = np.arange(1, config.steps + 1)
    for j in reversed(range(len(sizes))):
        style = dict(color=COLOURS[(2 + j) % 7], lw=1.3, label=str(sizes[j]))
        right.semilogx(steps, curves["loss"][j, 0, -1], **style)
    plain_log_axis(right)
    right.set_xlabel("step", fontsize=12)
    right.set_ylabel("training loss on all images", fontsize=12)
    right.legend(title="batch size", fontsize=10, frameon=False)
    right.set_title(f"one seed at {config.ratios[-1]:g} η_crit", fontsize=12)
    save(figure, rundir.figure("batch"))
