"""What does weight decay do for a perceptron that learns from noisy labels?

Krogh and Hertz (1991): a linear perceptron of N weights, a teacher u of mean square 1,
P = αN examples y = u·x/√N + σξ with x of variance 1, E = ½ Σ (y − w·x/√N)². Along the
eigenvectors of A = Σ x xᵀ/N, with eigenvalues a, descent at the rate η with decay λ has
after k steps, where q = (1 − η(a + λ))^k and v² is the mean square of the start,

    E (w − u)² = [(λ + a q)² + σ² a (1 − q)²] / (a + λ)² + v² q²,

and the density of a is Marchenko and Pastur's. After long, each term is least at
λ = σ², whatever a; where no example reaches, a = 0, only decay forgets the start.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from optsde.analysis import (
    Estimate,
    Verdict,
    above,
    agrees,
    all_agree,
    below,
    estimate,
    family,
    percent_paired,
    plots,
    plus_minus,
    stack,
    table,
)
from optsde.gradients import FunctionOracle
from optsde.measure import probe
from optsde.run import Progress, fit, parts
from optsde.study import Numbers, RunDir, Seeds, Study, setting

POINTS = 4001  # of the integral over eigenvalues
LEFT = 0.1  # of what is left of the start, for the theory
Errors = dict[float, np.ndarray]  # by load, [decays, seeds, times]


class Settings(Seeds):
    dimension: int = setting(256, "of the inputs, N", at_least=4, at_most=1024)
    loads: Numbers = setting(
        (0.5, 1.0, 2.0),
        "examples for each weight, α",
        above=0,
        at_most=100,
        entries=1,
        rising=True,
    )
    noise: float = setting(
        0.5, "standard deviation of the labels, σ", above=0, at_most=100
    )
    start: float = setting(1.0, "standard deviation of the first weights", at_least=0)
    factors: Numbers = setting(
        (0.0, 0.0625, 0.25, 1.0, 4.0),
        "decays in σ², with 0, ¼, 1 and 4",
        at_least=0,
        rising=True,
    )
    lr: float = setting(0.12, "learning rate, η", above=0)
    steps: int = setting(1000, "of each run", at_least=16)
    close: float = setting(5.0, "for equal errors", unit="%", above=0)
    worse: float = setting(10.0, "by which no decay must be worse", unit="%", above=0)
    seeds = 64

    def demands(self):
        yield from super().demands()
        fine = {0.0, 0.25, 1.0, 4.0} <= set(self.factors)
        yield fine, "factors", "0, 0.25, 1 and 4 among them"
        whole = all(self.examples(load) >= 2 for load in self.loads)
        yield whole, "loads", f"two examples or more of {self.dimension} weights"
        top = max(self.decays) + (1 + np.sqrt(max(self.loads))) ** 2
        yield self.lr * top < 1, "lr", f"one that does not swing, below {1 / top:.3g}"

    @property
    def decays(self) -> list[float]:
        """Returns the values of λ."""
        return [factor * self.noise**2 for factor in self.factors]

    @property
    def times(self) -> np.ndarray:
        """Returns the steps after which the error is measured."""
        return np.unique(np.geomspace(1, self.steps, 40).round())

    def examples(self, load: float) -> int:
        return round(load * self.dimension)


# ---- the closed form


def spectrum(load: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns eigenvalues of A for large N, and the weight of each in a mean."""
    root = np.sqrt(load)
    angle = (np.arange(POINTS) + 0.5) * np.pi / POINTS
    a = 1 + load + 2 * root * np.cos(angle)
    weight = 2 * load * np.sin(angle) ** 2 / (POINTS * a)
    return np.append(a, 0.0), np.append(weight, max(0.0, 1 - load))


def theory(s: Settings, load: float, decay: float, steps, start: float) -> np.ndarray:
    """Returns E (w − u)² of a weight after some steps, [times]."""
    a, weight = spectrum(s.examples(load) / s.dimension)
    q = (1 - s.lr * (a + decay)) ** np.asarray(steps)[:, None]
    a, rate = np.broadcast_arrays(a, a + decay)
    still = rate == 0  # where neither examples nor decay reach
    rate = np.where(still, 1, rate)
    signal = np.where(still, 1, (decay + a * q) / rate) ** 2
    noise = s.noise**2 * a * ((1 - q) / rate) ** 2
    return (signal + noise + start**2 * q**2) @ weight


# ---- runs


def data(s: Settings, load: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the inputs/√N and labels of each seed; the teacher is all ones."""
    random = np.random.RandomState([s.seed, s.examples(load)])
    x = random.standard_normal((s.seeds, s.examples(load), s.dimension))
    x = x / np.sqrt(s.dimension)
    return x, x.sum(axis=-1) + s.noise * random.standard_normal(x.shape[:-1])


def gradient(source, w, draw):
    """Returns E and its gradient, of all the examples of a replica."""
    inputs, labels = source
    residual = inputs @ w - labels
    return jnp.sum(residual**2) / 2, inputs.T @ residual


def errors(s: Settings, load: float) -> dict[str, np.ndarray]:
    """Returns the mean of (w − u)² over the weights, [decays, seeds, times]."""
    examples = data(s, load)
    count = len(s.decays)
    members = {
        "decay": np.repeat(s.decays, s.seeds),
        "examples": [np.tile(x, (count,) + (1,) * (x.ndim - 1)) for x in examples],
    }

    def dynamics(member):
        plan = optsde.Plan(
            optimizer=optsde.SGD(lr=s.lr, l2=member["decay"]),
            batch_size=s.examples(load),
            horizon=s.steps,
        )

        def init(key):
            return s.start * jax.random.normal(key, (s.dimension,))

        oracle = FunctionOracle(gradient, tuple(member["examples"]))
        return optsde.discrete(plan, lambda _: oracle, init)

    def observe(_, state):
        return {"error": jnp.mean((state.params - 1) ** 2)}

    found = fit(
        dynamics,
        jnp.tile(s.keys(), count),
        s.steps,
        members=jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), members),
        probes=[probe(observe, times=s.times.tolist())],
        progress=Progress(f"load {load:g}, {count} × {s.seeds} runs"),
    ).metrics["error"]
    return {"error": np.asarray(found.values, float).reshape(count, s.seeds, -1)}


def simulate(s: Settings, rundir: RunDir) -> Errors:
    """Returns the errors of all runs."""
    return {
        load: rundir.once(f"load {load:g}", partial(errors, s, load))["error"]
        for load in parts(s.loads)
    }


# ---- what they say


def of_factor(s: Settings, errors: np.ndarray, factor: float) -> np.ndarray:
    """Returns the errors at a decay of so many σ², [seeds, times]."""
    return errors[s.factors.index(factor)]


def from_theory(s: Settings, load: float, errors: np.ndarray) -> Iterator[Estimate]:
    """Yields by how many % the mean error is off the theory's, at each decay."""
    for decay, found in zip(s.decays, errors, strict=True):
        expected = theory(s, load, decay, s.times, s.start)
        yield estimate(100 * (found / expected - 1))


def claims(s: Settings, runs: Errors) -> Iterator[Verdict]:
    best, off = [], "% of the error"
    for load, errors in runs.items():
        apart = [x.at(-1) for x in from_theory(s, load, errors)]
        yield all_agree(f"theory_at_load_{load:g}", apart, s.close, off)
        right = of_factor(s, errors, 1.0)[:, -1]
        for words, factor in (("a_quarter", 0.25), ("four_times", 4.0)):
            gap = percent_paired(of_factor(s, errors, factor)[:, -1], right)
            best.append(above(f"{words}_is_worse_at_load_{load:g}", gap, 0, off))
    yield from family("the best decay is σ²", best)
    worse = []
    for load, errors in runs.items():
        right, none = (of_factor(s, errors, factor) for factor in (1.0, 0.0))
        gap = percent_paired(none[:, -1], right[:, -1])
        worse.append(above(f"none_is_worse_at_load_{load:g}", gap, s.worse, off))
    yield from family("no decay", worse)
    for load, errors in runs.items():
        right, none = (of_factor(s, errors, factor) for factor in (1.0, 0.0))
        lowest = none.mean(axis=0).argmin()
        longer = percent_paired(none[:, -1], none[:, lowest])
        yield above(f"longer_is_worse_without_at_load_{load:g}", longer, 0, off)
        gap = percent_paired(right[:, -1], none[:, lowest])
        yield below(f"decay_is_better_than_stopping_at_load_{load:g}", gap, 0, off)
        if s.start and s.examples(load) < s.dimension:
            left = of_factor(s, errors, 0.0)[:, -1] - theory(s, load, 0, s.times, 0)[-1]
            share = (1 - s.examples(load) / s.dimension) * s.start**2
            unit = "% of (1 − α)v²"
            apart = estimate(100 * (left / share - 1))
            name = f"without_decay_the_start_is_left_at_load_{load:g}"
            yield agrees(name, apart, 100 * LEFT, unit)


def tables(s: Settings, runs: Errors) -> Iterator[str]:
    rows = []
    for load, errors in runs.items():
        for factor, decay, found in zip(s.factors, s.decays, errors, strict=True):
            expected = theory(s, load, decay, s.times, s.start)
            least = int(found.mean(axis=0).argmin())
            cells = [plus_minus(estimate(found[:, -1])), f"{expected[-1]:.3f}"]
            cells += [plus_minus(estimate(found[:, least])), f"{s.times[least]:.0f}"]
            rows.append([f"{load:g}", f"{factor:g}", *cells])
    header = ["load α", "λ/σ²", "error at the end", "theory", "least", "at step"]
    yield table(header, rows, "rrrrrr")


def figure(s: Settings, runs: Errors, path: Path) -> None:
    """Draws the error at the end over the decay, and along the run at one load."""
    drawing, (left, right) = plots.new_figure(2, plots.HALF_SLIDE, 4.2)
    factors = np.array(s.factors)
    least = factors[factors > 0].min() / 4  # where 0 is drawn
    fine = np.geomspace(least * 2, factors.max(), 60)
    for (load, errors), colour in zip(runs.items(), plots.COLOURS, strict=False):
        expected = [theory(s, load, x * s.noise**2, [s.steps], s.start) for x in fine]
        left.plot(fine, expected, color=colour)
        none = theory(s, load, 0, [s.steps], s.start)
        left.plot([least / 1.3, least * 1.3], [none, none], color=colour)
        found = stack(estimate(x[:, -1]) for x in errors)
        x = np.where(factors > 0, factors, least)
        plots.points(left, x, found, colour=colour, label=f"{load:g}", ms=4)
    load = s.loads[len(s.loads) // 2]
    shown = [factor for factor in s.factors if factor in (0.0, 0.25, 1.0, 4.0)]
    for factor, colour in zip(shown, plots.COLOURS[3:], strict=False):
        found = estimate(of_factor(s, runs[load], factor))
        plots.band(right, s.times, found, colour=colour, label=f"{factor:g}")
        expected = theory(s, load, factor * s.noise**2, s.times, s.start)
        right.plot(s.times, expected, "k:", lw=1)
    plots.plain_log_axis(left)
    left.set_xscale("log")
    ticks = [least, *factors[factors > 0]]
    left.set_xticks(ticks, ["0", *(f"{x:.2g}" for x in ticks[1:])])
    left.minorticks_off()
    right.set_xscale("log")
    plots.plain_log_axis(right)
    y = "error of the weights"
    plots.label(left, "decay λ/σ²", y, "At the end", legend="best", legend_title="α")
    title = f"α = {load:g}; dotted: theory"
    plots.label(right, "step", "", title, legend="best", legend_title="λ/σ²")
    plots.save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"perceptron": figure},
)
