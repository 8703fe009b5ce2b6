"""What does a full gradient cost against a batch, in examples to a given loss?

Least squares over N examples, at a constant learning rate, the best for each batch and
each excess ε of the training loss. With e = θ − θ* and residuals r_n of the minimum, a
step at the rate η on a batch of B independent draws makes of m = E e and S = E eeᵀ

    m ← (1 − ηH) m,
    S ← S − η(HS + SH) + η² (1 − 1/B) HSH
          + η²/B · mean_n x_n x_nᵀ (x_nᵀ S x_n − 2 r_n x_nᵀ m + r_n²),

so that E of the excess, ½ tr HS, is a power of one matrix, and no run is needed.
Bottou and Bousquet (2008): the full gradient takes N log(1/ε) examples and a single one
1/ε, whatever N, which is less at the accuracy that the data allow, ε = σ²d/2N.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from optsde.analysis import (
    Interval,
    Verdict,
    agrees,
    all_above,
    estimate,
    family,
    interval,
    least_above,
    percent_paired,
    plots,
    table,
    with_interval,
)
from optsde.run import Progress, parts
from optsde.study import Integers, RunDir, Seeds, Study, UsageError, setting

DOUBLINGS = 24  # runs of up to 2**24 steps
PER_OCTAVE = 8  # learning rates
OCTAVES = 16
SAVED = 0.05  # of log₂ examples: what a batch may save and still save nothing
Costs = dict[int, dict[str, np.ndarray]]  # by N


class Settings(Seeds):
    dimension: int = setting(5, "of the parameters", at_least=1, at_most=8)
    power: float = setting(1.0, "of the curvatures i^-power", at_least=0, at_most=3)
    noise: float = setting(1.0, "standard deviation of the labels", above=0)
    sizes: Integers = setting(
        (64, 256, 1024, 4096),
        "examples of the data sets, N",
        at_least=16,
        rising=True,
        entries=2,
    )
    batches: Integers = setting(
        (1, 4, 16, 64, 256),
        "examples in a step, of those below N",
        at_least=1,
        rising=True,
        entries=1,
    )
    halvings: int = setting(
        14, "of the excess loss, from that at the start", at_least=4, at_most=20
    )
    tolerance: float = setting(0.25, "on slopes that a theory has", above=0, at_most=1)
    seeds = 8

    def demands(self):
        yield from super().demands()
        fine = self.batches[0] == 1 and self.batches[-1] < self.sizes[-1]
        yield fine, "batches", f"from 1 to fewer than the {self.sizes[-1]} examples"
        fine = self.sizes[0] > 2 * self.dimension
        yield fine, "sizes", f"more than twice the dimension, {self.dimension}"
        start = np.sum(curvatures(self)) / 2
        low = self.allowed_by(self.sizes[-1])
        needed = int(np.ceil(np.log2(start / low))) + 2
        fine = self.halvings >= needed
        yield fine, "halvings", f"{needed} or more, for the data's accuracy, {low:.2g}"
        fine = self.allowed_by(self.sizes[0]) < start / 4
        yield fine, "noise", f"less, for N = {self.sizes[0]} to tell of the teacher"

    def allowed_by(self, size: int) -> float:
        """Returns σ²d/2N: the excess over all data of the minimum over N examples."""
        return self.noise**2 * self.dimension / (2 * size)

    def of_size(self, size: int) -> list[int]:
        """Returns the batches of a data set, the full one last."""
        return [*(batch for batch in self.batches if batch < size), size]


def curvatures(s: Settings) -> np.ndarray:
    return np.arange(1.0, s.dimension + 1) ** -s.power


# ---- the closed form


class Problem(NamedTuple):
    """Least squares about its minimum: inputs, residuals there, and the start."""

    inputs: np.ndarray  # [N, d]
    residuals: np.ndarray  # [N]
    start: np.ndarray  # [d], of θ − θ*

    @property
    def hessian(self) -> np.ndarray:
        return self.inputs.T @ self.inputs / len(self.inputs)


def problem(s: Settings, size: int, seed: int) -> Problem:
    """Returns a data set; that of a seed holds the smaller ones of it."""
    random = np.random.RandomState([s.seed, seed])
    rows = random.standard_normal((s.sizes[-1], s.dimension + 1))[:size]
    inputs, noise = rows[:, :-1] * np.sqrt(curvatures(s)), s.noise * rows[:, -1]
    off = np.linalg.lstsq(inputs, noise, rcond=None)[0]  # θ* less the teacher, of ones
    return Problem(inputs, noise - inputs @ off, -1 - off)


def moments(given: Problem) -> np.ndarray:
    """Returns (S, m, 1) at the start, as one vector."""
    e = given.start
    return np.concatenate([np.outer(e, e).ravel(), e, [1.0]])


def excess(given: Problem, states: np.ndarray) -> np.ndarray:
    """Returns E of the training loss less its minimum, of states [..., moments]."""
    h = given.hessian.ravel()
    return states[..., : h.size] @ h / 2


def step(given: Problem, batch: int, lrs: np.ndarray) -> np.ndarray:
    """Returns the matrices of a step at each rate, [lrs, moments, moments]."""
    x, r, h = given.inputs, given.residuals, given.hessian
    size, d = x.shape
    one, lr = np.eye(d), np.asarray(lrs)[:, None, None]
    pairs = (x[:, :, None] * x[:, None]).reshape(size, d * d)
    share = 0.0 if batch == size else 1 / batch
    s, m = slice(0, d * d), slice(d * d, d * d + d)
    out = np.zeros((len(lrs), d * d + d + 1, d * d + d + 1))
    out[:, s, s] = np.eye(d * d) - lr * (np.kron(h, one) + np.kron(one, h))
    out[:, s, s] += lr**2 * (1 - share) * np.kron(h, h)
    out[:, s, s] += lr**2 * share * (pairs.T @ pairs) / size
    out[:, s, m] = -2 * lr**2 * share * (pairs.T @ (r[:, None] * x)) / size
    out[:, s, -1] = lr[:, 0] ** 2 * share * (pairs.T @ r**2) / size
    out[:, m, m] = one - lr * h
    out[:, -1, -1] = 1
    return out


def steps_to(given: Problem, batch: int, lrs, goals: np.ndarray) -> np.ndarray:
    """Returns the steps at which the excess first is each goal, [lrs, goals].

    They are found by powers of two, since the excess falls, and between two steps log
    excess is a line; one step is the least. Infinite where a rate does not get there.
    """
    powers = [step(given, batch, lrs)]
    for _ in range(DOUBLINGS):
        with np.errstate(over="ignore", invalid="ignore"):
            powers.append(powers[-1] @ powers[-1])
    start = moments(given)
    state = np.broadcast_to(start, (len(lrs), len(goals), start.size))
    taken = np.zeros(state.shape[:2])
    for power, matrix in reversed(list(enumerate(powers))):
        with np.errstate(over="ignore", invalid="ignore"):
            ahead = np.einsum("lij,lgj->lgi", matrix, state)
            stays = ~(excess(given, ahead) <= goals)
        state = np.where(stays[..., None], ahead, state)
        taken += np.where(stays, 2.0**power, 0)
    with np.errstate(all="ignore"):
        high = excess(given, state)
        low = excess(given, np.einsum("lij,lgj->lgi", powers[0], state))
        found = np.maximum(taken + np.log(high / goals) / np.log(high / low), 1)
    return np.where((taken < 2.0**DOUBLINGS) & np.isfinite(found), found, np.inf)


def goals_of(s: Settings, given: Problem) -> np.ndarray:
    """Returns the excesses that are asked for, in turn half of the one before."""
    return float(excess(given, moments(given))) / 2.0 ** np.arange(1, s.halvings + 1)


def rates(given: Problem) -> np.ndarray:
    """Returns the learning rates tried, from the largest at which descent is stable."""
    top = 2 / np.linalg.eigvalsh(given.hessian)[-1]
    return top / 2 ** (np.arange(1, OCTAVES * PER_OCTAVE) / PER_OCTAVE)


def costs(s: Settings, size: int) -> dict[str, np.ndarray]:
    """Returns log₂ of the examples at the best rate, and log₂ of the excesses."""
    progress = Progress(f"N = {size}")
    found, goals = [], []
    for seed in range(s.seeds):
        given = problem(s, size, seed)
        goals.append(np.log2(goals_of(s, given)))
        found.append([])
        for batch in s.of_size(size):
            taken = steps_to(given, batch, rates(given), 2 ** goals[-1])
            best = taken.argmin(axis=0)
            if (best == len(taken) - 1).any() or np.isinf(taken.min(axis=0)).any():
                raise UsageError(
                    f"--config.halvings={s.halvings}: the best rate of batch {batch} "
                    f"for N = {size} is the smallest that is tried; use fewer halvings"
                )
            found[-1].append(np.log2(batch * taken.min(axis=0)))
        progress.update(seed + 1, s.seeds)
    return {"examples": np.array(found), "excess": np.array(goals)}


def simulate(s: Settings, rundir: RunDir) -> Costs:
    """Returns of each N log₂ of the examples at the best rate of each batch.

    examples: [seeds, batches, excesses]; excess: log₂, [seeds, excesses].
    """
    return {
        size: rundir.once(f"of {size}", partial(costs, s, size))
        for size in parts(s.sizes)
    }


# ---- what they say


def more(found: dict[str, np.ndarray], batch: int = -1) -> np.ndarray:
    """Returns log₂ of a batch's examples in those of single ones, [seeds, excesses]."""
    return found["examples"][:, batch] - found["examples"][:, 0]


def at(found: dict[str, np.ndarray], values: np.ndarray, excess: float) -> np.ndarray:
    """Returns values [seeds, excesses] at an excess, [seeds], on a line between two."""
    pairs = zip(found["excess"], values, strict=True)
    return np.array([np.interp(np.log2(excess), x[::-1], y[::-1]) for x, y in pairs])


def crossing(found: dict[str, np.ndarray]) -> np.ndarray:
    """Returns log₂ of the excess below which the full gradient is cheaper, [seeds].

    It is NaN where single examples are cheaper at all of them.
    """
    out = np.full(len(found["excess"]), np.nan)
    for seed, (x, y) in enumerate(zip(found["excess"], more(found), strict=True)):
        if (y < 0).any() and y[0] > 0:
            i = int((y < 0).argmax())
            out[seed] = x[i - 1] + y[i - 1] / (y[i - 1] - y[i]) * (x[i] - x[i - 1])
    return out


def slope_over(sizes, values: np.ndarray) -> np.ndarray:
    """Returns d value/d log₂ N of values [sizes, seeds], by least squares."""
    return np.polyfit(np.log2(sizes), values, 1)[0]


def claims(s: Settings, runs: Costs) -> Iterator[Verdict]:
    largest, middle, last = runs[s.sizes[-1]], s.halvings // 2, s.halvings - 1
    one, full = largest["examples"][:, 0], 2 ** largest["examples"][:, -1]
    later = (one[:, last] - one[:, middle]) / (last - middle)
    third = s.halvings // 3
    early = full[:, last - third] - full[:, last - 2 * third]
    change = percent_paired(full[:, last] - full[:, last - third], early)
    ends = np.array([x["examples"][:, [0, -1], middle] for x in runs.values()])
    of_one, of_full = (slope_over(s.sizes, ends[:, :, i]) for i in (0, 1))
    bound, unit = s.tolerance, "d log examples/d log"
    theory = [
        agrees("one_as_1_over_excess", estimate(later - 1), bound, f"{unit} 1/ε − 1"),
        agrees("full_as_log_excess", change, 100 * bound, "% more for a halving of ε"),
        agrees("one_whatever_N", estimate(of_one), bound, f"{unit} N"),
        agrees("full_as_N", estimate(of_full - 1), bound, f"{unit} N − 1"),
    ]
    yield from family("as Bottou and Bousquet", theory)
    gaps = [at(x, more(x), s.allowed_by(n)) for n, x in runs.items()]
    unit = "log₂ of examples"
    name = "one_is_cheaper_at_the_accuracy_of_the_data"
    yield all_above(name, [estimate(gap) for gap in gaps], 0, unit)
    falls = slope_over(s.sizes, np.array([crossing(x) for x in runs.values()]))
    yield agrees(
        "full_is_cheaper_below_1_over_N",
        estimate(falls + 1),
        bound,
        "d log crossing/d log N + 1",
    )
    least = [
        more(found, i).mean(axis=0).min()
        for size, found in runs.items()
        for i in range(1, len(s.of_size(size)) - 1)
    ]
    yield least_above("no_batch_saves_examples", least, -SAVED, unit)


def powers_of_2(values: np.ndarray) -> Interval:
    """Returns the interval of 2**mean over seeds."""
    return Interval(*(2.0**end for end in interval(estimate(values))))


def tables(s: Settings, runs: Costs) -> Iterator[str]:
    rows = []
    for size, found in runs.items():
        allowed = s.allowed_by(size)
        one = powers_of_2(at(found, found["examples"][:, 0], allowed) - np.log2(size))
        full = powers_of_2(at(found, more(found), allowed))
        cross = powers_of_2(crossing(found) - np.log2(allowed))
        cells = [with_interval(x) for x in (one, full, cross)]
        rows.append([size, f"{allowed:.3g}", *cells])
    header = ["N", "σ²d/2N", "there: epochs of one", "full gradient, times"]
    yield table([*header, "full is cheaper below, σ²d/2N"], rows, "rrrrr") + "\n"
    size = s.sizes[-1]
    rows = []
    for k in range(1, s.halvings, 2):
        found = runs[size]
        cells = [
            with_interval(powers_of_2(more(found, i)[:, k]))
            for i in range(1, len(s.of_size(size)))
        ]
        one = powers_of_2(found["examples"][:, 0, k])
        rows.append([f"2^-{k + 1}", with_interval(one), *cells])
    header = [f"excess, N = {size}", "examples, one at a time"]
    header += [f"batch {batch}, times" for batch in s.of_size(size)[1:]]
    yield table(header, rows, "r" * len(header))


def figure(s: Settings, runs: Costs, path: Path) -> None:
    """Draws the examples over the excess, and over the batch for the largest N."""
    drawing, (left, right) = plots.new_figure(2, plots.HALF_SLIDE, 4.2)
    size = s.sizes[-1]
    for n, colour in plots.colours(s.sizes).items():
        found = runs[n]
        x = 2 ** found["excess"].mean(axis=0)
        left.plot(x, 2 ** found["examples"][:, -1].mean(axis=0), color=colour, label=n)
        allowed = s.allowed_by(n)
        y = powers_of_2(at(found, found["examples"][:, -1], allowed)).value
        left.plot(allowed, y, "o", color=colour, ms=6)
    found = runs[size]
    x, y = 2 ** found["excess"].mean(axis=0), 2 ** found["examples"][:, 0].mean(axis=0)
    left.plot(x, y, "k--", label="one a step")
    batches = s.of_size(size)
    for k, colour in zip(range(1, s.halvings, 4), plots.COLOURS, strict=False):
        y = 2 ** found["examples"][:, :, k].mean(axis=0)
        label = f"{2 ** found['excess'][:, k].mean():.1g}"
        right.plot(batches, y, "o-", color=colour, label=label, ms=4)
    left.set(xscale="log", yscale="log")
    left.invert_xaxis()
    right.set(xscale="log", yscale="log", ylim=left.get_ylim())
    right.set_xticks(batches, batches)
    right.minorticks_off()
    x, y, title = (
        "excess loss ε (dots: σ²d/2N)",
        "examples",
        "Full gradients of N examples",
    )
    plots.label(left, x, y, title, legend="lower right", legend_title="N")
    title = f"N = {size}"
    plots.label(right, "batch", "", title, legend="lower right", legend_title="ε")
    plots.save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"full_gradient": figure},
)
