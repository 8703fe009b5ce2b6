"""Do nets forget where they began in 1/λ_e steps, as functions and not as weights?

The conjecture of Li, Lyu and Arora (2020): from any start the distribution of functions
comes to one equilibrium, in a time of the order of 1/λ_e. Two ensembles begin at two
points of unequal norm. Their held-out predictions are compared as samples of two laws,
before and after; the time in which the start is forgotten is fitted against λ_e; and
from the middle of a run to its end the net must change and the law must not.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.intrinsic_lr import nets
from experiments.intrinsic_lr.settings import Normalised
from optsde.analysis import (
    Estimate,
    above,
    agrees,
    below,
    combination,
    energy_distance,
    energy_test,
    estimate,
    exact,
    family,
    jackknife,
    plots,
    plus_minus,
    table,
)
from optsde.checks import LARGEST
from optsde.dynamics import discrete
from optsde.measure import Probe
from optsde.optimizers import SGD
from optsde.plans import Plan
from optsde.run import Progress, fit, parts, statistics
from optsde.study import Numbers, Study, require, setting
from optsde.study.arms import Arm

FORGETS = {
    "effective_lr": "effective lr",
    "train_loss": "train loss",
    "functions": "functions",
}
paired_distance = partial(energy_distance, paired=True)


class Mixed(NamedTuple):
    """The runs by λ_e, and the times in which they forget their start.

    forgetting: [metrics, "10%" and "half", λ_e and the exponent]; times are in 1/λ_e.
    """

    runs: dict[float, dict[str, np.ndarray]]
    forgetting: Estimate


class Settings(Normalised):
    intrinsic: Numbers = setting(
        (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
        "λ_e of each pair of ensembles",
        above=0,
        below=0.1,
        entries=2,
        rising=True,
    )
    ratio: float = setting(
        10.0, "lr/decay, which the norm at equilibrium follows", above=0
    )
    scales: Numbers = setting(
        (0.5, 2.0), "of the initial weights of the two ensembles", above=0, entries=2
    )
    length: float = setting(8.0, "of a run", unit="1/λ_e", above=0)
    first: float = setting(0.1, "time of the first measurement", unit="1/λ_e", above=0)
    looks: int = setting(
        20,
        "measurements of a run: even in log time to its middle, and its end",
        at_least=4,
    )
    images: int = setting(
        100, "held-out ones whose predictions are a net's function", at_least=1
    )
    batch_size: int = setting(16, "examples of a step", at_least=1)
    judged = 500
    forgotten: float = setting(
        10.0,
        "difference below which a start counts as forgotten",
        unit="%",
        above=0,
        at_most=100,
    )
    share: float = setting(
        0.5, "of the first difference, below which it is so too", above=0, below=1
    )
    slope_bound: float = setting(
        0.1, "on the exponent's departure from −1", above=0, at_most=1
    )
    alike: float = setting(
        2.0, "on H of ensembles that should be alike", unit="%", above=0, at_most=100
    )
    apart: float = setting(
        5.0,
        "on H of ensembles at the first measurement",
        unit="%",
        above=0,
        at_most=100,
    )
    turned: float = setting(
        0.9, "on the cosine of weights at the middle and the end", above=0, at_most=1
    )
    moved: float = setting(
        75.0,
        "on how far functions move meanwhile",
        unit="% of two runs' distance",
        above=0,
        at_most=200,
    )
    seeds = 48

    def demands(self):
        yield from super().demands()
        yield len(self.scales) == 2, "scales", "two numbers"
        yield self.seeds >= 6, "seeds", "at least 6, for two halves with errors"
        yield self.first < self.length / 2, "first", "a time before length/2"
        longest = self.length / min(self.intrinsic)
        yield longest <= LARGEST, "length", f"at most {LARGEST} steps of each run"
        fine = all(len(set(times(self, x))) == self.looks for x in self.intrinsic)
        words = "at most so many that they fall on steps of their own"
        yield fine, "looks", words


def build_task(s):
    """Returns the task of a normalized net; refuses more images than are held out."""
    task = nets.build_task(s)
    held_out = len(task.test[0])
    allowed = f"at most the {held_out} that are held out"
    require(s.images <= held_out, "images", s.images, allowed)
    return task


def times(s, intrinsic):
    """Returns the steps of measurements; the last two are the middle and the end."""
    shares = np.geomspace(s.first, s.length / 2, s.looks - 1)
    return np.round(np.append(shares, s.length) / intrinsic).astype(int)


def plan_of(s, intrinsic):
    """Returns the plan of a λ_e, of the same equilibrium norm for the same noise."""
    lr = np.sqrt(intrinsic * s.ratio)
    optimizer = SGD(lr=float(lr), weight_decay=float(intrinsic / lr))
    steps = int(times(s, intrinsic)[-1])
    return Plan(optimizer=optimizer, batch_size=s.batch_size, horizon=steps)


# ---- runs


def simulate(s, rundir, task):
    nets.report(s, task, Arm("the first", plan_of(s, s.intrinsic[0])))
    runs = {}
    for intrinsic in parts(s.intrinsic):
        make = partial(measured, s, task, intrinsic)
        run = rundir.once(f"λ_e {intrinsic:g}", make)
        runs[intrinsic] = run | {"functions": coordinates(run["predictions"])}
    return Mixed(runs, forgetting(s, runs))


def measured(s, task, intrinsic):
    """Returns what is measured of both ensembles, the first before the second."""
    plan, sampler = plan_of(s, intrinsic), nets.sampler_of(s, task)
    draws, *keys = jax.random.split(jax.random.key(s.seed), 3)
    points = [
        optax.tree.scale(scale, task.init(key))
        for key, scale in zip(keys, s.scales, strict=True)
    ]
    starts = jax.tree.map(lambda *x: jnp.repeat(jnp.stack(x), s.seeds, axis=0), *points)
    result = fit(
        lambda start: discrete(plan, sampler, start),
        jax.random.split(draws, 2 * s.seeds),
        plan.horizon,
        members=starts,
        probes=[watch(s, task, intrinsic)],
        progress=Progress(f"λ_e {intrinsic:<8g}"),
    )
    found = {name: x.values for name, x in result.metrics.items()}
    return {"times": times(s, intrinsic), **found}


def watch(s, task, intrinsic):
    """Returns the probe of losses, effective lr, predictions, and cosine with w_T."""
    lr = plan_of(s, intrinsic).optimizer.lr
    half = times(s, intrinsic)[-2]

    def observe(source, state, anchor):
        judged, plain, images = source
        params = state.params
        square = optax.tree.norm(params, squared=True)
        anchor = jax.tree.map(
            lambda x, y: jnp.where(state.time == half, x, y), params, anchor
        )
        cosine = optax.tree.vdot(anchor, params) / (
            optax.tree.norm(anchor) * jnp.sqrt(square)
        )
        found = statistics(task.model, params, plain, 512, task.prepare)
        outputs = task.net.evaluated(params, task.prepare(images), found)
        metrics = nets.losses(task, judged, params)
        metrics |= {"effective_lr": lr / square, "aligned": cosine}
        return metrics | {"predictions": jax.nn.softmax(outputs)}, anchor

    source = nets.judged_on(s, task), task.plain, task.test[0][: s.images]
    return Probe(
        observe,
        lambda state: state.params,
        source,
        times(s, intrinsic).tolist(),
        finite=True,
    )


def coordinates(predictions):
    """Returns vectors with the distances of predictions, no longer than members are.

    Both have members first and then times. Distances are those at one time.
    """
    rows = np.moveaxis(np.asarray(predictions, np.float64), 1, 0)
    rows = rows.reshape(*rows.shape[:2], -1)
    found = [np.transpose(np.linalg.qr(x.T)[1]) for x in rows]
    return np.stack(found, axis=1)


# ---- what follows from them


def ensembles(s, run, name, look=slice(None)):
    """Returns a metric of the two ensembles, each [seeds, …]."""
    values = run[name][:, look]
    return values[: s.seeds], values[s.seeds :]


def distance(s, run, look):
    """Returns H between the functions of the ensembles at a measurement, in %."""
    return 100 * jackknife(energy_distance, *ensembles(s, run, "functions", look))


def halves(s, run, look):
    """Returns H between two halves of one ensemble, the mean over both, in %."""
    even = 2 * (s.seeds // 2)
    found = [
        jackknife(energy_distance, x[:even:2], x[1:even:2])
        for x in ensembles(s, run, "functions", look)
    ]
    return combination([50.0, 50.0], found)


def further(run):
    """Returns the predictions of all runs in the middle and at the end."""
    return run["predictions"][:, -2], run["predictions"][:, -1]


def moved(early, late):
    """Returns how far runs move, in % of the distance between two runs at the end."""
    from scipy.spatial import distance

    early, late = (x.reshape(len(x), -1) for x in (early, late))
    own = np.linalg.norm(late - early, axis=1).mean()
    return 100 * own / distance.pdist(late).mean()


def apart(metric, one, other):
    """Returns how far two ensembles are apart at each time, in %: H, or |log| of means.

    One and other have members on the first axis and times on the second.
    """
    if metric == "functions":
        looks = range(one.shape[1])
        return 100 * np.array([energy_distance(one[:, i], other[:, i]) for i in looks])
    return 100 * np.abs(np.log(one.mean(axis=0) / other.mean(axis=0)))


def forgetting(s, runs):
    """Returns times of forgetting, see `Mixed`, and p in time in steps ∝ λ_e^p.

    Exponents are by least squares in logs. Seeds and starts are the same at every λ_e,
    so one seed is left out of all at a time.
    """
    rates = np.array(list(runs))
    logs = np.log(rates) - np.log(rates).mean()

    def times(run, metric, members):
        one, other = (x[members] for x in ensembles(s, run, metric))
        curve = apart(metric, one, other)
        levels = s.forgotten, s.share * curve[0]
        return [nets.last_above(run["times"], curve, level) for level in levels]

    def found(members):
        steps = np.array(
            [[times(run, m, members) for run in runs.values()] for m in FORGETS]
        )
        steps = np.moveaxis(steps, 2, 1)
        exponent = np.log(steps) @ logs / np.sum(logs**2)
        return np.append(rates * steps, exponent[..., None], axis=2)

    return jackknife(found, np.arange(s.seeds))


# ---- what is said of it


def tables(s, mixed):
    rows, later = [], []
    for intrinsic, run in mixed.runs.items():
        cells = [f"{intrinsic:g}"]
        for look in (0, -1):
            p = energy_test(*ensembles(s, run, "functions", look))
            cells += [plus_minus(distance(s, run, look)), f"{p:.2g}"]
        losses = (nets.shown(run[x][:, -1], x) for x in ("test_loss", "test_error"))
        rows.append([*cells, plus_minus(halves(s, run, -1)), *losses])
        pair = further(run)
        found = (
            estimate(run["aligned"][:, -1]),
            jackknife(moved, *pair),
            100 * jackknife(paired_distance, *pair),
        )
        p = energy_test(*pair, paired=True)
        later.append([f"{intrinsic:g}", *map(plus_minus, found), f"{p:.2g}"])
    header = ["λ_e", f"H at {s.first:g}/λ_e, %", "p", f"at {s.length:g}/λ_e", "p"]
    header += ["of two halves", "held-out loss", "held-out error %"]
    yield table(header, rows, "lrrrrrrr")
    rows = [
        [words, to, *map(plus_minus, mixed.forgetting.at((i, j)).each())]
        for j, to in enumerate((f"{s.forgotten:g}%", f"{s.share:g} of the first"))
        for i, words in enumerate(FORGETS.values())
    ]
    header = ["time in 1/λ_e until", "is down to", *(f"{x:g}" for x in mixed.runs)]
    yield table([*header, "exponent"], rows, "ll" + "r" * (len(mixed.runs) + 1))
    header = [f"λ_e; from {s.length / 2:g} to {s.length:g}/λ_e", "cosine of weights"]
    header += ["functions move, %", "H, %", "p"]
    yield table(header, later, "lrrrr")


def claims(s, mixed):
    runs, unit = {f"{x:g}": run for x, run in mixed.runs.items()}, "% H"
    firsts = (
        above(f"starts_differ_early_{n}", distance(s, run, 0), s.apart, unit)
        for n, run in runs.items()
    )
    yield from family("before", firsts)
    ends = (
        agrees(f"one_law_at_the_end_{n}", distance(s, run, -1), s.alike, unit)
        for n, run in runs.items()
    )
    yield from family("after", ends)
    exponents = (
        agrees(
            f"{metric}_{how}_in_time_1_over_intrinsic_lr",
            mixed.forgetting.at((i, j, -1)) - exact(-1.0),
            s.slope_bound,
            "exponent + 1",
        )
        for j, how in enumerate(("forgets", "halves"))
        for i, metric in enumerate(FORGETS)
    )
    yield from family("forgetting", exponents)
    pairs = {n: further(run) for n, run in runs.items()}
    turned = (
        below(f"weights_turn_{n}", estimate(run["aligned"][:, -1]), s.turned, "cos")
        for n, run in runs.items()
    )
    far = "% of two runs' distance"
    went = (
        above(f"functions_move_{n}", jackknife(moved, *pair), s.moved, far)
        for n, pair in pairs.items()
    )
    stays = (
        agrees(f"law_stays_{n}", 100 * jackknife(paired_distance, *pair), s.alike, unit)
        for n, pair in pairs.items()
    )
    yield from family("further training", [*turned, *went, *stays])


def figure(s, mixed, path):
    canvas, (left, right) = plots.new_figure(2)
    colours = plots.colours(mixed.runs)
    for rate, run in mixed.runs.items():
        curve = jackknife(partial(apart, "functions"), *ensembles(s, run, "functions"))
        words = f"λₑ = {rate:g}"
        plots.band(left, rate * run["times"], curve, label=words, colour=colours[rate])
    left.axhline(0, color="0.4", lw=1)
    left.set_xscale("log")
    rates = np.array(list(mixed.runs))
    means = mixed.forgetting.mean[:, :, :-1]
    for number, (words, colour) in enumerate(plots.colours(FORGETS.values()).items()):
        for j, face in enumerate((None, "white")):
            found = mixed.forgetting.at((number, j, slice(-1)))
            style = dict(colour=colour, marker="os^"[number], mfc=face or colour)
            label = "" if j else words
            plots.points(right, rates, found, label=label, ls="-", **style)
    right.set_xscale("log")
    plots.plain_log_axis(right)
    right.set_ylim(0.7 * np.nanmin(means), 6 * np.nanmax(means))
    plots.label(left, x="time in 1/λₑ", y="H between the ensembles, %", legend="best")
    title = f"until {s.forgotten:g}%; open: until {s.share:g} of the first"
    y = "time until the start is forgotten, in 1/λₑ"
    x = "intrinsic learning rate λₑ"
    plots.label(right, x=x, y=y, legend="upper left", legend_title=title)
    plots.save(canvas, path)


study = Study(
    __name__,
    Settings,
    simulate,
    task=build_task,
    by_accuracy=True,
    tables=tables,
    claims=claims,
    figures={"mixing": figure},
)
