"""By what angle do the weights of a layer turn in a step, with SGD and with AdamW?

At equilibrium the angle has a closed form (`angles`), the same for every layer,
whatever its size and its gradients: the rotational equilibrium of Kosson et al. (2023).
AdamW sees a gradient's direction alone, so lr·decay is all that lasts of lr and decay
there too; 1/(lr·decay) is its timescale (Wang and Aitchison 2024). For SGD on a layer
of which the loss sees the direction alone, the form is exact on average.
"""

import numpy as np

from experiments.intrinsic_lr import nets
from experiments.intrinsic_lr.angles import FAMILIES, angle, turns
from experiments.intrinsic_lr.settings import Averaged
from optsde.analysis import (
    above,
    agrees,
    estimate,
    percent_each,
    percent_paired,
    plots,
    stack,
    table,
)
from optsde.optimizers import SGD
from optsde.study import Names, Numbers, Study, setting
from optsde.study.arms import Arm, train

UNIT = "% of angle"


class Settings(Averaged):
    families: Names = setting(
        ("sgd", "heavy_ball", *["adamw"] * 5, "adam_l2"),
        "optimizer of each arm",
        one_of=FAMILIES,
        entries=1,
    )
    lrs: Numbers = setting(
        (0.1, 0.04, 0.01, 0.04, 0.04, 0.01, 0.01, 0.01),
        "of each arm",
        above=0,
        like="families",
    )
    decays: Numbers = setting(
        (0.03, 0.0075, 0.3, 0.075, 0.075, 0.1, 0.3, 0.01),
        "of each arm; of heavy_ball and adam_l2 it is l2",
        above=0,
        like="families",
    )
    betas: Numbers = setting(
        (0.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.0, 0.9),
        "memory of each arm's steps; 0 of sgd",
        at_least=0,
        below=1,
        like="families",
    )
    scales: Numbers = setting(
        (1.0, 1.0, 1.0, 4.0, 1.0, 1.0, 1.0, 1.0),
        "of initial weights",
        above=0,
        like="families",
    )
    bound: float = setting(
        5.0, "on departures of angles", unit=UNIT, above=0, at_most=100
    )
    loss_bound: float = setting(
        8.0, "between arms of one lr·decay", unit="% of loss", above=0, at_most=100
    )
    apart: float = setting(
        25.0, "between arms of another", unit="% of loss", above=0, at_most=100
    )
    turn_every: int = setting(20, "steps between two angles", at_least=2)
    seeds = 8

    def demands(self):
        yield from super().demands()
        fine = any(step > self.late for step in self.turning())
        yield fine, "turn_every", "an angle in the later part of the run"
        pairs = zip(self.families, self.betas, strict=True)
        fine = all(beta == 0 for name, beta in pairs if name == "sgd")
        yield fine, "betas", "0 where families has sgd"
        pairs = zip(self.lrs, self.decays, strict=True)
        yield all(a * b < 0.1 for a, b in pairs), "lrs", "times decays below 0.1"
        names = {arm.name for arm in arms(self)}
        yield len(names) == len(self.families), "families", "arms that all differ"

    def turning(self):
        """Returns the steps whose angles are measured."""
        return range(self.turn_every, self.steps - 1, self.turn_every)


def arms(s):
    each = zip(s.families, s.lrs, s.decays, s.betas, s.scales, strict=True)
    for name, lr, decay, beta, scale in each:
        words = f"{name}, lr {lr:g}, decay {decay:g}, β {beta:g}"
        words += "" if scale == 1 else f", initial × {scale:g}"
        yield s.arm(words, FAMILIES[name][0](lr, decay, beta), scale=scale)


def simulate(s, rundir, task):
    nets.report(s, task, Arm("the net", s.arm("", SGD(lr=0.1, weight_decay=0.1)).plan))
    runs = train(
        list(arms(s)),
        nets.sampler_of(s, task),
        task.init,
        s.keys(),
        keep=rundir.once_all,
        probes=[nets.losses_probe(s, task), turns(s)],
        label=s.study(),
    )
    return runs.derived(angle=angle)


# ---- what follows from them


def measured(s, run):
    """Returns the root mean square of the angle of each layer [seeds, layers]."""
    times, angles = run.angle
    return np.sqrt(np.mean(angles[:, times > s.late] ** 2, axis=1))


def predictions(s):
    """Returns the angle of each arm by its name, NaN where none is known."""
    found = {}
    for number, arm in enumerate(arms(s)):
        cosine = FAMILIES[s.families[number]][1]
        values = s.lrs[number], s.decays[number], s.betas[number]
        found[arm.name] = float(np.arccos(cosine(*values)))
    return found


def unlike(angles):
    """Returns how much more the last layer turns than the first, in percent."""
    return percent_each(angles[:, -1], angles[:, 0])


def tables(s, runs):
    rows = []
    for number, (name, foreseen) in enumerate(predictions(s).items(), 1):
        run = runs[name]
        cells = [f"{1e3 * foreseen:.2f}"]
        cells += [nets.shown(1e3 * x) for x in measured(s, run).T]
        cells += [nets.shown(s.average(run[x]), x) for x in nets.LOSSES]
        rows.append([number, name, *cells])
    layers = [f"layer {i + 1}" for i in range(len(rows[0]) - 7)]
    header = ["", "arm", "10³ × angle foreseen", *layers]
    header += [nets.TITLES[metric] for metric in nets.LOSSES]
    yield table(header, rows, "rl" + "r" * (len(header) - 2))


def claims(s, runs):
    """Layers of Adam with l2, of which no angle is known, should not turn alike."""
    firsts = {}
    for number, (name, foreseen) in enumerate(predictions(s).items(), 1):
        run, family = runs[name], s.families[number - 1]
        angles = measured(s, run)
        if np.isfinite(foreseen):
            for layer, mine in enumerate(angles.T, 1):
                gap = estimate(100 * (mine / foreseen - 1))
                claim = f"{family}_{number}_layer_{layer}_turns_as_foreseen"
                yield agrees(claim, gap, s.bound, UNIT)
        claim = f"{family}_{number}_layers_turn_alike"
        yield agrees(claim, unlike(angles), s.bound, UNIT, bool(np.isfinite(foreseen)))
        first = firsts.setdefault((family, s.betas[number - 1]), number)
        if first != number:
            yield from compared(s, runs, first, number)


def compared(s, runs, first, number):
    """Yields what is claimed of two arms of one family and one β, by their numbers."""
    run, other = (list(runs.values())[i - 1] for i in (number, first))
    products = [s.lrs[i - 1] * s.decays[i - 1] for i in (number, first)]
    unit = "% of loss"
    if not np.isclose(*products):
        ratio = s.average(run.train_loss) / s.average(other.train_loss)
        apart = estimate(100 * (np.maximum(ratio, 1 / ratio) - 1))
        yield above(f"arm_{number}_of_another_timescale_differs", apart, s.apart, unit)
        return
    scale = s.scales[number - 1] / s.scales[first - 1]
    lr = s.lrs[number - 1] / s.lrs[first - 1]
    if scale != 1 and np.log2(scale) % 1 == 0 and np.isclose(lr, scale):
        gap = np.abs(run.train_loss.values - other.train_loss.values).max(axis=1)
        claim = f"rescaled_run_{number}_is_run_{first}"
        yield agrees(claim, estimate(gap), 1e-6, "nats, largest")
    for metric in ("train_loss", "test_loss"):
        change = percent_paired(s.average(run[metric]), s.average(other[metric]))
        claim = f"arm_{number}_of_the_same_timescale_same_{metric}"
        yield agrees(claim, change, s.loss_bound, unit)


def figure(s, runs, path):
    canvas, (left, right) = plots.new_figure(2, width=11.0)
    foreseen, angles = predictions(s), [measured(s, run) for run in runs.values()]
    places = np.arange(len(runs))
    layers = angles[0].shape[1]
    for layer in range(layers):
        gaps = stack(
            estimate(100 * (mine[:, layer] / level - 1))
            for mine, level in zip(angles, foreseen.values(), strict=True)
        )
        shifted = places + 0.2 * (layer - (layers - 1) / 2)
        style = dict(colour=plots.COLOURS[layer % 7], marker="os^D"[layer % 4])
        words = f"layer {layer + 1}"
        plots.points(left, shifted, gaps, label=words, across=True, **style)
    ratios = stack(map(unlike, angles))
    plots.points(right, places, ratios, colour=plots.COLOURS[2], across=True)
    for ax in (left, right):
        plots.spans(ax, [(-s.bound, s.bound)])
        ax.axvline(0, color="0.4", lw=1)
    plots.name_rows(left, [name.replace(", d", ",\nd") for name in runs])
    plots.name_rows(right, [""] * len(runs))
    x = "angle of a step, measured − foreseen, %"
    plots.label(left, x=x, legend="lower left", legend_title="grey: the bound")
    plots.label(right, x="angle of the last layer − of the first, %")
    plots.save(canvas, path)


study = Study(
    __name__,
    Settings,
    simulate,
    task=nets.build_task,
    by_accuracy=True,
    tables=tables,
    claims=claims,
    figures={"rotation": figure},
)
