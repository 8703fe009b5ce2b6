"""How does AdaGrad answer a rate above its critical one?

Its η_crit = 2/λ_max(P^-½ H P^-½) with P = √s + ε. After a warm-up it follows the same
cycles as descent does in `cyclic`, in units of its η_crit then. A spike makes s larger
and with it η_crit. The bound η_crit ≥ 2 min_i P_i/λ_max(H) is checked all along.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from experiments.catapults import cycles, descent, nets
from experiments.catapults.cycles import Arm
from experiments.catapults.descent import Cycle
from optsde import analysis, gradients, measure
from optsde.analysis import above, agrees, estimate, interval, plots, plus_minus
from optsde.study import Study, setting

ARMS = {
    "const": Arm("constant .5", Cycle(0.5, 0.5, 1.0), (-0.5, 0.5)),
    "equal": Arm("equal peaks of 3", Cycle(0.2, 3.0, 1.0), (-0.5, 0.5)),
    "growing": Arm("peaks 1.5, 2.25, …", Cycle(0.2, 1.5, 1.5), (2.5, 5.5)),
}
ROUNDING = 0.02  # relative, of the eigenvalues that the bound compares


class Settings(cycles.ObservedSettings):
    warm_steps: int = setting(50, "steps before the cycles", at_least=20)
    warm_lr: float = setting(0.005, "learning rate before the cycles", above=0)


def soft_relu(x):
    """With ReLU itself, units that are never on leave P = ε, and no bound at all."""
    return jax.nn.softplus(4 * x) / 4


def build_task(s):
    """Returns the net with a smooth activation, on images."""
    return nets.build_task(s, soft_relu)


def simulate(s, rundir, task):
    return cycles.by_arm(rundir.once("cycles", lambda: trained(s, task)), ARMS)


def trained(s, task, arms=ARMS, batch_size=None, more=lambda member: ()):
    """Returns the loss before each step, and what `curvatures` measures meanwhile.

    Args:
      s, task: the settings, and the net.
      arms: the cycles, in units of the critical rate after the warm-up.
      batch_size: of draws with replacement; None: all images at each step.
      more: further probes of a member in cycles.
    """

    family = partial(optsde.AdaGrad, s0=0.0)

    def run(members, steps, times, label, more=lambda member: (), **options):
        def probes(member):
            return [curvatures(task, member.examples).at(times), *more(member)]

        options |= dict(family=family, probes=probes, batch_size=batch_size)
        return descent.run(task.losses, members, steps, label, **options)

    members = descent.members_of(s, task)
    members = members._replace(lr=jnp.full(s.seeds, s.warm_lr))
    keys = descent.keys_of_draws(s)
    warm = run(members, s.warm_steps, [s.warm_steps], " warming up", keys=keys)
    critical = jnp.asarray(warm.metrics["critical"].values[:, 0])
    members = cycles.crossed(members._replace(lr=critical), arms)
    state = descent.repeated(at_time_zero(warm.state), len(arms))
    options = dict(period=s.period, state=state)
    result = run(members, s.steps, s.every, " in cycles", more, **options)
    return descent.by_seed(result.metrics, s.seeds)


def at_time_zero(state):
    """Returns the state with its clock begun anew, as the cycles do."""
    clock = state.optimizer.clock
    clock = clock._replace(count=jnp.zeros_like(clock.count))
    return state._replace(optimizer=state.optimizer._replace(clock=clock))


def curvatures(task, examples):
    """Returns the probe of critical rate, λ_max(H), least P and share of s = 0."""
    adagrad = optsde.AdaGrad(s0=0.0)

    def observe(examples, state):
        params, direction = state.params, state.optimizer.direction
        divisor = adagrad.preconditioner(direction, params)
        oracle = gradients.full_batch(task.losses, examples, group=None)()
        product = measure.hessian(oracle, params)
        key = jax.random.key(0)
        start = measure.random_vectors(key, params)

        def largest(product):
            found = measure.top_eigenvalues(product, start, key, tolerance=3e-3)
            return found.values[0]

        own = measure.preconditioned(product, divisor)
        sums = jnp.concatenate([x.ravel() for x in jax.tree.leaves(direction.s)])
        sizes = jnp.concatenate([x.ravel() for x in jax.tree.leaves(divisor)])
        return {
            "critical": adagrad.critical_lr(largest(own)),
            "sharpness": largest(product),
            "least": sizes.min(),
            "norm": jnp.linalg.norm(sizes),
            "masked": 100 * (sums == 0).mean(),
        }

    return measure.probe(observe, examples)


def slack(run):
    """Returns η_crit over its lower bound."""
    return run["critical"] / (2 * run["least"] / run["sharpness"])


def grown(run, name):
    x = run[name]
    return x[:, -1] / x[:, 0]


def tables(s, runs):
    rows = []
    for name, arm in ARMS.items():
        run, ratio = runs[name], slack(runs[name])
        names = ("critical", "sharpness", "least")
        ends = [plus_minus(estimate(grown(run, number))) for number in names]
        span = f"{np.median(ratio):.3g} ({ratio.min():.3g})"
        masked = f"{run['masked'].max():.2g}"
        rows.append([arm.title, cycles.counts(run["spikes"]), *ends, span, masked])
    header = ["learning rate", "catapults of each seed", "η_crit end/start", "λ_max(H)"]
    header += ["least P", "η_crit/bound (least)", "% of P = ε"]
    yield ""
    yield analysis.table(header, rows, "lrrrrrr")


def claims(s, runs):
    ratios = np.concatenate([slack(run).ravel() for run in runs.values()])
    claim, unit = "bound_is_never_violated", "η_crit/bound"
    yield analysis.least_above(claim, ratios, 1 - ROUNDING, unit, centre=np.median)

    unit, const, equal = "powers of ten", runs["const"], runs["equal"]
    least = np.log10(grown(const, "least"))
    yield above("least_P_grows_at_half_critical", estimate(least), 0.0, unit)
    apart = estimate(np.log10(grown(const, "critical")) - least)
    yield agrees("critical_rate_grows_as_it_does", apart, np.log10(1.5), unit)
    for name, arm in ARMS.items():
        claim = f"catapults_of_{name}_peaks"
        yield cycles.number_of_catapults(claim, arm, runs[name]["spikes"])
    unit = "times"
    rise = estimate(grown(equal, "critical"))
    yield above("equal_peaks_raise_the_critical_rate", rise, 1.5, unit)
    flat = interval(estimate(grown(equal, "sharpness")))
    yield analysis.within("and_leave_the_sharpness", flat, 0.9, 1.1, unit)


def figure(s, runs, path):
    drawing, axes = plots.new_figure(3, width=14, height=4.4)
    (rates, losses, growth), colours = axes, plots.colours(ARMS)
    for name, arm in ARMS.items():
        run, look = runs[name], dict(color=colours[name], lw=1.6)
        critical = run["critical"][0] / run["critical"][0, 0]
        rates.plot(arm.rate(s), label=arm.title, **look)
        rates.plot(s.times, critical, ls=":", **look)
        rates.plot(s.times, critical / slack(run)[0], ls="--", **look)
        losses.plot(run["loss"][0], **look)
        for number, ls in (("least", "-"), ("sharpness", "--")):
            x = run[number][0]
            growth.plot(s.times, x / x[0], ls=ls, **look)
    for ax in (losses, growth):
        plots.mark_spikes(ax, runs["growing"]["spikes"][0], s.steps)
    for ax in axes:
        ax.set(yscale="log")
    plots.plain_log_axis(growth)
    low, high = rates.get_ylim()
    rates.set(ylim=(low, high * 30))
    title = "rate (solid), critical (dotted), its bound (dashed)"
    plots.label(rates, "step", cycles.IN_UNITS, title, legend="upper left")
    title = "loss of one run; red: catapults"
    plots.label(losses, "step", "training loss", title)
    title = "least P (solid), λ_max(H) (dashed)"
    plots.label(growth, "step", "in units of the start", title)
    plots.save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"adagrad": figure},
    task=build_task,
    fixed_task=nets.FIXED,
)
