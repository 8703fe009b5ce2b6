"""The smallest net that can be catapulted: f = u·v/√m on one example, loss ½f².

Its kernel is one number, λ = (|u|² + |v|²)/m. For wide nets the loss falls for ηλ < 2,
is catapulted and comes back for 2 < ηλ < 4, and diverges above (Lewkowycz et al. 2020).
"""

import itertools

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.catapults.steps import watch
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import (
    Verdict,
    estimate,
    interval,
    least_above,
    within,
)
from optsde.analysis.plots import COLOURS, new_figure, save

SPIKE = 2.0  # times the loss at the start
WINDOW = ((1.95, 2.05), (3.9, 4.1))  # where it should open and close


def check(config: ConfigDict) -> None:
    require(config.seeds >= 2, config, "seeds", "at least 2, for standard errors")
    for name in ("width", "steps"):
        require(config[name] >= 1, config, name, "an integer ≥ 1")
    rising = all(a < b for a, b in itertools.pairwise((0.0, *config.ratios)))
    require(rising, config, "ratios", "positive, rising numbers")
    require(
        config.ratios[0] < WINDOW[0][0] and config.ratios[-1] > WINDOW[1][1],
        config,
        "ratios",
        "some below 1.95 and some above 4.1, to see the window open and close",
    )


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    curves = rundir.once(lambda: simulate(config))
    loss, rate = curves["loss"], curves["rate"]
    draw(config, loss, rate, rundir)
    return judge(config, loss, rate)


def simulate(config: ConfigDict) -> dict[str, np.ndarray]:
    """loss, and rate = ηλ, [seeds, ratios, steps]."""
    import jax
    import jax.numpy as jnp

    def net(params):
        u, v = params
        return u @ v / config.width**0.5

    def kernel(params):
        u, v = params
        return (u @ u + v @ v) / config.width

    def dynamics(member):
        lr, start = member
        plan = optsde.Plan(
            optimizer=optsde.SGD(lr=lr), batch_size=1, horizon=config.steps
        )
        loss_and_grad = jax.value_and_grad(lambda params: 0.5 * net(params) ** 2)
        return optsde.discrete(plan, lambda _: lambda p, _: loss_and_grad(p), start)

    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    starts = jax.vmap(lambda key: jax.random.normal(key, (2, config.width)))(keys)
    starts = tuple(jnp.repeat(starts, len(config.ratios), axis=0).swapaxes(0, 1))
    ratios = jnp.tile(jnp.array(config.ratios), config.seeds)
    members = ratios / jax.vmap(kernel)(starts), starts
    replicas = len(ratios)

    engine = optsde.dynamics.Engine(dynamics, replicas, members=members, with_info=True)
    look = engine.each(lambda lr, state: {"rate": lr * kernel(state.params)})
    lrs = engine.spread(members[0])
    state = engine.init(jax.random.split(jax.random.key(0), replicas))
    progress = optsde.Progress(f"{replicas} toys")
    series = watch(
        engine,
        state,
        config.steps,
        lambda state, memory: (look(lrs, state), memory),
        progress=progress,
    )
    shape = config.seeds, len(config.ratios), config.steps
    curves = {"loss": series.loss, "rate": series.seen["rate"]}
    return {name: x.reshape(shape) for name, x in curves.items()}


def fates(loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[...] each: whether the loss shot up, and whether it is lost for good."""
    finite = np.where(np.isfinite(loss), loss, np.inf)
    spiked = finite.max(axis=-1) > SPIKE * loss[..., 0]
    lost = ~np.isfinite(loss[..., -1]) | (finite[..., -1] > loss[..., 0])
    return spiked, lost


def judge(config: ConfigDict, loss: np.ndarray, rate: np.ndarray) -> list[Verdict]:
    ratios = np.array(config.ratios)
    spiked, lost = fates(loss)
    verdicts = []
    for name, fate, (low, high) in zip(
        ("opens", "closes"), (spiked, lost), WINDOW, strict=True
    ):
        first = fate.argmax(axis=1)  # of the ratios, for each seed
        edges = estimate((ratios[first] + ratios[np.maximum(first - 1, 0)]) / 2)
        claim = f"window_{name}_at_{round((low + high) / 2)}"
        verdicts.append(within(claim, interval(edges), low, high, "ηλ at the start"))
    inside = (ratios > WINDOW[0][1]) & (ratios < WINDOW[1][0])
    margins = 2 - rate[:, inside, -1].max(axis=1)
    claim = "inside_it_all_end_with_rate_below_2"
    return [*verdicts, least_above(claim, margins, 0.0, "2 − ηλ at the end")]


def draw(config: ConfigDict, loss: np.ndarray, rate: np.ndarray, rundir: RunDir):
    figure, (left, right) = new_figure(2, width=11, height=4.4)
    ratios = np.array(config.ratios)
    for wanted, colour in zip((1.9, 2.2, 3.0, 3.8, 4.2), COLOURS, strict=False):
        at = int(np.abs(ratios - wanted).argmin())
        curve = np.where(loss[0, at] < 1e12, loss[0, at], np.nan)
        left.plot(curve / loss[0, at, 0], color=colour, label=f"{ratios[at]:.2g}")
    left.set(yscale="log", ylim=(1e-8, 1e6), xlim=(0, min(100, config.steps)))
    left.set_xlabel("step", fontsize=12)
    left.set_ylabel("loss, in units of that at the start", fontsize=12)
    left.legend(title="ηλ at the start", fontsize=10, frameon=False)
    left.set_title("below, in and above the window", fontsize=12)

    spiked, lost = fates(loss)
    ended = np.where(lost, np.nan, rate[..., -1])
    for seed in ended:
        right.plot(ratios, seed, "o", ms=3, color=COLOURS[0], alpha=0.5)
    right.axvspan(2, 4, color=COLOURS[1], alpha=0.15, lw=0)
    right.axhline(2, color="grey", ls="--", lw=1)
    right.plot(ratios, ratios, color="grey", lw=1)
    for fate, label, style in (
        (spiked, "share that shoot up", "-"),
        (lost, "share that diverge", "--"),
    ):
        share = fate.mean(axis=0)
        right.plot(ratios, share, style, color=COLOURS[5], label=label, lw=1.5)
    right.set(ylim=(0, 2.3))
    right.set_xlabel("ηλ at the start (orange: the window 2 to 4)", fontsize=12)
    right.set_ylabel("ηλ at the end (dots: each seed)", fontsize=12)
    right.legend(fontsize=10, frameon=False, loc="lower left")
    right.set_title(f"width {config.width}: the end is flatter", fontsize=12)
    save(figure, rundir.figure("toy"))
