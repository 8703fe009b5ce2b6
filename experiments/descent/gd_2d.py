"""Which flow does descent with finite steps follow?

Two weights a and b fit four points by b·a·x, as in Barrett and Dherin (2021): the
minima are a hyperbola, and where on it a path ends tells the flows apart. The full
batch is compared with the plain flow and with that of f + (η/4)|∇f|²; single examples,
over one epoch, with that of f + (η/4)·mean|∇L_k|² too: all 4! orders without
replacement, all 4⁴ independent draws, so that the means are exact. All in float64.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from experiments.descent import paths
from experiments.descent.modified import gradient_flow, implicit, implicit_by_batch
from optsde import gradients
from optsde.analysis import order, plots, table, within
from optsde.run import Progress
from optsde.study import Numbers, Study, setting
from optsde.study import Settings as Base

X = np.array([-1.5, 0.4, 1.0, 2.0])
Y = np.array([-1.2, 1.0, 0.3, 1.6])
SIZE = len(X)
START = np.array([0.15, 1.2])  # a, b
ACCURACY = 1e-12  # of the flows
POINTS = 200  # of a flow


FLOWS = {  # colour, marker, line, words
    "plain": (plots.COLOURS[6], "o", "-", "plain flow"),
    "implicit": (plots.COLOURS[0], "s", "--", "with (η/4)|∇f|²"),
    "by_batch": (plots.COLOURS[5], "^", ":", "with (η/4) mean|∇Lₖ|²"),
}
KINDS = {
    "full": "Full batch",
    "orders": "Without replacement",
    "independent": "Independent draws",
}
ORDERS = {  # of the distance in η, of each kind of descent from each flow
    "full": {"plain": 1, "implicit": 2},
    "orders": {"plain": 2, "implicit": 2, "by_batch": 3},
    "independent": {"plain": 2, "implicit": 3, "by_batch": 2},
}


class Settings(Base):
    time: float = setting(3.0, "of the full batch, steps × lr", above=0)
    lrs: Numbers = setting(
        (0.1, 0.05, 0.025, 0.0125),
        "of the full batch",
        above=0,
        entries=3,
        distinct=True,
    )
    shown: float = setting(0.15, "lr of the paths in the picture", above=0)
    epoch_lrs: Numbers = setting(
        (0.02, 0.01, 0.005, 0.0025),
        "of single examples",
        above=0,
        entries=3,
        distinct=True,
    )

    def demands(self):
        yield from super().demands()
        steps = [self.time / lr for lr in (*self.lrs, self.shown)]
        whole = all(abs(n - round(n)) < 1e-9 and 1 <= n <= 1e6 for n in steps)
        yield whole, "time", f"a multiple of shown and of lrs={self.lrs}, up to 1e6"

    def rates(self, kind: str) -> tuple[float, ...]:
        """Returns the learning rates of a kind of descent."""
        return self.lrs if kind == "full" else self.epoch_lrs


# ---- the loss, and the flows


def losses(params, examples):
    """Returns ½(b·a·x − y)² of each example."""
    x, y = examples
    a, b = params
    return 0.5 * (b * a * x - y) ** 2


def mean_loss(params):
    return jnp.mean(losses(params, (jnp.asarray(X), jnp.asarray(Y))))


def flows_of(lrs, spans):
    """Returns each flow from 0 to the span of each lr, [lrs, POINTS, 2]."""

    @jax.vmap
    def flows(lr, span):
        modified = {
            "plain": mean_loss,
            "implicit": implicit(mean_loss, lr),
            "by_batch": implicit_by_batch(losses, (X, Y), lr),
        }
        start, times = jnp.asarray(START), jnp.linspace(0, span, POINTS)
        return {
            name: gradient_flow(loss, start, times, ACCURACY)
            for name, loss in modified.items()
        }

    points = jax.jit(flows)(jnp.asarray(lrs), jnp.asarray(spans))
    return {name: np.asarray(points[name]) for name in FLOWS}


# ---- descent


def descent(sampler, batch_size, lr, steps):
    """Returns all points of plain descent from START; for use inside jit."""
    plan = optsde.Plan(
        optimizer=optsde.SGD(lr=lr), batch_size=batch_size, horizon=steps
    )
    dynamics = optsde.discrete(plan, sampler, START)
    return paths.follow(dynamics, jax.random.key(0), steps)


def full_batch(lrs, steps):
    """Returns the path of that many steps at each lr."""
    sampler = gradients.full_batch(losses, (X, Y), group=None)
    longest = jax.vmap(lambda lr: descent(sampler, SIZE, lr, max(steps)))
    walks = jax.jit(longest)(jnp.asarray(lrs))
    return [np.asarray(w)[: n + 1] for w, n in zip(walks, steps, strict=True)]


def mean_after_an_epoch(lrs, sequences):
    """Returns the mean over all sequences of examples after the last, at each lr."""

    def end(lr, sequence):
        def at_step(data, params, draw):
            example = jax.tree.map(lambda x: x[sequence[draw.step]], data)
            return jax.value_and_grad(losses)(params, example)

        data = jnp.asarray(X), jnp.asarray(Y)
        oracle = gradients.FunctionOracle(at_step, data)
        return descent(lambda batch_size: oracle, 1, lr, SIZE)[-1]

    of_rates = jax.vmap(jax.vmap(end, (None, 0)), (0, None))
    ends = jax.jit(of_rates)(jnp.asarray(lrs), jnp.asarray(sequences))
    return np.mean(np.asarray(ends), axis=1)


# ---- how far they are apart


def simulate(s, rundir):
    return rundir.once("distances", partial(compare, s))


def compare(s):
    """Returns KIND_FLOW, how far a kind of descent ends from a flow at each lr.

    At the `shown` rate there are besides the points of the `walk` and of each flow.
    """
    rates, count = (*s.lrs, s.shown), len(s.lrs)
    spans = [s.time] * len(rates) + [SIZE * lr for lr in s.epoch_lrs]
    orders = list(itertools.permutations(range(SIZE)))
    draws = list(itertools.product(range(SIZE), repeat=SIZE))
    Progress(f"descent and flows at {len(rates)} rates").say("compiling")
    with jax.enable_x64(True):
        walks = full_batch(rates, [round(s.time / lr) for lr in rates])
        flows = flows_of((*rates, *s.epoch_lrs), spans)
        ends = {
            "full": np.array([walk[-1] for walk in walks[:-1]]),
            "orders": mean_after_an_epoch(s.epoch_lrs, orders),
            "independent": mean_after_an_epoch(s.epoch_lrs, draws),
        }
    runs = {"walk": walks[-1], **{flow: flows[flow][count] for flow in ORDERS["full"]}}
    for kind, end in ends.items():
        mine = slice(count) if kind == "full" else slice(count + 1, None)
        for flow in ORDERS[kind]:
            apart = flows[flow][mine, -1] - end
            runs[f"{kind}_{flow}"] = np.linalg.norm(apart, axis=-1)
    return runs


def distances(runs, kind):
    """Returns the distances of a kind of descent from each flow, [lrs]."""
    return {flow: runs[f"{kind}_{flow}"] for flow in ORDERS[kind]}


def tables(s, runs):
    for kind, title in KINDS.items():
        apart = distances(runs, kind)
        rows = [
            [f"{lr:g}", *(f"{errors[i]:.2e}" for errors in apart.values())]
            for i, lr in enumerate(s.rates(kind))
        ]
        header = [f"η, {title.lower()}", *(f"from {FLOWS[flow][3]}" for flow in apart)]
        yield table(header, rows, "r" * len(header)) + "\n"


def claims(s, runs):
    for kind in KINDS:
        for flow, errors in distances(runs, kind).items():
            slope, power = order(s.rates(kind), errors), ORDERS[kind][flow]
            claim = f"{kind}_from_{flow}_order_{power}"
            yield within(claim, slope, power - 0.25, power + 0.25, "power of η")


# ---- pictures


def draw_full_batch(s, runs, path):
    """Draws paths at the rate `shown`, and the distances at the others."""
    drawing, (left, right) = plots.new_figure(2, plots.HALF_SLIDE, 3.9)
    walk, flows = runs["walk"], {name: runs[name] for name in ORDERS["full"]}
    drawn = np.concatenate([walk, *flows.values()])
    corners = np.stack([drawn.min(axis=0), drawn.max(axis=0)])
    low, high = corners + 0.15 * np.ptp(corners, axis=0) * np.array([[-1], [1]])
    a, b = np.meshgrid(*np.linspace(low, high, 120).T)
    height = np.mean(losses((a[..., None], b[..., None]), (X, Y)), axis=-1)
    levels = height.min() + np.ptp(height) * np.geomspace(0.002, 1, 12)
    left.contour(a, b, height, levels, colors="0.6", linewidths=0.6)
    for name, points in flows.items():
        colour, _, line, words = FLOWS[name]
        left.plot(*points.T, color=colour, ls=line, label=words)
    dots = dict(
        color=plots.COLOURS[1], marker="o", ls="none", ms=5, mec="black", mew=0.5
    )
    left.plot(*walk.T, **dots, label=f"descent, η = {s.shown:g}")
    plots.label(left, x="a", y="b", title="Steps follow the modified flow")
    draw_distances(right, s, runs, "full", "… to the order η²")
    right.set_ylabel("distance at the end")
    plots.shared_legend(drawing, left, columns=3)
    plots.save(drawing, path)


def draw_epochs(s, runs, path):
    drawing, axes = plots.new_figure(2, plots.HALF_SLIDE, 4.1)
    for ax, kind in zip(axes, ("orders", "independent"), strict=True):
        draw_distances(ax, s, runs, kind, KINDS[kind])
    axes[0].set_ylabel("distance of the mean\nafter one epoch")
    limits = np.array([ax.get_ylim() for ax in axes])
    for ax in axes:
        ax.set_ylim(limits.min(), 1.6 * limits.max())
    drawing.suptitle("Shuffling adds a penalty on each batch, drawing does not")
    plots.shared_legend(drawing, axes[0])
    plots.save(drawing, path)


def draw_distances(ax, s, runs, kind, title):
    """Draws distances at each rate, with their order written at the largest."""
    lrs = s.rates(kind)
    last, rising = int(np.argmax(lrs)), sorted(lrs)
    for name, errors in distances(runs, kind).items():
        colour, marker, line, words = FLOWS[name]
        ax.plot(lrs, errors, color=colour, marker=marker, ls=line, label=words)
        ax.annotate(
            f"$\\eta^{{{order(lrs, errors).value:.1f}}}$",
            (lrs[last], errors[last]),
            xytext=(7, 2 if name == "plain" else -9),
            textcoords="offset points",
            color=colour,
        )
    ax.set(xscale="log", yscale="log", xlim=(rising[0] / 1.25, rising[-1] * 1.9))
    ax.set_xticks(rising[1::2], [f"{lr:g}" for lr in rising[1::2]])
    ax.set_xticks([], minor=True)
    plots.label(ax, x="learning rate η", title=title)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"full_batch": draw_full_batch, "one_epoch": draw_epochs},
)
