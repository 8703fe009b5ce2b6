"""The smallest net that can be catapulted: f = u·v/√m on one example, loss ½f².

Its kernel is one number, λ = (|u|² + |v|²)/m. For wide nets the loss falls for ηλ < 2,
is catapulted and comes back for 2 < ηλ < 4, and diverges above (Lewkowycz et al. 2020).
"""

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from experiments.catapults import descent
from optsde.analysis import estimate, interval, least_above, plots, within
from optsde.gradients import FunctionOracle
from optsde.measure import probe
from optsde.run import Progress
from optsde.study import Numbers, Seeds, Study, setting

SPIKE = 2.0  # times the loss at the start
WINDOW = ((1.95, 2.05), (3.9, 4.1))  # where it should open and close
SHOWN = (1.9, 2.2, 3.0, 3.8, 4.2)  # ratios near these have their losses drawn


def grid(*parts: tuple[float, float, float]) -> tuple[float, ...]:
    """Returns the numbers from start to stop in steps, for each part."""
    return tuple(
        round(start + i * step, 6)
        for start, stop, step in parts
        for i in range(round((stop - start) / step))
    )


RATIOS = grid(
    (1.5, 1.9, 0.1),
    (1.9, 2.2, 0.02),
    (2.2, 3.8, 0.1),
    (3.8, 4.2, 0.02),
    (4.2, 4.7, 0.1),
)


class Settings(Seeds):
    width: int = setting(4096, "m", at_least=1)
    steps: int = setting(400, "steps of a run", at_least=1)
    ratios: Numbers = setting(
        RATIOS, "ηλ at the start of each arm", above=0, rising=True, entries=2
    )

    def demands(self):
        yield from super().demands()
        around = self.ratios[0] < WINDOW[0][0] and self.ratios[-1] > WINDOW[1][1]
        allowed = "some below 1.95 and some above 4.1, to see the window open and close"
        yield around, "ratios", allowed


def simulate(s, rundir):
    return rundir.once("runs", lambda: trained(s))


def trained(s):
    """Returns the loss, and rate = ηλ, [seeds, ratios, steps]."""

    def loss(params):
        u, v = params
        return 0.5 * (u @ v / s.width**0.5) ** 2

    def kernel(params):
        u, v = params
        return (u @ u + v @ v) / s.width

    loss_and_grad = jax.value_and_grad(loss)
    oracle = FunctionOracle(lambda source, params, draw: loss_and_grad(params))

    def dynamics(member):
        lr, start = member
        plan = optsde.Plan(optimizer=optsde.SGD(lr=lr), batch_size=1, horizon=s.steps)
        return optsde.discrete(plan, lambda batch_size: oracle, start)

    def probes(member):
        def observe(lr, state):
            return {"rate": lr * kernel(state.params)}

        return [probe(observe, member[0], range(s.steps))]

    keys = jax.random.split(jax.random.key(s.seed), s.seeds)
    starts = jax.vmap(lambda key: jax.random.normal(key, (2, s.width)))(keys)
    starts = tuple(jnp.repeat(starts, len(s.ratios), axis=0).swapaxes(0, 1))
    ratios = jnp.tile(jnp.array(s.ratios), s.seeds)
    result = optsde.fit(
        dynamics,
        jax.random.split(jax.random.key(0), len(ratios)),
        s.steps,
        every=1.0,
        probes=probes,
        members=(ratios / jax.vmap(kernel)(starts), starts),
        progress=Progress(f"{len(ratios)} toys"),
        stop_at_divergence=False,
    )
    return descent.by_seed(result.metrics, s.seeds)


def fates(loss):
    """Returns whether each run's loss shot up, and whether it is lost for good."""
    finite = np.where(np.isfinite(loss), loss, np.inf)
    spiked = finite.max(axis=-1) > SPIKE * loss[..., 0]
    lost = ~np.isfinite(loss[..., -1]) | (finite[..., -1] > loss[..., 0])
    return spiked, lost


def claims(s, runs):
    ratios = np.array(s.ratios)
    names = "opens", "closes"
    for name, fate, (low, high) in zip(names, fates(runs["loss"]), WINDOW, strict=True):
        first = fate.argmax(axis=1)  # of the ratios, for each seed
        edges = estimate((ratios[first] + ratios[np.maximum(first - 1, 0)]) / 2)
        claim = f"window_{name}_at_{round((low + high) / 2)}"
        yield within(claim, interval(edges), low, high, "ηλ at the start")
    inside = (ratios > WINDOW[0][1]) & (ratios < WINDOW[1][0])
    margins = 2 - runs["rate"][:, inside, -1].max(axis=1)
    claim = "inside_it_all_end_with_rate_below_2"
    yield least_above(claim, margins, 0.0, "2 − ηλ at the end")


def figure(s, runs, path):
    drawing, (left, middle, right) = plots.new_figure(3, width=13, height=4.4)
    loss, ratios = runs["loss"], np.array(s.ratios)
    for wanted, colour in plots.colours(SHOWN).items():
        at = int(np.abs(ratios - wanted).argmin())
        curve = np.where(loss[0, at] < 1e12, loss[0, at], np.nan)
        left.plot(curve / loss[0, at, 0], color=colour, label=f"{ratios[at]:.2g}")
    left.set(yscale="log", ylim=(1e-8, 1e6), xlim=(0, min(100, s.steps)))
    y, title = "loss, in units of that at the start", "below, in and above the window"
    looks = dict(legend="best", legend_title="ηλ at the start")
    plots.label(left, "step", y, title, **looks)

    (spiked, lost), colours = fates(loss), plots.COLOURS
    ends = np.where(lost, np.nan, runs["rate"][..., -1])
    middle.plot(ratios, ends.T, "o", ms=3, color=colours[0], alpha=0.5)
    middle.axhline(2, color="grey", ls="--", lw=1)
    middle.plot(ratios, ratios, color="grey", lw=1)
    middle.set(ylim=(0, 2.3))
    for fate, ls, text in ((spiked, "-", "shoot up"), (lost, "--", "diverge")):
        looks = dict(color=colours[5], label=text, lw=1.8)
        right.plot(ratios, 100 * fate.mean(axis=0), ls, **looks)
    for ax in (middle, right):
        plots.spans(ax, [(2, 4)], colour=colours[1])
    x, title = "ηλ at the start", f"width {s.width}: the end is flatter"
    plots.label(middle, x, "ηλ at the end, a dot for each seed", title)
    y, title = f"% of {s.seeds} seeds", "shaded: the window, 2 to 4"
    plots.label(right, x, y, title, legend="center")
    plots.save(drawing, path)


study = Study(__name__, Settings, simulate, claims=claims, figures={"toy": figure})
