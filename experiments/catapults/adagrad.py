"""How does AdaGrad answer a rate above its critical one?

Its η_crit = 2/λ_max(P^-½ H P^-½) with P = √s + ε. After a warm-up it follows the same
cycles as descent does in `cyclic`, in units of its η_crit then. A spike makes s larger
and with it η_crit. The bound η_crit ≥ 2 min_i P_i/λ_max(H) is checked all along.
"""

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
    agrees,
    estimate,
    interval,
    least_above,
    plus_minus,
    table,
    within,
)
from optsde.analysis.plots import COLOURS, new_figure, plain_log_axis, save
from optsde.analysis.spikes import find_spikes, phases

ARMS = {
    "const": ("constant .5", (0.5, 0.5, 1.0)),
    "equal": ("equal peaks of 3", (0.2, 3.0, 1.0)),
    "growing": ("peaks 1.5, 2.25, …", (0.2, 1.5, 1.5)),
}
ROUNDING = 0.02  # relative, of the eigenvalues that the bound compares


def check(config: ConfigDict) -> None:
    cyclic.check(config)
    require(config.warm_steps >= 20, config, "warm_steps", "at least 20 steps")
    require(config.warm_lr > 0, config, "warm_lr", "a positive number")
    steps = config.cycles * config.period
    fine = config.every >= 1 and steps % config.every == 0
    require(fine, config, "every", f"a divisor of the {steps} steps")


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    curves = rundir.once(lambda: simulate(config))
    spikes = {name: [find_spikes(x) for x in curves[f"{name}_loss"]] for name in ARMS}
    print("", arm_table(curves, spikes), sep="\n")
    draw(config, curves, spikes, rundir)
    return judge(config, curves, spikes)


def soft_relu(x):
    """With ReLU itself, units that are never on leave P = ε, and no bound at all."""
    import jax

    return jax.nn.softplus(4 * x) / 4


def simulate(config: ConfigDict) -> dict[str, np.ndarray]:
    """Of each arm: loss [seeds, steps]; critical, sharpness, least at each look."""
    import jax.numpy as jnp

    model = nets.two_layer(config.width, 10, soft_relu)
    ones = jnp.ones(config.seeds)
    warm_lr = config.warm_lr * ones
    members = full_batch.digits_members(config, model)._replace(lr=warm_lr)
    engine = full_batch.engine_of(
        model, members, config.warm_steps, family=optsde.AdaGrad
    )
    progress = optsde.Progress(f"{config.seeds} runs warming up")
    state = full_batch.started(engine)
    warm = watch(engine, state, config.warm_steps, progress=progress)
    state = engine.kept(warm.state)
    seen = measured(engine, model, members)(warm.state)
    critical = jnp.asarray(seen["critical"])

    count = len(ARMS)
    low, high, growth = jnp.tile(
        jnp.array([cycle for _, cycle in ARMS.values()]), (config.seeds, 1)
    ).T
    members = full_batch.repeated(members._replace(lr=critical), count)
    members = members._replace(low=low, high=high, growth=growth)
    steps = config.cycles * config.period
    engine = full_batch.engine_of(
        model, members, steps, config.period, family=optsde.AdaGrad
    )
    # The state goes on, and its clock begins anew, as the cycles do.
    state = full_batch.repeated(state, count)
    clock = state.optimizer._replace(count=jnp.zeros_like(state.optimizer.count))
    state = engine.spread(state._replace(optimizer=clock))
    look = measured(engine, model, members)
    progress = optsde.Progress(f"{engine.replicas} runs in cycles")
    losses, looks = [], [look(state)]
    for start in range(0, steps, config.every):
        part = watch(engine, state, config.every)
        state = part.state
        losses.append(part.loss)
        looks.append(look(state))
        progress.update(start + config.every, steps)
    found = {"loss": np.concatenate(losses, axis=1)}
    found |= {name: np.stack([x[name] for x in looks], axis=1) for name in looks[0]}
    curves = {
        f"{arm}_{name}": x.reshape(config.seeds, count, -1)[:, i]
        for i, arm in enumerate(ARMS)
        for name, x in found.items()
    }
    return curves | {"warm_loss": warm.loss}


def measured(engine, model, members: full_batch.Member):
    """state -> critical rate, λ_max(H), least P and the share of P without gradient."""
    import jax
    import jax.numpy as jnp

    from optsde import gradients
    from optsde.measure import curvature, spectrum

    losses = nets.losses_of(model)
    adagrad = optsde.AdaGrad()

    def of_one(examples, state):
        params, direction = state.params, state.optimizer.direction
        divisor = adagrad.preconditioner(direction, params)
        oracle = gradients.full_batch(losses, examples, group=None)
        product = curvature.hessian(oracle, params)
        scaled = curvature.preconditioned(product, divisor)
        key = jax.random.key(0)
        start = spectrum.random_vectors(key, params)
        top = spectrum.top_eigenvalues(product, start, key, tolerance=3e-3)
        own = spectrum.top_eigenvalues(scaled, start, key, tolerance=3e-3)
        sums = jnp.concatenate([x.ravel() for x in jax.tree.leaves(direction.s)])
        sizes = jnp.concatenate([x.ravel() for x in jax.tree.leaves(divisor)])
        return {
            "critical": adagrad.critical_lr(own.values[0]),
            "sharpness": top.values[0],
            "least": sizes.min(),
            "masked": 100 * (sums == 0).mean(),
        }

    each, examples = engine.each(of_one), engine.spread(members.examples)

    def look(state):
        return {k: np.asarray(x) for k, x in engine.kept(each(examples, state)).items()}

    return look


def slack(curves: dict, arm: str) -> np.ndarray:
    """η_crit over its lower bound, at each look."""
    bound = 2 * curves[f"{arm}_least"] / curves[f"{arm}_sharpness"]
    return curves[f"{arm}_critical"] / bound


def judge(config: ConfigDict, curves: dict, spikes: dict) -> list[Verdict]:
    def grown(arm: str, name: str) -> np.ndarray:
        x = curves[f"{arm}_{name}"]
        return x[:, -1] / x[:, 0]

    least = np.log10(grown("const", "least"))
    ratios = np.concatenate([slack(curves, arm).ravel() for arm in ARMS])
    verdicts = [
        least_above(
            "bound_is_never_violated",
            ratios,
            1 - ROUNDING,
            "η_crit/bound",
            centre=np.median,
        ),
        above("least_P_grows_at_half_critical", estimate(least), 0.0, "powers of ten"),
        agrees(
            "critical_rate_grows_as_it_does",
            estimate(np.log10(grown("const", "critical")) - least),
            np.log10(1.5),
            "powers of ten",
        ),
    ]
    counts = {arm: estimate([len(x) for x in found]) for arm, found in spikes.items()}
    claims = (("const", -0.5, 0.5), ("equal", -0.5, 0.5), ("growing", 2.5, 5.5))
    for arm, low, high in claims:
        claim = f"catapults_of_{arm}_peaks"
        verdicts.append(within(claim, interval(counts[arm]), low, high, "catapults"))
    critical, flat = grown("equal", "critical"), grown("equal", "sharpness")
    claim = "equal_peaks_raise_the_critical_rate"
    verdicts.append(above(claim, estimate(critical), 1.5, "times"))
    claim = "and_leave_the_sharpness"
    verdicts.append(within(claim, interval(estimate(flat)), 0.9, 1.1, "times"))
    return verdicts


def arm_table(curves: dict, spikes: dict) -> str:
    rows = []
    for arm, (title, _) in ARMS.items():
        ends = []
        for name in ("critical", "sharpness", "least"):
            x = curves[f"{arm}_{name}"]
            e = estimate(x[:, -1] / x[:, 0])
            ends.append(plus_minus(e))
        counts = " ".join(str(len(found)) for found in spikes[arm])
        ratio = slack(curves, arm)
        span = f"{np.median(ratio):.3g} ({ratio.min():.3g})"
        masked = f"{curves[f'{arm}_masked'].max():.2g}"
        rows.append([title, counts, *ends, span, masked])
    header = ["learning rate", "catapults of each seed", "η_crit end/start", "λ_max(H)"]
    header += ["least P", "η_crit/bound (least)", "% of P = ε"]
    return table(header, rows, "lrrrrrr")


def draw(config: ConfigDict, curves: dict, spikes: dict, rundir: RunDir) -> None:
    import jax.numpy as jnp

    from optsde.plans.schedules import exponential_cyclic

    figure, axes = new_figure(3, width=14, height=4.4)
    (rates, losses, growth), steps = axes, config.cycles * config.period
    looks = np.arange(0, steps + 1, config.every)
    fine = np.arange(steps)
    for (arm, (title, cycle)), colour in zip(ARMS.items(), COLOURS, strict=False):
        rate = np.asarray(exponential_cyclic(config.period, *cycle)(jnp.asarray(fine)))
        critical = curves[f"{arm}_critical"][0]
        bound = critical / slack(curves, arm)[0]
        style = dict(color=colour, lw=1.6)
        rates.plot(fine, rate, **style, label=title)
        rates.plot(looks, critical / critical[0], ls=":", **style)
        rates.plot(looks, bound / critical[0], ls="--", **style)
        losses.plot(fine, curves[f"{arm}_loss"][0], **style)
        for name, dashes in (("least", "-"), ("sharpness", "--")):
            x = curves[f"{arm}_{name}"][0]
            growth.plot(looks, x / x[0], dashes, **style)
    for ax in (losses, growth):
        for first, last in phases(spikes["growing"][0], steps):
            ax.axvspan(first, last, color=COLOURS[5], alpha=0.15, lw=0)
    for ax in axes:
        ax.set_xlabel("step", fontsize=12)
        ax.set(yscale="log")
    low, high = rates.get_ylim()
    rates.set(ylim=(low, high * 30))
    rates.legend(fontsize=10, frameon=False, loc="upper left")
    rates.set_ylabel("in units of the critical rate at the start", fontsize=12)
    rates.set_title("rate (solid), critical (dotted), its bound (dashed)", fontsize=11)
    losses.set_ylabel("training loss", fontsize=12)
    losses.set_title("loss of one run; red: catapults", fontsize=12)
    growth.set_ylabel("in units of the start", fontsize=12)
    growth.set_title("least P (solid), λ_max(H) (dashed)", fontsize=12)
    plain_log_axis(growth)
    save(figure, rundir.figure("adagrad"))
