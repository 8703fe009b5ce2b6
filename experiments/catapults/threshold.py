"""Does the critical rate 2/λ_max(H) foretell the spike?

Full-batch descent on digits at half the critical rate, then from there at ratios of
2/λ_max of the Hessian as it is then.
"""

import itertools

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.catapults import cyclic, full_batch, nets
from experiments.catapults.steps import watch
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import (
    Verdict,
    estimate,
    interval,
    share,
    table,
    within,
)
from optsde.analysis.plots import COLOURS, new_figure, save
from optsde.analysis.spikes import find_spikes

QUIET, LOUD = 1.0, 1.2  # no run spikes up to the one, every run from the other on


def check(config: ConfigDict) -> None:
    cyclic.check_digits(config)
    for name in ("warm_steps", "steps"):
        require(config[name] >= 20, config, name, "at least 20 steps")
    rising = all(a < b for a, b in itertools.pairwise((0.0, *config.ratios)))
    around = min(config.ratios) <= QUIET and max(config.ratios) >= LOUD
    allowed = f"rising numbers, some up to {QUIET} and some from {LOUD} on"
    require(rising and around, config, "ratios", allowed)


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    curves = rundir.once(lambda: simulate(config))
    found = summarised(config, curves)
    print("", ratio_table(config, found), sep="\n")
    draw(config, curves, found, rundir)
    return judge(config, curves, found)


def simulate(config: ConfigDict) -> dict[str, np.ndarray]:
    import jax.numpy as jnp

    model = nets.two_layer(config.width, 10)
    members = full_batch.digits_members(config, model)
    half = jnp.full(config.seeds, 0.5)
    engine = full_batch.engine_of(
        model, members._replace(low=half, high=half), config.warm_steps
    )
    progress = optsde.Progress(f"{config.seeds} runs below critical")
    state = full_batch.started(engine)
    warm = watch(engine, state, config.warm_steps, progress=progress)
    norms, top = (
        np.asarray(x)[: config.seeds]
        for x in curvatures(engine, model)(engine.spread(members.examples), warm.state)
    )

    count = len(config.ratios)
    params = engine.kept(warm.state.params)
    critical = jnp.tile(jnp.array(config.ratios), config.seeds) * jnp.repeat(
        2 / top, count
    )
    members = full_batch.repeated(members._replace(start=params), count)
    members = members._replace(lr=critical)
    engine = full_batch.engine_of(model, members, config.steps)
    look, memory = full_batch.norms(engine, model, members)
    progress = optsde.Progress(f"{engine.replicas} runs around it")
    state = full_batch.started(engine)
    series = watch(engine, state, config.steps, look, memory, progress=progress)
    shape = config.seeds, count, config.steps
    return {
        "warm_loss": warm.loss,
        "loss": series.loss.reshape(shape),
        "norm": series.seen["norm"].reshape(shape),
        "kernel": 2 * norms / config.train_size,
        "hessian": top,
    }


def curvatures(engine, model):
    """(examples, state) -> (‖K‖, λ_max of the Hessian) of each replica."""
    import jax

    from optsde import gradients
    from optsde.measure import curvature, ntk, spectrum

    losses, apply = nets.losses_of(model), nets.apply_of(model)

    def of_one(examples, state):
        norm, _ = ntk.norm(apply, state.params, examples[0], iterations=50)
        oracle = gradients.full_batch(losses, examples, group=None)
        product = curvature.hessian(oracle, state.params)
        key = jax.random.key(0)
        start = spectrum.random_vectors(key, state.params)
        return norm, spectrum.top_eigenvalues(product, start, key).values[0]

    return engine.each(of_one)


def summarised(config: ConfigDict, curves: dict) -> dict[str, np.ndarray]:
    """[seeds, ratios] of each: did it spike, did it ever rise, heights, fall of ‖K‖."""
    loss, norm = curves["loss"], curves["norm"]
    spiked = [
        [bool(find_spikes([*before, *after])) for after in of_seed]
        for before, of_seed in zip(curves["warm_loss"], loss, strict=True)
    ]
    rose = (np.diff(loss, axis=-1) > 0).any(axis=-1)
    return {
        "spiked": np.array(spiked),
        "rose": rose,
        "height": loss.max(axis=-1) / loss[..., 0],
        "norm": norm[..., -1] / norm[..., 0],
    }


def judge(config: ConfigDict, curves: dict, found: dict) -> list[Verdict]:
    ratios = np.array(config.ratios)
    quiet, loud = ratios <= QUIET, ratios >= LOUD
    verdicts = [
        share("none_spikes_up_to_1", found["spiked"][:, quiet], 0.0),
        share("all_spike_from_1.2_on", found["spiked"][:, loud], 100.0),
    ]
    match = interval(estimate(curves["hessian"] / curves["kernel"]))
    claim = "hessian_is_that_of_the_kernel"
    verdicts.append(within(claim, match, 0.9, 1.1, "λ_max(H)·n/(2‖K‖)"))
    rose = found["rose"]
    first = np.where(rose.any(axis=1), ratios[rose.argmax(axis=1)], np.nan)
    onset = interval(estimate(first))
    verdicts.append(within("loss_first_rises_at", onset, 0.94, 1.11, "of 2/λ_max"))
    return verdicts


def ratio_table(config: ConfigDict, found: dict) -> str:
    rows = [
        [
            f"{ratio:g}",
            f"{100 * found['spiked'][:, i].mean():.0f}",
            f"{100 * found['rose'][:, i].mean():.0f}",
            f"{np.median(found['height'][:, i]):.3g}",
            f"{np.median(found['norm'][:, i]):.2f}",
        ]
        for i, ratio in enumerate(config.ratios)
    ]
    header = ["rate in 2/λ_max", "spiked, %", "ever rose, %", "largest/first loss"]
    return table([*header, "‖K‖ after/before"], rows, "rrrrr")


def draw(config: ConfigDict, curves: dict, found: dict, rundir: RunDir) -> None:
    figure, (left, middle, right) = new_figure(3, width=13, height=4.2)
    ratios = config.ratios
    for wanted, colour in zip((0.9, 1.0, 1.1, 1.2, 1.5), COLOURS, strict=False):
        at = int(np.abs(np.array(ratios) - wanted).argmin())
        left.plot(curves["loss"][0, at], color=colour, label=f"{ratios[at]:g}")
    left.set(yscale="log", xlim=(0, min(100, config.steps)))
    left.set_xlabel("step after the change of rate", fontsize=12)
    left.set_ylabel("training loss", fontsize=12)
    left.legend(title="rate in 2/λ_max", fontsize=10, frameon=False)
    left.set_title("one run, its rate changed", fontsize=12)
    for name, label, style in (
        ("spiked", "loss more than doubles", "o-"),
        ("rose", "loss ever rises", "s--"),
    ):
        colour = COLOURS[0] if name == "spiked" else COLOURS[1]
        share = 100 * found[name].mean(axis=0)
        middle.plot(ratios, share, style, color=colour, label=label, ms=5)
    middle.set_ylabel(f"% of {config.seeds} runs", fontsize=12)
    middle.legend(fontsize=10, frameon=False, loc="lower right")
    middle.set_title("who spikes", fontsize=12)
    for seed in found["norm"]:
        right.plot(ratios, seed, color=COLOURS[2], lw=0.8, alpha=0.4)
    median = np.median(found["norm"], axis=0)
    right.plot(ratios, median, "o-", color=COLOURS[2], ms=5)
    right.set(ylim=(0, 1.1))
    right.set_ylabel("‖K‖ after/before, all runs and median", fontsize=12)
    right.set_title("who ends flatter", fontsize=12)
    for ax in (middle, right):
        ax.axvline(1, color="grey", ls=":", lw=1.2)
        ax.set_xlabel("learning rate, in units of 2/λ_max", fontsize=12)
    save(figure, rundir.figure("threshold"))
