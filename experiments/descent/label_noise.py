"""Which minimum do SGD and Adam drift to under noise on the labels?

The minima of a diagonal net, f(w) = Σ a_j u_j v_j = 1, are a manifold, on which noise
δξ on the label, of covariance δ²∇f∇fᵀ = δ²H, moves w slowly, in the time t = lr²·steps.
SGD descends tr H there (Blanc et al. 2020, Damian et al. 2021, Li et al. 2022), that is
Σ 2a_j²|β_j| where u = v and β = uv; Adam descends tr Diag(H)^½ (Li, Wen and Lyu 2025),
Σ 2a_j|β_j|^½. With one equation both choose one β_j, and not always the same.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from optsde import gradients
from optsde.analysis import (
    above,
    agrees,
    below,
    estimate,
    half_width,
    interval,
    plots,
    table,
    with_interval,
)
from optsde.run import Progress
from optsde.study import Numbers, Seeds, Study, setting

STYLES = {  # colour, words
    "sgd": (plots.COLOURS[0], "SGD"),
    "adam": (plots.COLOURS[5], "Adam"),
}
MEASURES = {  # colour, line, words; what a method descends
    "sgd": (plots.COLOURS[0], "-", "tr H"),
    "adam": (plots.COLOURS[5], "--", "tr Diag(H)$^{1/2}$"),
}
POINTS = 24  # of a run
RESOLUTION = 200  # steps of the flow to a point


class Settings(Seeds):
    inputs: Numbers = setting((1.0, 1.5), "a_1 and a_2", above=0, distinct=True)
    start: float = setting(
        0.45, "β_2 at first, a minimum where u = v", above=0, below=1
    )
    noise: float = setting(0.5, "standard deviation of the label's", above=0)
    sgd_lrs: Numbers = setting((0.1, 0.05), "of SGD", above=0, distinct=True)
    adam_lrs: Numbers = setting((0.02, 0.01), "of Adam", above=0, distinct=True)
    sgd_time: float = setting(12.0, "of SGD's runs, steps × lr²", above=0)
    adam_time: float = setting(1.2, "of Adam's", above=0)
    b1: float = setting(0.9, "of Adam", above=0, below=1)
    memory: float = setting(20.0, "(1 − b2)/lr² of Adam", above=0)
    seeds = 256

    def demands(self):
        yield from super().demands()
        yield len(self.inputs) == 2, "inputs", "two numbers"
        yield self.start < 1 / self.inputs[1], "start", "below 1/a_2, so that β_1 > 0"
        for name in STYLES:
            lrs, time = getattr(self, f"{name}_lrs"), getattr(self, f"{name}_time")
            yield len(lrs) == 2, f"{name}_lrs", "two numbers"
            enough = time / max(lrs) ** 2 >= POINTS and time / min(lrs) ** 2 <= 1e7
            yield enough, f"{name}_time", f"from {POINTS} to 1e7 steps × lr²"
        yield max(self.adam_lrs) ** 2 * self.memory < 1, "memory", "below 1/lr²"


def output(s, w):
    return jnp.asarray(s.inputs) @ (w[:2] * w[2:])


def start_of(s):
    """Returns (u, v), with u = v and f = 1."""
    first = (1 - s.inputs[1] * s.start) / s.inputs[0]
    root = jnp.sqrt(jnp.array([first, s.start]))
    return jnp.concatenate([root, root])


def measure(s, name, beta):
    """Returns tr H, or for Adam tr Diag(H)^½, at the minimum with u = v and this β."""
    a, sizes = np.asarray(s.inputs), np.abs(beta)
    return np.sum(2 * a**2 * sizes if name == "sgd" else 2 * a * sizes**0.5, axis=-1)


# ---- the slow flows, in t


class Slow(NamedTuple):
    w: jax.Array
    v: jax.Array  # Adam's, without its bias
    t: jax.Array


def along(s, w, divisor):
    """Returns w′ = −(δ²/4)·(P⁻¹G less its part off the manifold), G = ∇ Σ H_ii/P_i.

    P is held while G is taken, and what is off is P⁻¹∇f's share. P = 1 is SGD's.
    """
    slope = jax.grad(partial(output, s))
    normal = slope(w)
    push = jax.grad(lambda w: jnp.sum(slope(w) ** 2 / divisor))(w) / divisor
    off = normal / divisor
    return -(s.noise**2) / 4 * (push - off * (normal @ push) / (normal @ off))


def rate(s, name, y: Slow) -> Slow:
    """Returns y′; Adam's v follows δ²·diag H, and had the weight 1 − e^(−ct)."""
    if name == "sgd":
        return Slow(along(s, y.w, jnp.ones(4)), jnp.zeros(4), jnp.ones(()))
    variance = s.noise**2 * jax.grad(partial(output, s))(y.w) ** 2
    weight = -jnp.expm1(-s.memory * jnp.maximum(y.t, 1e-9))
    forget = s.memory / weight * (variance - y.v)
    return Slow(along(s, y.w, jnp.sqrt(y.v)), forget, jnp.ones(()))


def flow_of(s, name):
    """Returns w of the flow at the points of a run and its start, [points + 1, 4]."""
    h = getattr(s, f"{name}_time") / (POINTS * RESOLUTION)

    def moved(y, k, h):
        return jax.tree.map(lambda y, k: y + h * k, y, k)

    def step(y, _):
        k1 = rate(s, name, y)
        k2 = rate(s, name, moved(y, k1, h / 2))
        k3 = rate(s, name, moved(y, k2, h / 2))
        k4 = rate(s, name, moved(y, k3, h))
        for k, share in ((k1, 1), (k2, 2), (k3, 2), (k4, 1)):
            y = moved(y, k, share * h / 6)
        return y, None

    def point(y, _):
        return jax.lax.scan(step, y, length=RESOLUTION)[0], y.w

    with jax.enable_x64(True):
        w = start_of(s)
        variance = s.noise**2 * jax.grad(partial(output, s))(w) ** 2
        first = Slow(w, variance, jnp.zeros(()))
        scan = jax.jit(lambda y: jax.lax.scan(point, y, length=POINTS + 1)[1])
        return np.asarray(scan(first))


# ---- the runs


def optimizer_of(s, name, lr):
    if name == "sgd":
        return optsde.SGD(lr=lr)
    return optsde.Adam(lr=lr, b1=s.b1, b2=1 - s.memory * lr**2, eps=1e-10)


def runs_of(s, name, lr):
    """Returns w at the same times, [seeds, points + 1, 4]."""
    every = round(getattr(s, f"{name}_time") / lr**2 / POINTS)

    def loss(w):
        return (output(s, w) - 1) ** 2 / 2

    def factor(w):
        return s.noise * jnp.outer(jax.grad(partial(output, s))(w), jnp.eye(4)[0])

    noisy = gradients.gaussian(loss, gradients.dense(factor))

    def of_one(key):
        plan = optsde.Plan(
            optimizer=optimizer_of(s, name, lr), batch_size=1, horizon=POINTS * every
        )
        run = optsde.discrete(plan, noisy, start_of(s))

        def step(state, _):
            return run.step(state, run.source)[0], None

        def point(state, _):
            return jax.lax.scan(step, state, length=every)[0], state.params

        return jax.lax.scan(point, run.init(key), length=POINTS + 1)[1]

    Progress(f"{s.seeds} runs of {name}, lr {lr:g}").say("compiling")
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(s.seed), s.seeds)
        return np.asarray(jax.jit(jax.vmap(of_one))(keys))


def simulate(s, rundir):
    """Returns w of each method's flow, and of its runs at two lr."""
    return {name: rundir.once(name, partial(made_of, s, name)) for name in STYLES}


def made_of(s, name):
    runs = {size: runs_of(s, name, lr) for size, lr in lrs_of(s, name).items()}
    return {"flow": flow_of(s, name), **runs}


def lrs_of(s, name):
    return dict(
        zip(("least", "larger"), sorted(getattr(s, f"{name}_lrs")), strict=True)
    )


def products(w):
    """Returns β = uv, over the last axis."""
    return w[..., :2] * w[..., 2:]


# ---- what they say


def gap(runs, name, size):
    """Returns how far β_1 is from the flow's, in the mean over time."""
    flow, found = (products(runs[name][x])[..., 0] for x in ("flow", size))
    return estimate((found - flow).mean(axis=1))


def growth(s, runs, name, of):
    """Returns the measure `of` at the end, over that of the start, less 1.

    Of the runs at the least lr, at the minimum with the β of each: what the noise adds
    off the manifold is not in it.
    """
    beta = products(runs[name]["least"])
    return estimate(measure(s, of, beta[:, -1]) / measure(s, of, beta[:, 0]) - 1)


def tables(s, runs):
    header = ["β_1 at the end", "lr", "flow", "runs"]
    rows = []
    for name, (_, words) in STYLES.items():
        end = products(runs[name]["flow"])[-1, 0]
        for size, lr in lrs_of(s, name).items():
            found = estimate(products(runs[name][size])[:, -1, 0])
            rows.append(
                [words, f"{lr:g}", f"{end:.3f}", with_interval(interval(found))]
            )
    yield table(header, rows, "lrrr")


def claims(s, runs):
    for name, way, which in (("sgd", 1, "first"), ("adam", -1, "second")):
        found = gap(runs, name, "least")
        yield agrees(f"{name}_follows_its_flow", found, 0.02, "β_1")
        beta = products(runs[name]["least"])[..., 0]
        moved = estimate(way * (beta[:, -1] - beta[:, 0]))
        yield above(f"{name}_moves_to_the_{which}", moved, 0.1, "β_1")
        change = growth(s, runs, name, name)
        yield below(f"{name}_lowers_its_measure", change, 0, "relative")
    least, larger = (gap(runs, "adam", size) for size in lrs_of(s, "adam"))
    nearer = np.sign(larger.mean) * (larger - least)
    yield above("adam_is_nearer_at_a_lower_lr", nearer, 0, "β_1")
    yield above("adam_raises_the_trace", growth(s, runs, "adam", "sgd"), 0, "relative")


def figure(s, runs, path):
    """Draws β_1 over time, and what each method descends along the minima."""
    drawing, (left, right) = plots.new_figure(2, plots.HALF_SLIDE, 4.3)
    share = np.linspace(0, 1, POINTS + 1)
    for name, (colour, words) in STYLES.items():
        time, flow = getattr(s, f"{name}_time"), products(runs[name]["flow"])[:, 0]
        left.plot(share, flow, color=colour, label=f"{words}: flow to t = {time:g}")
        for size, marker in (("larger", "x"), ("least", "o")):
            found = estimate(products(runs[name][size])[:, ::3, 0])
            looks = dict(marker=marker, ls="none", color=colour, ms=4)
            looks["label"] = f"runs, lr {lrs_of(s, name)[size]:g}"
            left.errorbar(share[::3], found.mean, half_width(found), **looks)
    plots.label(left, x="t, as a share of the run", y="β_1", title="Opposite ways")
    a, first = s.inputs, products(runs["sgd"]["flow"])[0]
    beta = np.linspace(0, 1 / a[0], 201)
    minima = np.stack([beta, (1 - a[0] * beta) / a[1]], axis=1)
    for name, (colour, line, words) in MEASURES.items():
        unit = measure(s, name, first)
        of_all = measure(s, name, minima) / unit
        right.plot(beta, of_all, color=colour, ls=line, label=words)
        end = products(runs[name]["least"])[:, -1].mean(axis=0)
        right.plot(end[0], measure(s, name, end) / unit, "o", color=colour)
    right.plot(first[0], 1, "k*", ms=9, label="start")
    right.legend()
    y = "measure, in that of the start"
    plots.label(right, x="β_1", y=y, title="What each descends")
    plots.shared_legend(drawing, left, columns=3)
    plots.save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"label_noise": figure},
)
