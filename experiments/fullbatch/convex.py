"""Does descent on the full batch need ε⁻⁴ steps where SGD needs ε⁻²?

Amir, Koren and Livni (2021) and Amir, Carmon, Koren and Livni (2021): it does on some
convex, Lipschitz functions, unless samples outnumber what the dimension asks for. One
in their manner, for T steps, of examples z with independent fair bits:

    f(w, u; z) = |(z_i min(w_i + γ, 0))_i| + max(0, max_i w_i)
                 + ε Σ (z_i − (1 − z_i)/2n) w_i + max(0, max_j (u_j + N^-½))

in the limit ε ≪ γ → 0, with N = √T coordinates u_j. The least risk is 0, at a
distance of 1 from the start. The hint, ε, lifts the coordinates whose bits are 0 in all
of n examples and lowers the others. The second term pushes one of the lifted down in
each step; the first one minds on new examples, but on none of the n. So descent pays
η√T, and SGD η. The last term is what takes 1/(ηT).

There are such coordinates for T steps if the dimension is above 2^n T; the steps touch
no others, so that descent is simulated on those alone. In `dimension` coordinates
nothing is left out, and the number of examples decides.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from optsde.analysis import (
    Verdict,
    above,
    below,
    estimate,
    exact,
    family,
    jackknife,
    least_above,
    order,
    plots,
    plus_minus,
    stack,
    table,
    within,
)
from optsde.run import parts
from optsde.study import Integers, Numbers, RunDir, Seeds, Study, setting

Runs = dict[str, dict[str, np.ndarray]]
GAMMA, HINT = 1e-6, 1e-10  # γ and ε, where no coordinate is left out
ROUNDING = 1e-5  # of a step: a coordinate above it is positive
OUTPUTS = {"": "mean", "_last": "last"}  # in names of risks, and of points


class Settings(Seeds):
    steps: Integers = setting(
        (16, 256, 4096),
        "T of the runs",
        at_least=4,
        at_most=100_000,
        rising=True,
        entries=3,
    )
    lrs: Numbers = setting(
        tuple(2.0**-k for k in range(1, 13)),
        "tried at each T, beside 1/√T",
        above=0,
        distinct=True,
        entries=1,
    )
    dimension: int = setting(
        4096, "of w, where no coordinate is left out", at_least=1, at_most=100_000
    )
    samples: Integers = setting(
        (2, 4, 6, 8, 10, 12, 16, 24),
        "examples there",
        at_least=1,
        at_most=1000,
        rising=True,
        entries=2,
    )
    full_steps: int = setting(64, "T there", at_least=4, at_most=100_000)
    tolerance: float = setting(0.5, "on the powers of 1/ε, 4 and 2", above=0, at_most=1)
    apart: float = setting(0.2, "excess risk that is far from learning", above=0)
    seeds = 8


def usual(steps: int) -> float:
    """Returns the lr that SGD's bound is of."""
    return steps**-0.5


def bound(steps: int) -> float:
    """Returns what SGD's mean risk cannot exceed at that lr: |θ*|²/(2ηT) + η|g|²/2.

    The gradients of the three terms without a hint are orthogonal, and of norm 1.
    """
    lr = usual(steps)
    return 1 / (2 * lr * steps) + lr * 3 / 2


# ---- the function and descent on it


def risk(w: np.ndarray) -> np.ndarray:
    """Returns the risk of the terms in w, exact, of w [..., coordinates].

    E√X = (2√π)^-1 ∫ (1 − E e^-sX) s^-3/2 ds, where E e^-sX is a product over the bits.
    """
    squares = np.minimum(w, 0.0) ** 2
    total = squares.sum(axis=-1, keepdims=True)
    share = squares / np.where(total > 0, total, 1.0)
    grid, width = np.linspace(-30.0, 30.0, 241, retstep=True)
    some = np.zeros(total.shape[:-1])
    for s in np.exp(grid):
        zero = np.log1p(np.expm1(-s * share) / 2).sum(axis=-1)
        some -= np.expm1(zero) * s**-0.5
    norm = np.sqrt(total[..., 0]) * some * width / (2 * np.sqrt(np.pi))
    return norm + np.maximum(0.0, w.max(axis=-1))


@partial(jax.jit, static_argnums=0)
@partial(jax.vmap, in_axes=(None, None, None, 0))
@partial(jax.vmap, in_axes=(None, 0, None, None))
def descend(steps: int, lr: jax.Array, share: float, key: jax.Array):
    """Returns w of descent on the coordinates that it touches: mean and last, [steps].

    Args:
      steps: T.
      lr: η.
      share: of the bits that are 1 in a gradient: ½ of new examples, 0 of the full
        batch, since it touches coordinates whose bits are 0 in all its examples.
      key: of the bits.
    """

    def step(state, time):
        w, total, touched = state
        bits = jax.random.bernoulli(jax.random.fold_in(key, time), share, (steps,))
        charged = jnp.where(bits & (w < 0), w, 0.0)
        norm = jnp.linalg.norm(charged)
        first = charged / jnp.where(norm > 0, norm, 1.0)
        hinted = jnp.max(w) <= ROUNDING * lr  # a new coordinate is the highest,
        second = jnp.where(hinted & (time == 0), 0.0, 1.0)  # once there was a hint
        place = jnp.where(hinted, touched, jnp.argmax(w))
        after = (w - lr * first).at[place].add(-lr * second)
        return (after, total + w, touched + (hinted & (time > 0))), None

    zero = jnp.zeros(steps)
    (w, total, _), _ = jax.lax.scan(step, (zero, zero, 0), jnp.arange(steps))
    return {"mean": total / steps, "last": w}


def last_term(steps: int, lr: float) -> dict[str, float]:
    """Returns the last term's risk after descent on it, which is alike for all data."""
    count = round(steps**0.5)
    u, total = np.zeros(count), np.zeros(count)
    for _ in range(steps):
        total += u
        highest = u.argmax()
        if u[highest] + count**-0.5 > 0:
            u[highest] -= lr
    ends = {"mean": total / steps, "last": u}
    return {name: max(0.0, x.max() + count**-0.5) for name, x in ends.items()}


def subgradient(w: np.ndarray, bits: np.ndarray, n: int) -> np.ndarray:
    """Returns that of the mean over examples [some of n, coordinates] of terms in w."""
    charged = np.where(bits, np.minimum(w + GAMMA, 0.0), 0.0)
    norms = np.linalg.norm(charged, axis=1, keepdims=True)
    each = charged / np.where(norms > 0, norms, 1.0)
    each += HINT * np.where(bits, 1.0, -0.5 / n)
    found = each.mean(axis=0)
    if w.max() > 0:
        found[w.argmax()] += 1.0
    return found


def descend_in_full(
    bits: np.ndarray, steps: int, lr: float, one_each: bool = False
) -> dict[str, np.ndarray]:
    """Returns w of descent on examples [n, coordinates], of which none is left out.

    With `one_each` step t is of example t alone, as in SGD.
    """
    w, total = np.zeros(bits.shape[1]), np.zeros(bits.shape[1])
    for time in range(steps):
        total += w
        used = bits[time : time + 1] if one_each else bits
        w = w - lr * subgradient(w, used, len(bits))
    return {"mean": total / steps, "last": w}


# ---- runs


def simulate(s: Settings, rundir: RunDir) -> Runs:
    """Returns the excess risks of each T and of each number of examples."""
    runs = {}
    for steps in parts(s.steps):
        runs[f"T{steps}"] = rundir.once(f"T{steps}", partial(of_steps, s, steps))
    for count in parts(s.samples):
        runs[f"n{count}"] = rundir.once(f"n{count}", partial(of_examples, s, count))
    return runs


def of_steps(s: Settings, steps: int) -> dict[str, np.ndarray]:
    """Returns excess risks at 1/√T and at all lrs: `fitted` of the examples, [lrs].

    On new ones `gd` [lrs] and `sgd` [seeds, lrs]; with `_last` they are of the last
    step, else of the mean.
    """
    lrs = np.array([usual(steps), *s.lrs])
    slow = [last_term(steps, lr) for lr in lrs]
    full = descend(steps, lrs, 0.0, s.keys()[:1])
    fresh = descend(steps, lrs, 0.5, s.keys())
    found = {}
    for after, name in OUTPUTS.items():
        fitted = np.array([x[name] for x in slow])
        found[f"fitted{after}"] = fitted
        found[f"gd{after}"] = fitted + risk(np.asarray(full[name][0], float))
        found[f"sgd{after}"] = fitted + risk(np.asarray(fresh[name], float))
    return found


def of_examples(s: Settings, count: int) -> dict[str, np.ndarray]:
    """Returns descent's excess risk by seed, on the full batch of so many examples."""
    steps = s.full_steps
    lr, found = usual(steps), []
    for seed in range(s.seeds):
        random = np.random.default_rng([s.seed, count, seed])
        bits = random.random((count, s.dimension)) < 0.5
        found.append(risk(descend_in_full(bits, steps, lr)["mean"]))
    return {"gd": np.array(found) + last_term(steps, lr)["mean"]}


# ---- what they say


def best(s: Settings, runs: Runs, name: str) -> np.ndarray:
    """Returns the least excess risk over lr at each T."""
    return np.array([runs[f"T{n}"][name].min(axis=-1) for n in s.steps])


def at_usual(s: Settings, runs: Runs, name: str) -> np.ndarray:
    """Returns the excess risk at 1/√T, [..., T]."""
    return np.stack([runs[f"T{n}"][name][..., 0] for n in s.steps], axis=-1)


def power_of(steps, risks: np.ndarray) -> float:
    """Returns p in T ∝ ε^-p of mean risks, by least squares, of risks [seeds, T]."""
    log_risk, log_steps = np.log(risks.mean(axis=0)), np.log(steps)
    return -1 / np.polyfit(log_steps, log_risk, 1)[0]


def tables(s: Settings, runs: Runs) -> Iterator[str]:
    rows = []
    sgd = at_usual(s, runs, "sgd")
    for i, steps in enumerate(s.steps):
        of_t = runs[f"T{steps}"]
        chosen = np.array([usual(steps), *s.lrs])[of_t["gd"].argmin()]
        cells = [of_t["gd"].min(), of_t["gd_last"].min(), of_t["gd"][0]]
        cells = [f"{cell:.4f}" for cell in (*cells, of_t["fitted"][0])]
        row = [steps, f"{chosen:.3g}", *cells, plus_minus(estimate(sgd[:, i]), 4)]
        rows.append([*row, f"{bound(steps):.4f}"])
    header = ["T", "best lr", "full batch, best lr", "its last step", "at lr 1/√T"]
    header += ["on its examples", "SGD, at lr 1/√T", "SGD's bound"]
    yield ""
    yield table(header, rows, "r" * len(header))
    rows = [
        [n, f"{s.dimension * 0.5**n:.3g}", plus_minus(estimate(runs[f"n{n}"]["gd"]), 4)]
        for n in s.samples
    ]
    header = ["examples", "coordinates without a 1, expected", "full batch, lr 1/√T"]
    yield ""
    yield table(header, rows, "rrr")
    yield ""


def claims(s: Settings, runs: Runs) -> Iterator[Verdict]:
    sgd = at_usual(s, runs, "sgd")
    for after in OUTPUTS:
        power = order(1 / best(s, runs, f"gd{after}"), s.steps)
        claim = f"full_batch_takes_the_4th_power{after}"
        ends = 4 - s.tolerance, 4 + s.tolerance
        yield within(claim, power, *ends, "p in T ∝ ε^-p")
        power = jackknife(partial(power_of, s.steps), at_usual(s, runs, f"sgd{after}"))
        claim = f"sgd_takes_no_more_than_the_2nd{after}"
        yield below(claim, power, 2 + s.tolerance, "p in T ∝ ε^-p")
    bounds = np.array([bound(n) for n in s.steps])
    yield from family(
        "sgd_within_its_bound",
        [
            below(f"sgd_within_its_bound_T{n}", estimate(x), most, "excess risk")
            for n, x, most in zip(s.steps, sgd.T, bounds, strict=True)
        ],
    )
    fitted = exact(np.max(at_usual(s, runs, "fitted") / bounds))
    yield below("full_batch_fits_at_that_lr", fitted, 1.0, "of SGD's bound")
    apart = at_usual(s, runs, "gd")
    yield least_above("full_batch_overfits_at_that_lr", apart, s.apart, "excess risk")
    few, many = (estimate(runs[f"n{n}"]["gd"]) for n in (s.samples[0], s.samples[-1]))
    yield above("few_examples_are_overfitted", few, s.apart, "excess risk")
    yield below("many_examples_are_not", many, s.apart, "excess risk")


def figure(s: Settings, runs: Runs, path) -> None:
    canvas, (left, middle, right) = plots.new_figure(3, width=13, height=4.4)
    steps = np.array(s.steps, float)
    red, blue, grey = plots.COLOURS[5], plots.COLOURS[0], "0.5"
    looks = dict(marker="o", ms=5, lw=1.8)
    full, sgd = best(s, runs, "gd"), at_usual(s, runs, "sgd")
    left.plot(
        steps,
        at_usual(s, runs, "gd"),
        color=red,
        ls=":",
        label="full batch, lr 1/√T",
        **looks,
    )
    left.plot(steps, full, color=red, label="full batch, best lr", **looks)
    plots.points(left, steps, estimate(sgd), colour=blue, label="SGD, lr 1/√T", ls="-")
    for power, first in ((4, full[0]), (2, sgd[:, 0].mean())):
        left.plot(
            steps, first * (steps / steps[0]) ** (-1 / power), color=grey, ls="--", lw=1
        )
    left.plot([], [], color=grey, ls="--", lw=1, label="slopes −¼ and −½")
    left.set(xscale="log")
    left.set_xticks(s.steps, [f"{n}" for n in s.steps], minor=False)
    left.minorticks_off()
    plots.plain_log_axis(left)
    plots.label(left, x="steps T", y="excess risk", title="New examples", legend="best")
    lrs = np.array(s.lrs)
    of_t = runs[f"T{s.steps[-1]}"]
    middle.plot(lrs, of_t["gd"][1:], color=red, label="full batch", lw=1.8)
    plots.band(middle, lrs, estimate(of_t["sgd"][:, 1:]), colour=blue, label="SGD")
    middle.plot(
        lrs,
        of_t["fitted"][1:],
        color="0.3",
        ls=":",
        label="full batch, on its examples",
    )
    middle.set(xscale="log")
    plots.plain_log_axis(middle)
    title = f"T = {s.steps[-1]}"
    plots.label(middle, x="lr", y="excess risk", title=title, legend="best")
    found = stack([estimate(runs[f"n{n}"]["gd"]) for n in s.samples])
    plots.points(
        right, np.array(s.samples), found, colour=red, ls="-", label="full batch"
    )
    right.axvline(
        np.log2(s.dimension), color=grey, ls="--", lw=1, label="log₂ dimension"
    )
    right.set_ylim(bottom=0)
    title = f"{s.dimension} dimensions, T = {s.full_steps}"
    plots.label(right, x="examples", y="excess risk", title=title, legend="best")
    plots.save(canvas, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"convex": figure},
)
