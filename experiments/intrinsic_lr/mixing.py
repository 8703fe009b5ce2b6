"""Do nets forget where they began in 1/λ_e steps, as functions and not as weights?

The conjecture of Li, Lyu and Arora (2020): from any start the distribution of functions
comes to one equilibrium, in a time of the order of 1/λ_e. Two ensembles begin at two
points of unequal norm. Their held-out predictions are compared as samples of two laws,
before and after; the time in which the start is forgotten is fitted against λ_e; and
from the middle of a run to its end the net must change and the law must not.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from experiments.intrinsic_lr import nets
from experiments.intrinsic_lr.forgetting import (
    FORGETS,
    apart,
    distance,
    ensembles,
    forgetting,
    further,
    halves,
    moved,
    paired_distance,
)
from experiments.intrinsic_lr.settings import Normalised
from experiments.intrinsic_lr.two_starts import (
    build_task,
    coordinates,
    measured,
    plan_of,
    times,
)
from optsde.analysis import (
    Estimate,
    above,
    agrees,
    below,
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
from optsde.run import parts
from optsde.study import Numbers, Study, setting
from optsde.study.arms import Arm


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


def simulate(s, rundir, task):
    nets.report(s, task, Arm("the first", plan_of(s, s.intrinsic[0])))
    runs = {}
    for intrinsic in parts(s.intrinsic):
        make = partial(measured, s, task, intrinsic)
        run = rundir.once(f"λ_e {intrinsic:g}", make)
        runs[intrinsic] = run | {"functions": coordinates(run["predictions"])}
    return Mixed(runs, forgetting(s, runs))


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
