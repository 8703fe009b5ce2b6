"""Which weight decay of AdamW is best, and does its timescale stay as the data grow?

With decoupled decay the weights are a moving average of the steps of Adam, over
1/(lr·λ) steps. Wang and Aitchison (2024) find that the best such timescale is the same
number of epochs however many examples there are, so that at one lr the best λ falls as
1/examples. If it is the timescale that counts, it falls as 1/lr too. Every case, an lr
and a number of examples, is trained for as many epochs with every timescale.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from experiments.sweep.optima import Case, best_timescales, costs, exponent
from optsde.analysis import (
    Verdict,
    above,
    agrees,
    estimate,
    exact,
    interval,
    plots,
    plus_minus,
    table,
    with_interval,
)
from optsde.checks import LARGEST
from optsde.data import Stream
from optsde.gradients import minibatch
from optsde.plans.schedules import warmup_cosine
from optsde.run import Progress, Task, parts
from optsde.study import (
    Integers,
    Numbers,
    RunDir,
    Seeds,
    Study,
    UsageError,
    build_task,
    require,
    setting,
)
from optsde.study.tasks import LabelSettings

ORDERS = 1  # the stream of keys by which replicas choose their examples


class Settings(LabelSettings, Seeds):
    sizes: Integers = setting(
        (160, 320, 640, 1280), "examples of each case", above=0, entries=2
    )
    lrs: Numbers = setting(
        (0.01, 0.01, 0.01, 0.01),
        "of each case",
        above=0,
        like="sizes",
    )
    timescales: Numbers = setting(
        (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0),
        "1/(lr·λ) of each arm",
        unit="epochs",
        above=0,
        entries=3,
        rising=True,
    )
    b1: float = setting(0.9, "memory of Adam's m", at_least=0, below=1)
    b2: float = setting(0.99, "memory of Adam's v", above=0, below=1)
    batch_size: int = setting(16, "examples of a step", at_least=1)
    epochs: int = setting(64, "of every run", at_least=1)
    cosine: bool = setting(True, "whether lr falls to 0 as half a cosine")
    slope_bound: float = setting(
        0.25, "on the exponent's departure from −1", above=0, at_most=1
    )
    bound: float = setting(
        3.0,
        "on the last case's loss at the first's timescale, above its lowest",
        unit="%",
        above=0,
        at_most=100,
    )
    seeds = 24

    def demands(self):
        yield from super().demands()
        yield self.seeds >= 3, "seeds", "at least 3, for intervals"
        fine = all(size % self.batch_size == 0 for size in self.sizes)
        yield fine, "sizes", f"multiples of batch_size={self.batch_size}"
        paces = {case.pace for case in cases(self)}
        yield len(paces) == len(self.sizes), "sizes", "times lrs, numbers that differ"
        least = min(self.timescales) * min(self.sizes) / self.batch_size
        yield least > 1, "timescales", "each longer than a step"
        longest = self.epochs * max(self.sizes) // self.batch_size
        yield longest <= LARGEST, "epochs", f"at most {LARGEST} steps of each run"


def cases(s: Settings) -> list[Case]:
    """Returns the cases, of falling best λ if the timescale is what stays."""
    pairs = zip(s.sizes, s.lrs, strict=True)
    return sorted((Case(*pair) for pair in pairs), key=lambda case: case.pace)


def decays(s: Settings, case: Case) -> np.ndarray:
    """Returns λ of each timescale."""
    return s.batch_size / (np.array(s.timescales) * case.pace)


def plan_of(s: Settings, case: Case, decay) -> optsde.Plan:
    """Returns the plan of a case at λ = `decay`."""
    optimizer = optsde.Adam(lr=case.lr, b1=s.b1, b2=s.b2, weight_decay=decay)
    steps = s.epochs * case.size // s.batch_size
    return optsde.Plan(
        optimizer=optimizer,
        batch_size=s.batch_size,
        horizon=steps,
        schedule=warmup_cosine(0, steps) if s.cosine else None,
    )


# ---- runs


def simulate(s: Settings, rundir: RunDir, task: Task) -> dict[Case, np.ndarray]:
    """Returns the last held-out loss of every case, [seeds, timescales]."""
    count = examples_of(task)
    allowed = f"at most the {count} training examples"
    require(max(s.sizes) <= count, "sizes", max(s.sizes), allowed)
    found = {}
    for case in parts(cases(s)):
        run = rundir.once(str(case), partial(trained, s, task, case))
        found[case] = run["test_loss"]
    return found


def examples_of(task: Task) -> int:
    """Returns how many training examples there are."""
    if isinstance(task.train, Stream):
        raise UsageError(
            "task(config): train is a Stream, and seeds that draw from examples of "
            "their own need them on the device"
        )
    return len(task.train[1])


def trained(s: Settings, task: Task, case: Case) -> dict[str, np.ndarray]:
    """Returns the last held-out loss of a case, [seeds, timescales].

    Each seed has an order of the examples, and draws from the first `case.size`: cases
    of more examples have those of the smaller ones among them.
    """
    root, count = jax.random.fold_in(jax.random.key(s.seed), ORDERS), len(s.timescales)
    orders = [
        jax.random.permutation(key, examples_of(task))[: case.size]
        for key in jax.random.split(root, s.seeds)
    ]
    kind = jnp.result_type(float)
    members = {
        "decay": np.repeat(decays(s, case).astype(kind), s.seeds),
        "among": jnp.tile(jnp.stack(orders), (count, 1)),
    }

    def dynamics(member):
        sampler = minibatch(
            task.losses, task.train, among=member["among"], augment=task.augment
        )
        return optsde.discrete(plan_of(s, case, member["decay"]), sampler, task.init)

    steps = plan_of(s, case, 0.0).steps
    result = optsde.fit(
        dynamics,
        jnp.tile(s.keys(), count),
        steps,
        members=members,
        probes=[task.evaluation(times=[steps])],
        progress=Progress(f"{case}, {count} timescales × {s.seeds} seeds"),
    )
    losses = result.metrics["test_loss"].values[:, -1]
    return {"test_loss": losses.reshape(count, s.seeds).T}


# ---- what is said of them


def tables(s: Settings, runs: dict[Case, np.ndarray]) -> Iterator[str]:
    best, rows = best_timescales(s.timescales, runs), []
    for number, (case, losses) in enumerate(runs.items()):
        value, low, high = (2.0**x for x in interval(best.at(number)))
        shown = "at an end of the list"
        decay = ""
        if np.isfinite(value):
            shown = f"{value:.3g} [{low:.3g}, {high:.3g}]"
            decay = f"{s.batch_size / (value * case.pace):.3g}"
        cells = [plus_minus(x) for x in estimate(losses).each()]
        rows.append([f"{case.size}", f"{case.lr:g}", shown, decay, *cells])
    header = ["examples", "lr", "best timescale, epochs", "best λ"]
    header += [f"loss at {timescale:g}" for timescale in s.timescales]
    yield table(header, rows, "r" * len(header))


def claims(s: Settings, runs: dict[Case, np.ndarray]) -> Iterator[Verdict]:
    gap = exponent(s.timescales, runs) - exact(-1.0)
    claim = "best_decay_falls_as_1_over_lr_times_examples"
    yield agrees(claim, gap, s.slope_bound, "exponent + 1")
    kept, more = costs(s.timescales, runs)
    unit = "% of loss"
    yield agrees("first_timescale_is_as_good_as_the_best", kept, s.bound, unit)
    yield above("first_decay_is_worse_than_first_timescale", more, 0.0, unit)


def answer(s: Settings, runs: dict[Case, np.ndarray], verdicts: list[Verdict]) -> str:
    del verdicts
    power = power_of(s, runs)
    return f"best λ ∝ (lr · examples)^p, p = {power}; −1 where the timescale stays"


def power_of(s: Settings, runs: dict[Case, np.ndarray]) -> str:
    """Returns the exponent with its interval, as text."""
    return with_interval(interval(exponent(s.timescales, runs)), 2)


def figure(s: Settings, runs: dict[Case, np.ndarray], path: Path) -> None:
    """Draws the loss over the timescale, and the best λ of each case."""
    canvas, (left, right) = plots.new_figure(2)
    colours = plots.colours(map(str, runs))
    for case, losses in runs.items():
        style = dict(colour=colours[str(case)], marker="o", ms=4, label=str(case))
        plots.band(left, np.array(s.timescales), estimate(losses), **style)
    left.set_xscale("log", base=2)
    left.set_xticks(s.timescales, [f"{x:g}" for x in s.timescales])
    plots.plain_log_axis(left)
    x = "timescale 1/(lr·λ), in epochs"
    title = f"after {s.epochs} epochs, bands 95%"
    plots.label(left, x=x, y="held-out loss", title=title, legend="best")

    best, paces = (
        best_timescales(s.timescales, runs),
        np.array([case.pace for case in runs]),
    )
    tried = [decays(s, case)[[-1, 0]] for case in runs]
    right.vlines(paces, *np.transpose(tried), color="0.85", lw=6, label="tried")
    half = plots.half_width(best)
    ends = [best.mean - half, best.mean, best.mean + half]
    high, middle, low = s.batch_size / (2.0 ** np.array(ends) * paces)
    bars = np.abs(np.stack([low, high]) - middle)
    right.errorbar(paces, middle, bars, fmt="o", capsize=3, label="best λ")
    kept = middle[0] * paces[0] / paces
    right.plot(paces, kept, "--", color="0.4", label="the first's timescale kept")
    right.set_xscale("log", base=2)
    right.set_xticks(paces, [f"{x:.3g}" for x in paces])
    right.set_yscale("log")
    right.set_ylim(bottom=np.min(tried) / 15)  # room for the legend
    title = f"exponent of the best λ: {power_of(s, runs)}"
    plots.label(
        right, x="lr · examples", y="weight decay λ", title=title, legend="lower left"
    )
    plots.save(canvas, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    answer=answer,
    figures={"timescale": figure},
    task=build_task,
)
