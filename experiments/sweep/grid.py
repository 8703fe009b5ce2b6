"""Which hyperparameters end lowest, and is the best told apart from the others?

Every point of a grid has the same seeds and sees as many samples. Points that differ in
numbers alone are one compiled ensemble: one batch size is one. Half of the seeds choose
the best point, among those where no seed diverges, and the other half judge it.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping

import numpy as np

import optsde
from optsde.analysis import (
    above,
    estimate_finite,
    family,
    interval,
    percent_paired,
    plots,
    plus_minus,
    table,
    with_interval,
)
from optsde.gradients import minibatch
from optsde.optimizers import Optimizer
from optsde.plans.schedules import warmup_cosine
from optsde.study import Arm, Runs, Seeds, Study, build_task, setting, train
from optsde.study.arms import stacks
from optsde.study.tasks import LabelSettings


class Settings(LabelSettings, Seeds):
    optimizer: Optimizer = setting(optsde.Adam(lr=1e-3), "where nothing is swept")
    over: dict = setting(
        {"lr": (3e-4, 1e-3, 3e-3, 1e-2)},
        "values of each field of the optimizer that is swept, or of batch_size",
    )
    batch_size: int = setting(16, "examples in a step", at_least=1)
    steps: int = setting(
        600, "of batch_size; other batches see as many samples", at_least=1
    )
    warmup: float = setting(0.0, "steps of batch_size, a linear ramp", at_least=0)
    cosine: bool = setting(False, "whether lr falls to 0 as half a cosine")
    evaluations: int = setting(6, "of each run", at_least=1)
    seeds = 16
    train_size = 512

    def demands(self):
        yield from super().demands()
        yield self.seeds % 2 == 0 and self.seeds >= 4, "seeds", "an even number ≥ 4"
        fine = self.steps % self.evaluations == 0
        yield fine, "evaluations", f"a divisor of the {self.steps} steps"
        yield self.warmup < self.steps, "warmup", f"fewer than the {self.steps} steps"
        fields = {f.name for f in dataclasses.fields(self.optimizer)} | {"batch_size"}
        for name, values in self.over.items():
            many = isinstance(values, tuple) and len(values) > 0
            fine = (
                name in fields
                and many
                and not any(isinstance(value, str | bool) for value in values)
            )
            allowed = f"a list of numbers, with a comma; of {', '.join(sorted(fields))}"
            yield fine, f"over.{name}", allowed
            fine = len({named({name: value}) for value in values}) == len(values)
            yield fine, f"over.{name}", "values that differ in their first six digits"
        samples = self.samples // self.evaluations
        for batch in self.over.get("batch_size", ()):
            fine = batch >= 1 and samples % batch == 0
            allowed = f"divisors of steps·batch_size/evaluations = {samples} samples"
            yield fine, "over.batch_size", allowed
        for arm in arms(self):
            try:
                arm.plan.checked()
            except ValueError as error:
                yield False, "over." + next(iter(self.over)), str(error)

    @property
    def every(self) -> float:
        """Steps of `batch_size` from one evaluation to the next."""
        return self.steps / self.evaluations

    @property
    def samples(self) -> int:
        """Samples that each run sees."""
        return self.steps * self.batch_size


def axes(s: Settings) -> dict[str, tuple[float, ...]]:
    """Returns the values of what is swept, lr before all else."""
    return {name: s.over[name] for name in sorted(s.over, key=lambda n: (n != "lr", n))}


def points(s: Settings) -> Iterator[dict[str, float]]:
    """Yields every point of the grid, as the values of what is swept."""
    for values in itertools.product(*axes(s).values()):
        yield dict(zip(axes(s), values, strict=True))


def named(point: Mapping[str, float]) -> str:
    """Returns the name of the arm of a point."""
    return ", ".join(f"{name} {value:g}" for name, value in point.items())


def arms(s: Settings) -> Iterator[Arm]:
    """Yields an arm for every point, in the order of the grid.

    Its clock counts steps of `batch_size`, so that all see as many samples by a time.
    """
    schedule = None
    if s.cosine:
        schedule = warmup_cosine(s.warmup, s.steps)
    elif s.warmup:
        schedule = optsde.schedules.warmup(s.warmup)
    for point in points(s):
        fields = dict(point)
        batch_size = int(fields.pop("batch_size", s.batch_size))
        optimizer = dataclasses.replace(s.optimizer, **fields)
        plan = optsde.Plan(
            optimizer=optimizer,
            batch_size=batch_size,
            horizon=s.steps,
            schedule=schedule,
            dt=batch_size / s.batch_size,
        )
        yield Arm(named(point), plan)


def simulate(s: Settings, rundir, task) -> Runs:
    """Returns the runs of all points, in the order of the grid."""
    sampler = minibatch(task.losses, task.train, augment=task.augment)
    runs = Runs({})
    for group in stacks(arms(s)):
        batch = f"batch{group[0].plan.batch_size}"
        runs |= train(
            group,
            sampler,
            task.init,
            s.keys(),
            keep=rundir.once_all,
            every=s.every,
            probes=[task.evaluation()],
            folder=rundir.path / "arms" / batch,
            checkpoint_every=s.every,
            label=f"{batch}, {len(group)} points × {s.seeds} seeds",
            stop_at_divergence=False,
        )
    return Runs({named(point): runs[named(point)] for point in points(s)})


def finals(runs: Runs) -> dict[str, np.ndarray]:
    """Returns each seed's last held-out loss, of the points where all are finite."""
    losses = {name: run.test_loss.last for name, run in runs.items()}
    return {name: loss for name, loss in losses.items() if np.isfinite(loss).all()}


def judged(runs: Runs) -> dict[str, np.ndarray]:
    """Returns the last held-out losses of the seeds that judge."""
    return {name: loss[len(loss) // 2 :] for name, loss in finals(runs).items()}


def best(runs: Runs) -> str | None:
    """Returns the point whose mean loss is lowest for the seeds that choose.

    A point that diverges on any seed is none; None, where every point does.
    """
    losses = finals(runs)
    means = {name: np.mean(loss[: len(loss) // 2]) for name, loss in losses.items()}
    return min(means, key=lambda name: means[name], default=None)


def tables(s: Settings, runs: Runs) -> Iterator[str]:
    first, losses = best(runs), judged(runs)
    rows = []
    for point in points(s):
        run, loss = runs[named(point)], losses.get(named(point))
        cells = [f"{value:g}" for value in point.values()]
        if first is None or loss is None:
            lost = np.count_nonzero(~np.isfinite(run.test_loss.last))
            rows.append([*cells, f"{lost} of {s.seeds} diverged", "", ""])
            continue
        more = interval(percent_paired(loss, losses[first]))
        here = "best" if named(point) == first else with_interval(more, 2, sign="+")
        accuracy = ""
        if "test_accuracy" in run:
            final = 100 * run.test_accuracy.last[-len(loss) :]
            accuracy = plus_minus(estimate_finite(final))
        rows.append([*cells, plus_minus(estimate_finite(loss)), here, accuracy])
    header = [*axes(s), "held-out loss", "% above the best", "accuracy, %"]
    yield table(header, rows, "r" * len(header))


def claims(s: Settings, runs: Runs):
    """Returns that the best point lies below each other one, as one family."""
    first, losses = best(runs), judged(runs)
    verdicts = []
    for name, loss in losses.items():
        if first is not None and name != first:
            claim = f"best_below_{name}".replace(", ", "_").replace(" ", "_")
            gap = percent_paired(loss, losses[first])
            verdicts.append(above(claim, gap, 0.0, "% of the best's loss"))
    return family("best_below", verdicts)


def answer(s: Settings, runs: Runs, verdicts) -> str:
    """Returns the best point, from how many it is told apart, and where it lies."""
    first = best(runs)
    if first is None:
        return "best: none, every point diverged on some seed; try smaller values"
    apart = sum(verdict.holds for verdict in verdicts)
    text = f"best: {first}; told apart from {apart} of the other {len(runs) - 1}"
    if lost := len(runs) - len(finals(runs)):
        text += f", of which {lost} diverged"
    point = next(p for p in points(s) if named(p) == first)
    for name, value in point.items():
        ends = min(s.over[name]), max(s.over[name])
        if len(s.over[name]) > 2 and value in ends and value != 0:  # nothing is below 0
            text += f"\n{name} {value:g} is the end of its list: try values beyond it"
    return text


def figure(s: Settings, runs: Runs, path) -> None:
    """Draws the loss over what is swept first, a line for each value of the rest."""
    canvas, (ax,) = plots.new_figure(1, plots.HALF_SLIDE, 4.2)
    final = judged(runs)
    axis = next(iter(axes(s)))
    lines: dict[str, list[tuple[float, np.ndarray]]] = {}
    for point in points(s):
        rest = named({n: v for n, v in point.items() if n != axis})
        if named(point) in final:
            lines.setdefault(rest, []).append((point[axis], final[named(point)]))
    colours = plots.colours(lines)
    for rest, found in lines.items():
        x, losses = np.array([x for x, _ in found]), np.array([y for _, y in found])
        plots.band(ax, x, estimate_finite(losses.T), label=rest, colour=colours[rest])
        ax.plot(x, losses.mean(1), "o", ms=4, color=colours[rest])
    if min(s.over[axis]) > 0:
        ax.set_xscale("log")
        ax.set_xticks(s.over[axis], [f"{x:g}" for x in s.over[axis]])
        ax.minorticks_off()
    legend = "best" if len(lines) > 1 else None
    title = f"After {s.samples} samples, bands 95%"
    plots.label(ax, x=axis, y="held-out loss", title=title, legend=legend)
    plots.save(canvas, path)


study = Study(
    __name__,
    Settings,
    simulate,
    tables=tables,
    claims=claims,
    answer=answer,
    figures={"sweep": figure},
    task=build_task,
)
