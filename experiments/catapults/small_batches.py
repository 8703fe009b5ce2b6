"""Above the critical rate, do smaller batches give more catapults and better nets?

A few full-batch steps below the critical rate, then SGD at one rate above it, the same
for every batch (Zhu et al. 2024). The largest batch is all examples, and is descent.
Catapults are those of the loss on all examples, which is measured at each step. From
two inits, as in `pulses`: a random function, and the zero function.
"""

import itertools
from functools import cache, partial

import jax
import numpy as np

from experiments.catapults import descent, nets, pulses
from experiments.catapults.pulses import INITS
from experiments.catapults.targets import RANK3, target_of
from optsde.analysis import (
    above,
    estimate_finite,
    family,
    find_spikes,
    none,
    plots,
    plus_minus,
    stack,
    table,
)
from optsde.measure import probe
from optsde.study import Integers, Seeds, Study, setting

WINDOW = 20  # steps before a catapult can be seen


class Settings(Seeds):
    target: str = setting(RANK3, "rank3, or the name of images, see optsde.data.load")
    width: int = setting(
        256, "of the hidden layer", at_least=2, multiple_of=2, needs="an even number"
    )
    train_size: int = setting(400, "examples that a seed trains on", at_least=2)
    batch_sizes: Integers = setting(
        (400, 200, 100, 60, 10), "falling, the first train_size", at_least=1, entries=2
    )
    warm_steps: int = setting(30, "full-batch steps at `base`", at_least=WINDOW)
    base: float = setting(0.5, "rate before", unit="η_crit at the start", above=0)
    ratio: float = setting(1.4, "rate from then on", unit="η_crit then", above=1)
    steps: int = setting(600, "steps at that rate", at_least=1)

    def demands(self):
        yield from super().demands()
        sizes = self.batch_sizes
        falling = all(a > b for a, b in itertools.pairwise(sizes))
        fine = falling and sizes[0] == self.train_size
        allowed = f"falling integers from train_size={self.train_size} on"
        yield fine, "batch_sizes", allowed
        size = target_of(self.target).size
        yield self.train_size <= size, "train_size", f"2 to {size} examples"


def simulate(s, rundir):
    """Returns arrays [batches, seeds, inits]; NaN where a run diverged."""
    begun, runs = cache(lambda: warmed(s)), []
    for size in s.batch_sizes:
        make = partial(trained, s, begun, size)
        runs.append(rundir.once(f"batch {size}", make))
    return {name: np.stack([run[name] for run in runs]) for name in runs[0]}


def warmed(s):
    """Returns the task, and members at their rates with the loss until there."""
    target = target_of(s.target)
    model = nets.two_layer(s.width, target.outputs)
    losses, apply = nets.losses_of(model), nets.apply_of(model)
    members = pulses.members_of(s, target, model, INITS)

    def critical(start, inputs):
        return nets.critical_lr(apply, start, inputs)

    critical = jax.jit(jax.vmap(critical))
    first = critical(members.start, members.examples[0])
    members = members._replace(lr=s.base * first)
    run = descent.run(losses, members, s.warm_steps, " below critical")
    start = run.state.params
    lr = s.ratio * critical(start, members.examples[0])
    return members._replace(lr=lr, start=start), run.metrics["loss"].values, first


def trained(s, begun, size):
    """Returns the numbers of one batch size, [seeds, inits]."""
    target, (members, before, first) = target_of(s.target), begun()
    model = nets.two_layer(s.width, target.outputs)
    losses, apply = nets.losses_of(model), nets.apply_of(model)

    def on_all(examples, state):
        return {"loss_on_all": losses(state.params, examples).mean()}

    def at_end(data, state):
        inputs, held_out = data
        critical = nets.critical_lr(apply, state.params, inputs)
        measured = target.evaluate(apply, state.params, held_out)
        return measured | {"critical": critical}

    def probes(member):
        data = member.examples[0], member.held_out
        every_step = probe(on_all, member.examples, range(s.steps))
        return [every_step, probe(at_end, data, [s.steps])]

    options = dict(
        batch_size=None if size == s.train_size else size,
        keys=descent.repeated(descent.keys_of_draws(s), len(INITS)),
        period=None,
        probes=probes,
    )
    label = f" at batch {size}"
    found = descent.run(losses, members, s.steps, label, **options).metrics
    loss = np.concatenate([before, found["loss_on_all"].values], axis=1)
    ends = {n: found[n].values[:, 0] for n in ("test_error", target.skill)}
    ends |= {
        "catapults": np.array([len(find_spikes(x)) for x in loss]),
        "largest": loss.max(axis=1) / loss[:, s.warm_steps],
        "train_loss": loss[:, -1],
        "norm": first / found["critical"].values[:, 0],
    }
    lost = ~np.isfinite(loss[:, -1])
    ends = {n: np.where(lost, np.nan, x).reshape(s.seeds, -1) for n, x in ends.items()}
    return ends | {"loss": loss.reshape(s.seeds, len(INITS), -1)}


def columns(s) -> dict[str, str]:
    target = target_of(s.target)
    return {
        "catapults": "catapults",
        "largest": "largest/first loss",
        "norm": "‖K‖ end/start",
        "train_loss": "train loss",
        "test_error": "held-out error",
        target.skill: target.skill_name,
    }


def tables(s, runs):
    rows = []
    for i, title in enumerate(INITS.values()):
        for j, size in enumerate(s.batch_sizes):
            numbers = [
                plus_minus(estimate_finite(runs[n][j, :, i])) for n in columns(s)
            ]
            lost = int(np.isnan(runs["norm"][j, :, i]).sum())
            rows.append([title, size, *numbers, lost])
    yield ""
    header = ["start", "batch", *columns(s).values(), "lost"]
    yield table(header, rows, "lr" + "r" * (len(columns(s)) + 1))


def claims(s, runs):
    """Compares each batch with the full one, paired by seed, where both are finite."""

    def gain(name, j, i):
        return estimate_finite(runs[name][j, :, i] - runs[name][0, :, i])

    skill = target_of(s.target).skill
    made = []
    for i, init in enumerate(INITS):
        for j, size in enumerate(s.batch_sizes[1:], 1):
            at = f"at_{size}_from_{init}"
            more, lower = gain("catapults", j, i), -gain("test_error", j, i)
            made += [above(f"more_catapults_{at}", more, 0.0, "catapults")]
            made += [above(f"lower_error_{at}", lower, 0.0, "of the held-out error")]
            unit = "points" if skill == "accuracy" else "of cosine"
            made += [above(f"higher_{skill}_{at}", gain(skill, j, i), 0.0, unit)]
    yield from family("against the full batch", made)
    for j, size in enumerate(s.batch_sizes):
        yield none(f"no_run_diverged_at_{size}", np.isnan(runs["norm"][j]))


def figure(s, runs, path):
    names = "catapults", "norm", "test_error"
    titles = [f"means of {s.seeds} seeds, 95% bars", "", ""]
    if np.isnan(runs["norm"]).all(axis=(1, 2)).any():
        titles[1] = "where there is no point, all runs diverged"
    drawing, axes = plots.new_figure(3, width=13, height=4.4)
    for ax, name, title in zip(axes, names, titles, strict=True):
        for i, (start, marker) in enumerate(zip(INITS.values(), "os", strict=True)):
            ends = stack(estimate_finite(x[:, i]) for x in runs[name])
            sizes = np.array(s.batch_sizes) * (1 + 0.06 * i)
            looks = dict(colour=plots.COLOURS[i], label=start, marker=marker, ls="-")
            plots.points(ax, sizes, ends, **looks)
        ax.set(xscale="log", xticks=s.batch_sizes, xticklabels=s.batch_sizes)
        ax.set(ylim=(0, None))
        ax.minorticks_off()
        y = f"{columns(s)[name]}" + (" of a run" if name == "catapults" else "")
        plots.label(ax, "batch size", y, title)
    plots.shared_legend(drawing, axes[0], columns=2)
    plots.save(drawing, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    figures={"{target}": figure},
)
