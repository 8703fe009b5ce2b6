"""Does the critical rate 2/λ_max(H) foretell the spike?

Full-batch descent on digits at half the critical rate, then from there at ratios of
2/λ_max of the Hessian as it is then.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.catapults import descent, nets
from experiments.catapults.descent import Cycle
from optsde import gradients, measure
from optsde.analysis import estimate, find_spikes, interval, plots, share, table, within
from optsde.measure import ntk
from optsde.study import Numbers, Study, setting

QUIET, LOUD = 1.0, 1.2  # no run spikes up to the one, every run from the other on
SHOWN = (0.9, 1.0, 1.1, 1.2, 1.5)  # ratios near these have their losses drawn


class Settings(nets.NetSettings):
    warm_steps: int = setting(100, "steps at half the critical rate", at_least=20)
    steps: int = setting(200, "steps from there", at_least=20)
    ratios: Numbers = setting(
        (0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5),
        "rates of the arms",
        unit="2/λ_max",
        above=0,
        rising=True,
        entries=2,
    )

    def demands(self):
        yield from super().demands()
        around = self.ratios[0] <= QUIET and self.ratios[-1] >= LOUD
        yield around, "ratios", f"some up to {QUIET} and some from {LOUD} on"


def simulate(s, rundir, task):
    curves = rundir.once("runs", lambda: trained(s, task))
    loss, norm = curves["loss"], curves["norm"]
    spiked = [
        [bool(find_spikes([*before, *after])) for after in of_seed]
        for before, of_seed in zip(curves["warm_loss"], loss, strict=True)
    ]
    return curves | {
        "spiked": np.array(spiked),
        "rose": (np.diff(loss, axis=-1) > 0).any(axis=-1),
        "height": loss.max(axis=-1) / loss[..., 0],
        "fall": norm[..., -1] / norm[..., 0],
    }


def trained(s, task):
    """Returns losses and ‖K‖ [seeds, ratios, steps], and the curvatures at first."""
    seeds, count = descent.members_of(s, task), len(s.ratios)
    warm = descent.run(
        task.losses,
        descent.crossed(seeds, [Cycle(0.5, 0.5)]),
        s.warm_steps,
        " below critical",
        probes=lambda member: [curvatures(task, member.examples).at([s.warm_steps])],
    )
    top = warm.metrics["hessian"].values[:, 0]
    lr = jnp.tile(jnp.array(s.ratios), s.seeds) * jnp.repeat(2 / top, count)
    members = descent.repeated(seeds._replace(start=warm.state.params), count)
    members, norms = members._replace(lr=lr), descent.norms(task, s.steps)
    result = descent.run(task.losses, members, s.steps, " around it", probes=norms)
    found = descent.by_seed(result.metrics, s.seeds)
    return {
        "warm_loss": warm.metrics["loss"].values,
        "loss": found["loss"],
        "norm": found["ntk_norm"],
        "kernel": 2 * warm.metrics["kernel"].values[:, 0] / s.train_size,
        "hessian": top,
    }


def curvatures(task, examples):
    """Returns the probe of ‖K‖ and of the Hessian's largest eigenvalue."""

    def observe(examples, state):
        norm, _ = ntk.norm(task.apply, state.params, examples[0], iterations=50)
        oracle = gradients.full_batch(task.losses, examples, group=None)()
        product = measure.hessian(oracle, state.params)
        key = jax.random.key(0)
        start = measure.random_vectors(key, state.params)
        top = measure.top_eigenvalues(product, start, key)
        return {"kernel": norm, "hessian": top.values[0]}

    return measure.probe(observe, examples)


def tables(s, runs):
    rows = [
        [
            f"{ratio:g}",
            f"{100 * runs['spiked'][:, i].mean():.0f}",
            f"{100 * runs['rose'][:, i].mean():.0f}",
            f"{np.median(runs['height'][:, i]):.3g}",
            f"{np.median(runs['fall'][:, i]):.2f}",
        ]
        for i, ratio in enumerate(s.ratios)
    ]
    header = ["rate in 2/λ_max", "spiked, %", "ever rose, %", "largest/first loss"]
    yield ""
    yield table([*header, "‖K‖ after/before"], rows, "rrrrr")


def claims(s, runs):
    ratios, spiked, rose = np.array(s.ratios), runs["spiked"], runs["rose"]
    yield share("none_spikes_up_to_1", spiked[:, ratios <= QUIET], 0.0)
    yield share("all_spike_from_1.2_on", spiked[:, ratios >= LOUD], 100.0)
    match = interval(estimate(runs["hessian"] / runs["kernel"]))
    claim = "hessian_is_that_of_the_kernel"
    yield within(claim, match, 0.9, 1.1, "λ_max(H)·n/(2‖K‖)")
    first = np.where(rose.any(axis=1), ratios[rose.argmax(axis=1)], np.nan)
    onset = interval(estimate(first))
    yield within("loss_first_rises_at", onset, 0.94, 1.11, "of 2/λ_max")


def figure(s, runs, path):
    drawing, (left, middle, right) = plots.new_figure(3, width=13, height=4.2)
    for wanted, colour in plots.colours(SHOWN).items():
        at = int(np.abs(np.array(s.ratios) - wanted).argmin())
        left.plot(runs["loss"][0, at], color=colour, label=f"{s.ratios[at]:g}")
    left.set(yscale="log", xlim=(0, min(100, s.steps)))
    x, title = "step after the change of rate", "one run, its rate changed"
    looks = dict(legend="best", legend_title="rate in 2/λ_max")
    plots.label(left, x, "training loss", title, **looks)
    for number, (name, text, form) in enumerate(
        (("spiked", "loss more than doubles", "o-"), ("rose", "loss ever rises", "s--"))
    ):
        looks = dict(color=plots.COLOURS[number], label=text, ms=5)
        middle.plot(s.ratios, 100 * runs[name].mean(axis=0), form, **looks)
    looks = dict(colour=plots.COLOURS[2], marker="o", ms=5)
    plots.curves(right, s.ratios, runs["fall"], **looks)
    right.set(ylim=(0, 1.1))
    for ax in (middle, right):
        ax.axvline(1, color="grey", ls=":", lw=1.2)
    x, y = "learning rate, in units of 2/λ_max", f"% of {s.seeds} runs"
    plots.label(middle, x, y, "who spikes", legend="lower right")
    y = "‖K‖ after/before, all runs and median"
    plots.label(right, x, y, "who ends flatter")
    plots.save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"threshold": figure},
    task=nets.build_task,
    fixed_task=nets.FIXED,
)
