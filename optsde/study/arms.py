"""Arms: ways of training that a study compares, run as stacked replicas arm × seed."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from optsde.dynamics import discrete
from optsde.gradients import Sampler
from optsde.measure.probe import Probe
from optsde.mesh import shards_for
from optsde.optimizers import Optimizer
from optsde.plans.plan import Plan
from optsde.run import (
    Checkpoints,
    JsonLines,
    Progress,
    Result,
    Series,
    Writer,
    fit,
    parts,
)
from optsde.run import writers as files
from optsde.study import provenance
from optsde.study.runs import ArmRuns, Runs
from optsde.types import PyTree

AnyArm = TypeVar("AnyArm", bound="Arm")
Keep = Callable[[str, Callable[[], Mapping[str, np.ndarray]]], Mapping[str, np.ndarray]]
"""(name, make) -> the arrays of that name, made only if they are not stored yet."""

Probes = Sequence[Probe] | Callable[["Arm"], Sequence[Probe]]


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way of training that is compared: a name, a plan, and what else differs.

    Attributes:
      name: unique among the arms of a study; it names files and legends.
      plan: the run apart from its data.
      scale: factor of the initial parameters.
      changes: fields of the optimizer that have other values from given times on, such
        as {6000: {"lr": 0.01}}.
    """

    name: str
    plan: Plan
    scale: float = 1.0
    changes: Mapping[float, Mapping[str, float]] = dataclasses.field(
        default_factory=dict
    )

    def at(self, time: float) -> Optimizer:
        """Returns the optimizer of the steps that begin at `time` or later."""
        optimizer = self.plan.optimizer.single()
        for since, fields in sorted(self.changes.items()):
            if time >= since:
                optimizer = dataclasses.replace(optimizer, **fields)
        return optimizer

    def member(self, time: float) -> tuple[Plan, float]:
        """Returns what is stacked: the plan as it is at a time, and the scale."""
        return dataclasses.replace(self.plan, optimizer=self.at(time)), self.scale


def stacks(arms: Iterable[AnyArm]) -> list[list[AnyArm]]:
    """Returns the arms that run as one ensemble together, in their order.

    Those whose plans differ in numbers alone can be stacked: the batch, the length of
    a step, the schedule and the kind of optimizer must be the same.
    """
    groups: dict[Any, list[AnyArm]] = {}
    for arm in arms:
        groups.setdefault(jax.tree.structure(arm.plan), []).append(arm)
    return list(groups.values())


def train(
    arms: Sequence[Arm],
    sampler: Sampler,
    init: PyTree,
    seeds: jax.Array,
    *,
    keep: Keep,
    probes: Probes = (),
    every: float | None = None,
    label: str = "",
) -> Runs:
    """Runs every arm with the same seeds; arms that are stored are read instead.

    Args:
      arms: those that can be stacked run as one ensemble.
      sampler: batch size -> oracle.
      init: the initial point, or a function of the key for one.
      seeds: keys, one for each replica of an arm, so that arms are paired.
      keep: stores the arrays of finished arms, such as `rundir.once`.
      probes: measurements; or a function of an arm for them. Where arms are stacked, it
        is called with an arm whose plan has traced hyperparameters.
      every: base steps from one row of mean loss and gradient norm to the next.
      label: of the progress line.
    """
    names = [arm.name for arm in arms]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two arms are called {twice[0]!r}: give each its own name")
    runs = {}
    for group in parts(stacks(arms)):
        results: dict[str, dict[str, np.ndarray]] = {}

        def make(name: str, group=group, results=results) -> Mapping[str, np.ndarray]:
            if not results:
                progress = _progress(group, label)
                result = _fit(
                    group, sampler, init, seeds, probes, every, progress=progress
                )
                for metric in result.metrics:
                    if "/" in metric or "@" in metric:
                        raise ValueError(f"metric {metric!r}: needs no / and no @")
                results.update(_by_arm(group, len(seeds), result.metrics))
            return results[name]

        for arm in group:
            arrays = keep(arm.name, lambda name=arm.name: make(name))
            runs[arm.name] = ArmRuns.of_arrays(arm, arrays)
    return Runs({arm.name: runs[arm.name] for arm in arms})


def train_in(
    folder: Path,
    group: Sequence[Arm],
    sampler: Sampler,
    init: PyTree,
    seeds: jax.Array,
    *,
    every: float,
    probes: Probes = (),
    checkpoint_every: float | None = None,
    writers: Sequence[Writer] = (),
    writer: Writer | None = None,
    label: str = "",
    stop_at_divergence: bool = True,
) -> Runs:
    """Runs arms that can be stacked, with metrics.jsonl and checkpoints in `folder`.

    Metrics that are one number for each replica are kept. The same call resumes from
    the newest checkpoint; a run that is finished is read.

    Args:
      folder: where the run is kept.
      group: arms whose plans differ in numbers alone.
      sampler, init, seeds, every, probes, label: as for `train`.
      checkpoint_every: base steps from one checkpoint to the next.
      writers: for the rows, besides metrics.jsonl.
      writer: in place of the plain JsonLines of metrics.jsonl.
      stop_at_divergence: raise DivergedError, or go on with the other replicas.
    """
    log, plan = folder / "metrics.jsonl", group[0].plan
    columns = files.read(log)
    ended = bool(columns) and columns["step"][-1] == plan.steps
    if ended and stop_at_divergence:  # a run that diverged in its last row has not
        ended = bool(np.isfinite(np.asarray(columns["loss"][-1], float)).all())
    if ended:
        print(f"{label or group[0].name}: read from {folder}")
    else:
        lone = len(group) == 1 and not group[0].changes
        taken = probes(group[0]) if callable(probes) and lone else probes
        folder.mkdir(parents=True, exist_ok=True)
        provenance.record(folder, log.name)
        _fit(
            group,
            sampler,
            init,
            seeds,
            taken,
            every,
            progress=_progress(group, label),
            writers=[writer or JsonLines(log), *writers],
            checkpoints=Checkpoints(folder / "checkpoints"),
            checkpoint_every=checkpoint_every,
            stop_at_divergence=stop_at_divergence,
        )
        columns = files.read(log)
    series = _series(columns, plan.dt)
    arrays = _by_arm(group, len(seeds), series)
    return Runs({a.name: ArmRuns.of_arrays(a, arrays[a.name]) for a in group})


def _progress(group: Sequence[Arm], label: str) -> Progress:
    names = [arm.name for arm in group] if len(group) > 1 else ()
    return Progress(label or group[0].name, names=names)


def _fit(group, sampler, init, seeds, probes, every, **options: Any) -> Result:
    count, plan = len(group), group[0].plan
    replicas = count * len(seeds)
    keys = jnp.tile(seeds, count)

    def scaled(scale):
        def times(params):
            return jax.tree.map(lambda x: (scale * x).astype(x.dtype), params)

        if not callable(init):
            return times(jax.tree.map(jnp.asarray, init))
        return lambda key: times(init(key))

    def dynamics(member):
        plan, scale = member
        return discrete(plan, sampler, scaled(scale))

    def stacked(time: float):
        each = [arm.member(time) for arm in group]
        return jax.tree.map(
            lambda *x: jnp.repeat(jnp.array(x, float), len(seeds), axis=0), *each
        )

    times = sorted({time for arm in group for time in arm.changes})
    options |= dict(probes=probes, every=every, shards=shards_for(replicas))
    end = plan.steps * plan.dt
    if count == 1 and not times:
        point = init if group[0].scale == 1 else scaled(group[0].scale)
        if callable(probes):
            options["probes"] = probes(group[0])
        return fit(discrete(plan, sampler, point), keys, end, **options)
    if callable(probes):
        options["probes"] = lambda member: probes(
            dataclasses.replace(group[0], plan=member[0])
        )
    changes = {time: stacked(time) for time in times}
    return fit(dynamics, keys, end, members=stacked(0), changes=changes, **options)


def _series(columns: Mapping[str, list], dt: float) -> dict[str, Series]:
    """Returns the columns of a metrics.jsonl as series [replicas, times]."""
    steps = np.asarray(columns["step"], float)
    series = {}
    for name, values in columns.items():
        rows = [i for i, value in enumerate(values) if value is not None]
        if name != "step" and rows:
            numbers = np.array([np.atleast_1d(values[i]) for i in rows], float).T
            series[name] = Series(dt * steps[rows], numbers)
    return series


def _by_arm(
    group: Sequence[Arm], seeds: int, series: Mapping[str, Series]
) -> dict[str, dict[str, np.ndarray]]:
    """Returns of each arm its arrays: NAME [seeds, times] and NAME@times."""
    out: dict[str, dict[str, np.ndarray]] = {}
    for number, arm in enumerate(group):
        mine = slice(number * seeds, (number + 1) * seeds)
        out[arm.name] = {}
        for name, (times, values) in series.items():
            if not jax.tree_util.treedef_is_leaf(jax.tree.structure(values)):
                raise ValueError(f"metric {name!r} must be an array for each replica")
            out[arm.name][name] = np.asarray(values)[mine]
            out[arm.name][f"{name}@times"] = np.asarray(times)
    return out
