"""How long may a step along the gradient be before the loss stops falling?

From a point θ of a run, with g and H there, the descent lemma and the parabola that it
bounds, at a step of η = x · 2/λ_max(H) and in units of ‖g‖²/λ_max:

    L(θ − ηg) − L(θ)  ≈  −2x + 2ρx²  ≤  −2x + 2x²,    ρ = gᵀHg/(λ_max ‖g‖²).

The bound lets the loss fall up to 2/λ_max, the parabola up to 1/ρ times that. The
lemma's λ_max is the largest one on the way; here it is that at θ, so that the bound is
a claim, too.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.catapults import descent, nets
from optsde import gradients, measure
from optsde.analysis import (
    estimate_finite,
    interval,
    least_above,
    plots,
    plus_minus,
    table,
    within,
)
from optsde.study import Integers, Study, setting

SHORTEST = 0.05  # step, in 2/λ_max
TICKS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)


class Settings(nets.NetSettings):
    after: Integers = setting(
        (0, 20, 200), "steps before that one", at_least=0, rising=True, entries=1
    )
    base: float = setting(0.5, "rate of those", unit="η_crit at the start", above=0)
    reach: float = setting(
        1000.0, "the longest step", unit="2/λ_max", above=1, at_most=1e5
    )
    points: int = setting(201, "steps that are tried", at_least=9)

    def steps(self) -> np.ndarray:
        """Returns the lengths that are tried, in 2/λ_max."""
        return np.geomspace(SHORTEST, self.reach, self.points)


def simulate(s, rundir, task):
    return rundir.once("steps", lambda: trained(s, task))


def trained(s, task):
    """Returns the changes of the loss [seeds, stages, steps], and ρ [seeds, stages]."""
    members = descent.members_of(s, task)
    members = members._replace(lr=s.base * members.lr)

    def along(member):
        """Returns the probe of all steps from one point."""

        def observe(examples, state):
            params, key = state.params, jax.random.key(0)
            oracle = gradients.full_batch(task.losses, examples, group=None)()
            draw = gradients.Draw(key, jnp.int32(0))
            loss, g = oracle(params, draw)
            product = measure.hessian(oracle, params)
            start = measure.random_vectors(key, params)
            top = measure.top_eigenvalues(product, start, key).values[0]
            square = optax.tree.vdot(g, g)

            def change(x):
                moved = optax.tree.add_scale(params, -2 * x / top, g)
                return (oracle(moved, draw)[0] - loss) * top / square

            changes = jax.lax.map(change, jnp.asarray(s.steps()))
            ratio = optax.tree.vdot(g, product(g)) / (top * square)
            return {"changes": changes, "ratio": ratio}

        return [measure.probe(observe, member.examples, list(s.after))]

    options = dict(period=None, probes=along)
    found = descent.run(task.losses, members, max(s.after[-1], 1), **options).metrics
    return {name: found[name].values for name in ("changes", "ratio")}


def crossings(s, changes):
    """Returns the first step at which the loss no longer falls; NaN beyond `reach`."""
    x, rises = s.steps(), changes >= 0
    first = np.maximum(rises.argmax(axis=-1), 1)
    below, above = (
        np.take_along_axis(changes, at[..., None], -1)[..., 0]
        for at in (first - 1, first)
    )
    with np.errstate(invalid="ignore"):
        share = below / (below - above)
    ends = x[first - 1] + share * (x[first] - x[first - 1])
    return np.where(rises.any(axis=-1) & (below < 0), ends, np.nan)


def parabola(x, ratio):
    """Returns the change to second order; the lemma's bound at a ratio of 1."""
    return -2 * x + 2 * ratio * x**2


def tables(s, runs):
    ends, rows = crossings(s, runs["changes"]), []
    for i, after in enumerate(s.after):
        ratio = runs["ratio"][:, i]
        numbers = ratio, 1 / ratio, ends[:, i]
        rows.append([after, *(plus_minus(estimate_finite(x)) for x in numbers)])
    header = ["after steps", "ρ", "1/ρ", "the loss falls up to, in 2/λ_max"]
    yield ""
    yield table(header, rows, "rrrr")


def claims(s, runs):
    x, unit = s.steps(), "‖g‖²/λ_max"
    inside = x <= 1
    changes = runs["changes"][..., inside]
    spare = (parabola(x[inside], 1.0) - changes).ravel()
    yield least_above("bound_holds_up_to_2/λ_max", spare, -0.02, unit)
    claim = "loss_falls_at_all_steps_below_2/λ_max"
    yield least_above(claim, -changes[..., x[inside] < 0.99].ravel(), 0.0, unit)
    ends = crossings(s, runs["changes"])
    for i, after in enumerate(s.after):
        at = f"after_{after}_steps"
        ratio = runs["ratio"][:, i]
        found = interval(estimate_finite(ends[:, i] * ratio))
        claim, unit = f"parabola_says_where_it_ends_{at}", "of 1/ρ"
        yield within(claim, found, 0.8, 1.25, unit)
        claim = f"2/λ_max_says_where_it_ends_{at}"
        found = interval(estimate_finite(ends[:, i]))
        yield within(claim, found, 0.8, 1.25, "of 2/λ_max")


def figure(s, runs, path):
    drawing, axes = plots.new_figure(len(s.after), width=4.4 * len(s.after), height=4.6)
    x, looks = s.steps(), dict(color=plots.COLOURS[1], ls="--", lw=1.8)
    for i, (ax, after) in enumerate(zip(axes, s.after, strict=True)):
        depth = 1 / runs["ratio"][:, i, None]  # of the parabola is half of it
        changes, middle = runs["changes"][:, i] / depth, np.median(depth)
        measured = dict(label="measured", colour=plots.COLOURS[0])
        plots.curves(ax, x, changes, **measured)
        ax.plot(x, parabola(x, 1 / middle) / middle, label="parabola", **looks)
        bound = parabola(x, 1.0) / middle
        ax.plot(x, bound, label="lemma's bound", color=plots.COLOURS[5], lw=1.4)
        ax.axvline(1, color="grey", ls=":", lw=1.4, label="2/λ_max")
        ax.axhline(0, color="black", lw=0.8)
        ax.set(xscale="log", xlim=(SHORTEST, 2.5 * middle), ylim=(-0.7, 0.7))
        ticks = [tick for tick in TICKS if tick < 2.5 * middle]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        y = "change of the loss, in ‖g‖²/(ρλ_max)" if i == 0 else ""
        title = f"after {after} steps: ρ = {1 / middle:.2g}"
        plots.label(ax, "length of the step, in 2/λ_max", y, title)
    plots.shared_legend(drawing, axes[0], columns=4)
    plots.save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"lemma": figure},
    task=nets.build_task,
    fixed_task=nets.FIXED,
)
