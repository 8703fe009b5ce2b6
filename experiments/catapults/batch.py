"""Does a smaller batch give more catapults?

The critical rate of a batch fluctuates, so SGD at one rate is above it now and then,
more often with smaller batches (Zhu et al. 2023). Digits, at constant rates in units of
η_crit at the start; batches are drawn with replacement, and the loss on all images is
measured at each step. A seed's runs share their images and their start.
"""

import itertools
from functools import partial

import jax.numpy as jnp
import numpy as np

from experiments.catapults import descent, nets
from optsde.analysis import (
    above,
    estimate_finite,
    find_spikes,
    none,
    phases,
    plots,
    plus_minus,
    stack,
    table,
)
from optsde.measure import probe
from optsde.study import Integers, Numbers, Study, setting

COLUMNS = {
    "catapults": "catapults",
    "largest": "largest/first loss",
    "share": "batch loss in a spike, % of steps",
    "norm": "‖K‖ end/start",
}


class Settings(nets.NetSettings):
    batch_sizes: Integers = setting(
        (256, 64, 16, 4), "batch sizes, falling", at_least=1, entries=2
    )
    ratios: Numbers = setting(
        (0.5, 0.9), "rates, in η_crit", above=0, rising=True, entries=1
    )
    steps: int = setting(1500, "steps of a run", at_least=21)
    train_size = 500

    def demands(self):
        yield from super().demands()
        falling = all(a > b for a, b in itertools.pairwise(self.batch_sizes))
        yield falling, "batch_sizes", "two or more falling integers ≥ 1"


def simulate(s, rundir, task):
    """Returns arrays [batches, seeds, ratios], and two losses [..., steps]."""
    runs = []
    for size in s.batch_sizes:
        make = partial(trained, s, task, size)
        runs.append(rundir.once(f"batch {size}", make))
    return summarised({name: np.stack([run[name] for run in runs]) for name in runs[0]})


def trained(s, task, size):
    """Returns the losses of one batch size, and ‖K‖ at the end over that at first."""
    members = descent.keys_of_draws(s), descent.members_of(s, task)
    keys, members = descent.repeated(members, len(s.ratios))
    critical, ratios = members.lr, jnp.tile(jnp.array(s.ratios), s.seeds)

    def on_all(examples, state):
        return {"loss_on_all": task.losses(state.params, examples).mean()}

    def at_end(inputs, state):
        return {"critical": nets.critical_lr(task.apply, state.params, inputs)}

    def probes(member):
        every_step = probe(on_all, member.examples, range(s.steps))
        return [every_step, probe(at_end, member.examples[0], [s.steps])]

    members = members._replace(lr=critical * ratios)
    options = dict(batch_size=size, keys=keys, period=None, probes=probes)
    label = f" at batch {size}"
    result = descent.run(task.losses, members, s.steps, label, **options)
    found = descent.by_seed(result.metrics, s.seeds)
    return {
        "norm": critical.reshape(s.seeds, -1) / found["critical"][..., 0],
        "loss": found["loss_on_all"],
        "batch_loss": found["loss"],
    }


def summarised(runs):
    """Returns the runs with the numbers of COLUMNS; NaN where a run diverged."""
    loss = runs["loss"]

    def share(series) -> float:
        spans = phases(find_spikes(series), len(series))
        return 100 * sum(last - first for first, last in spans) / len(series)

    numbers = {
        "catapults": np.apply_along_axis(lambda x: len(find_spikes(x)), -1, loss),
        "share": np.apply_along_axis(share, -1, runs["batch_loss"]),
        "largest": loss.max(axis=-1) / loss[..., 0],
        "norm": runs["norm"],
    }
    lost = ~np.isfinite(loss[..., -1])
    return runs | {name: np.where(lost, np.nan, x) for name, x in numbers.items()}


def tables(s, runs):
    rows = [
        [f"{ratio:g}", size]
        + [plus_minus(estimate_finite(runs[name][j, :, i])) for name in COLUMNS]
        for i, ratio in enumerate(s.ratios)
        for j, size in enumerate(s.batch_sizes)
    ]
    yield ""
    yield table(["rate in η_crit", "batch", *COLUMNS.values()], rows, "rrrrrr")


def claims(s, runs):
    """Compares the smallest batch with the largest, paired by seed."""
    count, norm = runs["catapults"], runs["norm"]
    for i, ratio in enumerate(s.ratios):
        more = estimate_finite(count[-1, :, i] - count[0, :, i])
        claim = f"smaller_batch_gives_more_catapults_at_{ratio:g}"
        yield above(claim, more, 0.0, "catapults a run")
        flatter = estimate_finite(norm[0, :, i] - norm[-1, :, i])
        claim = f"smaller_batch_ends_flatter_at_{ratio:g}"
        yield above(claim, flatter, 0.0, "of ‖K‖ at the start")
    yield none("no_run_diverged", np.isnan(norm))


def figure(s, runs, path):
    drawing, (left, right) = plots.new_figure(2, width=11, height=4.4)
    colours = plots.colours([*s.ratios, *s.batch_sizes])
    for i, ratio in enumerate(s.ratios):
        ends = stack(estimate_finite(norm[:, i]) for norm in runs["norm"])
        looks = dict(label=f"{ratio:g}", colour=colours[ratio], ls="-")
        plots.points(left, s.batch_sizes, ends, **looks)
    left.set(xscale="log", xticks=s.batch_sizes, xticklabels=s.batch_sizes)
    left.set(ylim=(0, 1.05))
    left.minorticks_off()
    y, title = "in units of the start", f"flatness: means of {s.seeds} seeds, 95% bars"
    looks = dict(legend="lower right", legend_title="rate in η_crit")
    plots.label(left, "batch size", f"‖K‖ at the end, {y}", title, **looks)
    steps = np.arange(1, s.steps + 1)
    for size, loss in reversed([*zip(s.batch_sizes, runs["loss"], strict=True)]):
        looks = dict(color=colours[size], lw=1.3, label=str(size))
        right.semilogx(steps, loss[0, -1], **looks)
    plots.plain_log_axis(right)
    y, title = "training loss on all images", f"one seed at {s.ratios[-1]:g} η_crit"
    plots.label(right, "step", y, title, legend="best", legend_title="batch size")
    plots.save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"batch": figure},
    task=nets.build_task,
    fixed_task=nets.FIXED,
)
