"""What do catapults do to the neural tangent kernel? Its norm and condition number.

Odd against even digits with one output, full batch, a cyclic rate with growing peaks
against half the critical rate. Eigenvalues are those of the exact kernel in float64.
"""

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.catapults import cyclic, full_batch, nets
from experiments.catapults.steps import watch
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import Verdict, above, agrees, estimate, plus_minus, table
from optsde.analysis.plots import COLOURS, new_figure, plain_log_axis, save
from optsde.analysis.spikes import find_spikes, phases

ARMS = {"growing": "peaks 1.5, 2.25, …", "const": "constant .5"}
CYCLES = {"growing": (0.2, 1.5, 1.5), "const": (0.5, 0.5, 1.0)}


def check(config: ConfigDict) -> None:
    cyclic.check(config)
    steps = config.cycles * config.period
    fine = config.every >= 1 and steps % config.every == 0
    require(fine, config, "every", f"a divisor of the {steps} steps")


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    curves = rundir.once(lambda: simulate(config))
    spikes = [find_spikes(x) for x in curves["growing_loss"]]
    print("", arm_table(curves), sep="\n")
    draw(config, curves, spikes, rundir)
    return judge(config, curves, spikes)


def simulate(config: ConfigDict) -> dict[str, np.ndarray]:
    """Of each arm: loss [seeds, steps]; norm, least, effective_rank at each look."""
    import jax.numpy as jnp

    model = nets.two_layer(config.width, 1)
    apply = nets.apply_of(model)
    members = full_batch.repeated(odd_or_even(config, model), len(ARMS))
    low, high, growth = jnp.tile(jnp.array(list(CYCLES.values())), (config.seeds, 1)).T
    members = members._replace(low=low, high=high, growth=growth)
    steps = config.cycles * config.period
    engine = full_batch.engine_of(model, members, steps, config.period)
    state = full_batch.started(engine)
    progress = optsde.Progress(f"{engine.replicas} runs with their spectra")
    losses, seen = [], [spectra(apply, engine.kept(state), members)]
    for start in range(0, steps, config.every):
        part = watch(engine, state, config.every)
        state = part.state
        losses.append(part.loss)
        seen.append(spectra(apply, engine.kept(state), members))
        progress.update(start + config.every, steps)
    found = {"loss": np.concatenate(losses, axis=1)}
    found |= {name: np.stack([s[name] for s in seen], axis=1) for name in seen[0]}
    return {
        f"{arm}_{name}": x.reshape(config.seeds, len(ARMS), -1)[:, i]
        for i, arm in enumerate(ARMS)
        for name, x in found.items()
    }


def odd_or_even(config: ConfigDict, model) -> full_batch.Member:
    """Target 1 for odd digits and −1 for even ones."""
    import jax
    import jax.numpy as jnp

    inputs, targets = map(jnp.asarray, nets.centred_digits())
    odd = 2.0 * (targets.argmax(-1, keepdims=True) % 2) - 1

    def make(seed):
        pick, draw = jax.random.split(jax.random.fold_in(jax.random.key(2), seed))
        order = jax.random.permutation(pick, full_batch.HELD_OUT)
        chosen = order[: config.train_size]
        start = nets.initial(draw, model, inputs)
        lr = nets.critical_lr(nets.apply_of(model), start, inputs[chosen])
        return full_batch.Member(lr, (inputs[chosen], odd[chosen]), start)

    return jax.jit(jax.vmap(make))(config.seed + jnp.arange(config.seeds))


def spectra(apply, state, members: full_batch.Member) -> dict[str, np.ndarray]:
    """[replicas] each."""
    import jax

    from optsde.measure import ntk

    found = []
    for i, inputs in enumerate(members.examples[0]):
        params = jax.tree.map(lambda x, i=i: x[i], state.params)
        kernel = ntk.exact_kernel(apply, params, inputs, form="trace", block=64)
        found.append(ntk.spectrum(kernel))
    names = ("norm", "least", "condition", "effective_rank")
    return {name: np.array([getattr(s, name) for s in found]) for name in names}


def judge(config: ConfigDict, curves: dict, spikes) -> list[Verdict]:
    def change(arm: str, name: str) -> np.ndarray:
        """log10 of end over start."""
        x = curves[f"{arm}_{name}"]
        return np.log10(x[:, -1] / x[:, 0])

    def at(name: str) -> np.ndarray:
        """A look's number at the steps in between, as of the look before."""
        return np.repeat(curves[f"growing_{name}"], config.every, axis=1)

    fall = estimate(-change("growing", "condition"))
    verdicts = [
        above("condition_falls_fivefold", fall, np.log10(5), "powers of ten"),
        agrees(
            "condition_stays_at_half_critical",
            estimate(change("const", "condition")),
            np.log10(1.5),
            "powers of ten",
        ),
    ]
    part = change("growing", "norm") / change("growing", "condition")
    claim = "most_of_it_is_the_norm"
    verdicts.append(above(claim, estimate(100 * part), 50.0, "% of the fall, in logs"))
    verdicts.append(cyclic.lower_after("catapult", at("norm"), spikes))
    condition = at("condition")
    verdicts.append(cyclic.lower_after("catapult", condition, spikes, "condition"))
    return verdicts


def arm_table(curves: dict) -> str:
    rows = []
    for arm, title in ARMS.items():
        for name in ("condition", "norm", "least", "effective_rank"):
            x = curves[f"{arm}_{name}"]
            first, last, ratio = map(estimate, (x[:, 0], x[:, -1], x[:, -1] / x[:, 0]))
            cells = [plus_minus(e) for e in (first, last, ratio)]
            rows.append([title, NAMES[name], *cells])
    return table(["learning rate", "", "start", "end", "end/start"], rows, "llrrr")


NAMES = {
    "norm": "largest eigenvalue ‖K‖",
    "least": "smallest eigenvalue",
    "condition": "condition number",
    "effective_rank": "effective rank",
}


def draw(config: ConfigDict, curves: dict, spikes, rundir: RunDir) -> None:
    figure, axes = new_figure(3, width=13, height=4.4)
    (losses, eigenvalues, conditions), steps = axes, config.cycles * config.period
    looks = np.arange(0, steps + 1, config.every)
    for (arm, title), colour in zip(ARMS.items(), COLOURS, strict=False):
        losses.plot(curves[f"{arm}_loss"][0], color=colour, lw=1.6, label=title)
        for name, style in (("norm", "-"), ("least", "--")):
            label = f"{NAMES[name].replace(' ‖K‖', '')}, {title}"
            x = curves[f"{arm}_{name}"][0]
            eigenvalues.plot(looks, x, style, color=colour, lw=1.6, label=label)
        condition = curves[f"{arm}_condition"]
        for seed in condition[1:]:
            conditions.plot(looks, seed, color=colour, lw=0.8, alpha=0.4)
        conditions.plot(looks, condition[0], color=colour, lw=1.8, label=title)
    for ax, title in zip(
        axes, ("loss", "eigenvalues of the kernel", "condition number"), strict=True
    ):
        for first, last in phases(spikes[0], steps):
            ax.axvspan(first, last, color=COLOURS[5], alpha=0.15, lw=0)
        ax.set(yscale="log")
        ax.set_xlabel("step (red: catapults of the run drawn bold)", fontsize=11)
        ax.set_title(title, fontsize=12)
    losses.set_ylabel("training loss", fontsize=12)
    eigenvalues.set_ylabel("eigenvalue", fontsize=12)
    conditions.set_ylabel("‖K‖ / smallest eigenvalue", fontsize=12)
    plain_log_axis(conditions)
    low, high = eigenvalues.get_ylim()
    eigenvalues.set(ylim=(low, high * 20))
    for ax in (losses, eigenvalues):
        ax.legend(fontsize=9, frameon=False, loc="upper right")
    save(figure, rundir.figure("kernel"))
