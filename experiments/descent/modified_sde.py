"""Is SGD nearer to an SDE whose drift is that of the modified loss?

Descent at rate η follows the flow of f + (η/4)|∇f|². With gradient noise Σ the same
drift beside η^½ Σ^½ dW is the SDE of weak order 2 of Li, Tai and E (2017), where that
of f itself has order 1. On a quadratic with constant noise all moments are closed
forms; SGD and the SDE are simulated besides, at the largest rate.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from experiments.descent.modified import implicit
from optsde.analysis import agrees, below, estimate, exact, order, plots, table, within
from optsde.gradients import diagonal, from_covariance, gaussian
from optsde.run import Progress, fit
from optsde.study import Numbers, Seeded, Study, setting

LIMITS = {  # colour, marker, line, words
    "plain": (plots.COLOURS[6], "o", "-", "SDE of f"),
    "modified": (plots.COLOURS[0], "s", "--", "SDE of f + (η/4)|∇f|²"),
    "flow": (plots.COLOURS[5], "^", ":", "its flow, no noise"),
}
MOMENTS = {"mean": "E θ", "square": "E θ²"}
ORDERS = {  # of the error in η, at a fixed time
    "mean": {"plain": 1, "modified": 2},
    "square": {"plain": 1, "modified": 2, "flow": 1},
}


class Settings(Seeded):
    curvatures: Numbers = setting(
        (1.0, 0.4), "of the quadratic, one for each coordinate", above=0, entries=1
    )
    noise: float = setting(0.5, "standard deviation of a gradient's entry", above=0)
    time: float = setting(1.0, "at which moments are compared, steps × lr", above=0)
    lrs: Numbers = setting(
        (0.1, 0.05, 0.025, 0.0125), "learning rates", above=0, entries=3, distinct=True
    )
    paths: int = setting(20_000, "of each simulation", at_least=2)
    substeps: int = setting(16, "of the simulated SDE to a step", at_least=1)

    def demands(self):
        yield from super().demands()
        steps = [self.time / lr for lr in self.lrs]
        whole = all(abs(n - round(n)) < 1e-9 and 1 <= n <= 1e6 for n in steps)
        yield whole, "time", f"a multiple of lrs={self.lrs}, up to 1e6 of each"
        fine = max(self.lrs) * max(self.curvatures) < 1
        yield fine, "curvatures", f"below 1/lr, {1 / max(self.lrs):g}"


# ---- closed forms, of each coordinate, from θ = 1


def moments_of_sgd(s: Settings, lr: float) -> dict[str, np.ndarray]:
    """Returns E θ and E θ² after time/lr steps of θ ← θ − η(λθ + σξ)."""
    h = np.array(s.curvatures)
    steps = round(s.time / lr)
    kept = (1 - lr * h) ** steps
    variance = (lr * s.noise) ** 2 * (1 - kept**2) / (1 - (1 - lr * h) ** 2)
    return {"mean": kept, "square": kept**2 + variance}


def moments_of_limit(s: Settings, lr: float, name: str) -> dict[str, np.ndarray]:
    """Returns those of dθ = −λ′θ dt + η^½ σ dW at the time, λ′ = λ or λ(1 + ηλ/2)."""
    h = drift_of(s, lr, name)
    kept = np.exp(-h * s.time)
    variance = lr * s.noise**2 * (1 - kept**2) / (2 * h)
    return {"mean": kept, "square": kept**2 + (0 if name == "flow" else variance)}


def drift_of(s: Settings, lr: float, name: str) -> np.ndarray:
    """Returns the curvatures that a limit's drift has."""
    h = np.array(s.curvatures)
    return h if name == "plain" else h * (1 + lr * h / 2)


def errors(s: Settings, moment: str, name: str) -> np.ndarray:
    """Returns the largest error of a limit's moment among the coordinates, [lrs]."""
    apart = [
        moments_of_limit(s, lr, name)[moment] - moments_of_sgd(s, lr)[moment]
        for lr in s.lrs
    ]
    return np.abs(apart).max(axis=1)


def in_the_long_run(s: Settings, name: str) -> np.ndarray:
    """Returns the stationary variance in SGD's, less 1, at the largest λ, [lrs]."""
    top, lrs = max(s.curvatures), np.array(s.lrs)
    ours = np.array([drift_of(s, lr, name).max() for lr in lrs])
    return top * (2 - lrs * top) / (2 * ours) - 1


# ---- simulations


def simulate(s: Settings, rundir):
    return rundir.once("ends", partial(ends, s))


def ends(s: Settings) -> dict[str, np.ndarray]:
    """Returns where paths of SGD and of the modified SDE end, [paths, coordinates]."""
    lr, h = max(s.lrs), jnp.asarray(s.curvatures)

    def loss(theta):
        return 0.5 * jnp.sum(h * theta**2)

    covariance = diagonal(lambda theta: s.noise * jnp.ones_like(theta))
    steps, start = round(s.time / lr), jnp.ones_like(h)
    plan = optsde.Plan(optimizer=optsde.SGD(lr=lr), batch_size=1, horizon=steps)
    law = from_covariance(implicit(loss, lr), covariance)
    runs = {
        "sgd": optsde.discrete(plan, gaussian(loss, covariance), start),
        "modified": optsde.sde(plan, law, start, s.substeps),
    }
    keys = jax.random.split(jax.random.key(s.seed), (len(runs), s.paths))
    found = {}
    for (name, dynamics), key in zip(runs.items(), keys, strict=True):
        result = fit(dynamics, key, steps, progress=Progress(f"{s.paths} of {name}"))
        found[name] = np.asarray(result.state.params, float)
    return found


# ---- what they say


def tables(s: Settings, runs):
    for moment, words in MOMENTS.items():
        apart = {name: errors(s, moment, name) for name in ORDERS[moment]}
        rows = [
            [f"{lr:g}", *(f"{each[i]:.2e}" for each in apart.values())]
            for i, lr in enumerate(s.lrs)
        ]
        header = [f"η, error of {words}", *(LIMITS[name][3] for name in apart)]
        yield table(header, rows, "r" * len(header)) + "\n"
    long = {name: 100 * in_the_long_run(s, name) for name in ("plain", "modified")}
    rows = [
        [f"{lr:g}", *(f"{each[i]:+.2f}" for each in long.values())]
        for i, lr in enumerate(s.lrs)
    ]
    header = ["η, % of SGD's variance, t → ∞", *(LIMITS[name][3] for name in long)]
    yield table(header, rows, "rrr")


def claims(s: Settings, runs):
    for moment, powers in ORDERS.items():
        for name, power in powers.items():
            slope = order(s.lrs, errors(s, moment, name))
            claim = f"{moment}_of_{name}_order_{power}"
            yield within(claim, slope, power - 0.25, power + 0.25, "power of η")
    lr = max(s.lrs)
    limits = {n: moments_of_limit(s, lr, n) for n in ("plain", "modified")}
    closed = {"sgd": moments_of_sgd(s, lr), "modified": limits["modified"]}
    for moment, power in {"mean": 1, "square": 2}.items():
        # Half of what the two limits differ by, of the first coordinate.
        bound = abs(limits["plain"][moment][0] - limits["modified"][moment][0]) / 2
        for name, moments in closed.items():
            gap = estimate(runs[name][:, 0] ** power) - exact(moments[moment][0])
            unit = f"{MOMENTS[moment]}; bound: half of the limits' distance"
            yield agrees(f"{name}_has_its_{moment}", gap, float(bound), unit)
    nearer = np.abs(in_the_long_run(s, "modified") / in_the_long_run(s, "plain"))
    unit = "of the plain SDE's error"
    yield below("modified_is_nearer_in_the_long_run", exact(nearer.max()), 1, unit)


def figure(s: Settings, runs, path) -> None:
    """Draws the errors at a fixed time, and the variance in the long run."""
    drawing, (left, right) = plots.new_figure(2, plots.HALF_SLIDE, 4.1)
    rising = sorted(s.lrs)
    for name, (colour, marker, line, words) in LIMITS.items():
        looks = dict(color=colour, marker=marker, ls=line, label=words)
        found = errors(s, "square", name)
        left.plot(s.lrs, found, **looks)
        text = f"$\\eta^{{{order(s.lrs, found).value:.1f}}}$"
        last = int(np.argmax(s.lrs))
        lower = -12 if name == "plain" else -2
        place = dict(xytext=(6, lower), textcoords="offset points", color=colour)
        left.annotate(text, (s.lrs[last], found[last]), **place)
        if name != "flow":
            right.plot(s.lrs, 100 * in_the_long_run(s, name), **looks)
    left.set(xscale="log", yscale="log", xlim=(rising[0] / 1.25, rising[-1] * 1.9))
    left.set_xticks(rising, [f"{lr:g}" for lr in rising])
    left.set_xticks([], minor=True)
    right.axhline(0, color="0.5", lw=0.8)
    x, y = "learning rate η", f"error of {MOMENTS['square']}"
    plots.label(left, x=x, y=y, title=f"At time {s.time:g}: an order is won")
    y = "error of the variance, %"
    plots.label(right, x=x, y=y, title="In the long run: twice as far")
    plots.shared_legend(drawing, left, columns=3)
    plots.save(drawing, path)


study = Study(
    __name__, Settings, simulate, tables=tables, claims=claims, figures={"sde": figure}
)
