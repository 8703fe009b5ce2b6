"""Have nets at equilibrium mixed? In function space they have, among parameters not.

Runs from one initial point with different batches. Weight decay forgets all of w_t but
e^-10 in a time of 10/λ_e; yet w_t and w_{t + 10/λ_e} point in similar directions, and
the mean over that time (SWA, with BatchNorm's statistics made anew) is far better than
any net on the way. The predictions of two runs, averaged over the same time, agree.
"""

import numpy as np

from experiments.intrinsic_lr import nets
from experiments.intrinsic_lr.settings import Trained
from experiments.intrinsic_lr.swa_run import averages
from optsde.analysis import (
    above,
    estimate,
    percent_each,
    percent_paired,
    plots,
    stack,
    table,
)
from optsde.optimizers import SGD, SWA
from optsde.study import Numbers, Study, setting

NETS = {
    "single": "single net",
    "two_runs": "two runs averaged",
    "two_times": "two times averaged",
    "average": "SWA",
}


class Settings(Trained):
    lrs: Numbers = setting((0.1, 0.1), "of each arm", above=0, entries=1)
    decays: Numbers = setting((0.01, 0.03), "of each arm", above=0, like="lrs")
    memories: float = setting(10.0, "length of the averages", unit="1/λ_e", above=0)
    steps = 15_000
    seeds = 8

    def demands(self):
        yield from super().demands()
        even = self.seeds >= 4 and self.seeds % 2 == 0
        yield even, "seeds", "an even number from 4 on: runs go in pairs"
        for lr, decay in zip(self.lrs, self.decays, strict=True):
            length = self.memories / (lr * decay)
            fine = 2 * self.every < length < 0.8 * self.steps
            words = f"memories/(lrs·decays), {length:g} steps, in 80% of the run"
            yield fine, "memories", words


def arms(s):
    """Each averages its weights over the last `memories` of the run."""
    for lr, decay in zip(s.lrs, s.decays, strict=True):
        length = round(s.memories / (lr * decay) / s.every) * s.every
        average = SWA(start=s.steps - length, every=s.every)
        sgd = SGD(lr=lr, weight_decay=decay)
        yield s.arm(f"{lr * decay:.3g}", sgd, average)


def simulate(s, rundir, task):
    compared = list(arms(s))
    nets.report(s, task, compared[0])
    names = [arm.name for arm in compared]
    return rundir.once_all(names, lambda: averages(s, task, compared))


def tables(s, runs):
    rows = []
    for name, run in runs.items():
        for net, words in NETS.items():
            cells = [nets.shown(run[f"{net}_{x}"], x) for x in nets.LOSSES]
            rows.append([name, words, *cells])
    header = ["λ_e", "net", *(nets.TITLES[metric] for metric in nets.LOSSES)]
    yield table(header, rows, "llrrrr")
    for name, run in runs.items():
        single, mean = (nets.shown(run[f"apart_{x}"]) for x in ("single", "averaged"))
        yield (
            f"λ_e = {name}: total variation between predictions of two runs {single}, "
            f"averaged over the time {mean}"
        )


def claims(s, runs):
    for name, run in runs.items():
        fewer = -percent_each(run["average_test_error"], run["single_test_error"])
        yield above(f"swa_halves_the_error_at_{name}", fewer, 50.0, "% fewer errors")
        aligned = estimate(run["aligned"][:, -1])
        yield above(f"still_aligned_at_{name}", aligned, 0.7, "cos")
        by_pair = run["two_times_test_loss"].reshape(-1, 2).mean(axis=1)
        gain = percent_paired(run["two_runs_test_loss"], by_pair)
        yield above(f"two_times_average_better_at_{name}", gain, 0.0, "% of loss")
        closer = -percent_each(run["apart_averaged"], run["apart_single"])
        unit = "% nearer than single nets'"
        yield above(f"predictions_mix_at_{name}", closer, 50.0, unit)


def figure(s, runs, path):
    canvas, (left, right) = plots.new_figure(2)
    colours, places = plots.colours(runs), np.arange(len(NETS))
    for number, (name, run) in enumerate(runs.items()):
        style = dict(label=f"λₑ = {name}", colour=colours[name])
        errors = stack(estimate(100 * run[f"{net}_test_error"]) for net in NETS)
        marker = "os^D"[number % 4]
        plots.points(left, places + 0.1 * number, errors, marker=marker, **style)
        time = float(name) * run["time"]
        plots.band(right, time, estimate(run["aligned"]), **style)
    time = np.linspace(0, s.memories, 200)
    right.plot(time, np.exp(-time), "--", color="0.4", label="what weight decay leaves")
    left.set_xticks(places, [words.replace(" ", "\n") for words in NETS.values()])
    left.set_xlim(-0.4, len(NETS) - 0.4)
    left.set_ylim(bottom=0)
    right.set_ylim(0, 1.02)
    plots.label(left, y="held-out error, %", legend="best")
    y = "cosine with the weights at time 0"
    plots.label(right, x="time in 1/λₑ", y=y, legend="best")
    plots.save(canvas, path)


study = Study(
    __name__,
    Settings,
    simulate,
    task=nets.build_task,
    by_accuracy=True,
    tables=tables,
    claims=claims,
    figures={"swa": figure},
)
