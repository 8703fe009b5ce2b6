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
from optsde.mesh import SplitRule, shards_for
from optsde.optimizers import Groups, Optimizer
from optsde.plans.plan import Plan
from optsde.run import (
    DivergedError,
    JsonLines,
    Progress,
    Result,
    Series,
    Writer,
    fit,
    parts,
)
from optsde.study.parts import Arrays
from optsde.study.runs import ArmRuns, Runs, stored
from optsde.types import PyTree

AnyArm = TypeVar("AnyArm", bound="Arm")
Made = Mapping[str, Arrays]
Keep = Callable[[Sequence[str], Callable[[], Made]], Made]
"""(names, make) -> the arrays of each name, made only if they are not kept yet."""

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

    def at(self, time: float) -> Optimizer | Groups:
        """Returns the optimizer of the steps that begin at `time` or later."""
        if not self.changes:
            return self.plan.optimizer
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
    folder: Path | None = None,
    checkpoint_every: float | None = None,
    writer: Writer | None = None,
    stop_at_divergence: bool = True,
    sharded: SplitRule | None = None,
) -> Runs:
    """Runs every arm with the same seeds; arms that are kept are read instead.

    Args:
      arms: those that can be stacked run as one ensemble.
      sampler: batch size -> oracle.
      init: the initial point, or a function of the key for one.
      seeds: keys, one for each replica of an arm, so that arms are paired.
      keep: keeps the arrays of arms that ran together, such as `rundir.once_all`, in
        which a run that is stopped goes on where it was.
      probes: measurements; or a function of an arm for them. Where arms are stacked, it
        is called with an arm whose plan has traced hyperparameters.
      every: base steps from one row of mean loss and gradient norm to the next.
      label: of the progress line.
      folder: where arms that are one ensemble leave their rows, as metrics.jsonl, and
        their trained parameters, in the journal `checkpoints`.
      checkpoint_every: base steps from one save there to the next.
      writer: in place of the plain JsonLines of metrics.jsonl.
      stop_at_divergence: raise DivergedError, or go on with the other replicas.
      sharded: how parameters are split over the devices that share a replica.
    """
    names = [arm.name for arm in arms]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two arms are called {twice[0]!r}: give each its own name")
    groups = stacks(arms)
    if folder is not None and len(groups) > 1:
        raise ValueError(
            f"folder={folder}: is for one ensemble, and these arms are {len(groups)}; "
            "train each of `stacks(arms)` in its own"
        )
    options: dict[str, Any] = dict(
        every=every, stop_at_divergence=stop_at_divergence, sharded=sharded
    )
    if folder is not None:
        options["writers"] = [writer or JsonLines(folder / "metrics.jsonl")]
        options["journal"] = folder / "checkpoints"
        options["checkpoint_every"] = checkpoint_every
    runs = {}
    for group in parts(groups):

        def make(group=group) -> dict[str, dict[str, np.ndarray]]:
            progress = _progress(group, label)
            result = _fit(
                group, sampler, init, seeds, probes, progress=progress, **options
            )
            return _by_arm(group, len(seeds), result.metrics)

        arrays = keep([arm.name for arm in group], make)
        runs |= {arm.name: ArmRuns.of_arrays(arm, arrays[arm.name]) for arm in group}
    return Runs({arm.name: runs[arm.name] for arm in arms})


def _progress(group: Sequence[Arm], label: str) -> Progress:
    names = [arm.name for arm in group] if len(group) > 1 else ()
    return Progress(label or group[0].name, names=names)


def _fit(group, sampler, init, seeds, probes, **options: Any) -> Result:
    count, plan = len(group), group[0].plan
    replicas = count * len(seeds)
    keys = jnp.tile(seeds, count) if count > 1 else seeds

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
        kind = jnp.result_type(float)
        return jax.tree.map(
            lambda *x: np.repeat(np.array(x, kind), len(seeds), axis=0), *each
        )

    times = sorted({time for arm in group for time in arm.changes})
    options |= dict(probes=probes, shards=shards_for(replicas))
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
    try:
        return fit(dynamics, keys, end, members=stacked(0), changes=changes, **options)
    except DivergedError as error:
        names = dict.fromkeys(group[r // len(seeds)].name for r in error.replicas)
        raise DivergedError(
            f"{error} (of {', '.join(names)}, {len(seeds)} seeds each)", error.replicas
        ) from None


def _by_arm(
    group: Sequence[Arm], seeds: int, series: Mapping[str, Series]
) -> dict[str, dict[str, np.ndarray]]:
    """Returns of each arm the arrays of which `ArmRuns.of_arrays` makes its runs."""
    out: dict[str, dict[str, np.ndarray]] = {}
    for number, arm in enumerate(group):
        mine = slice(number * seeds, (number + 1) * seeds)
        for name, (_, values) in series.items():
            if not jax.tree_util.treedef_is_leaf(jax.tree.structure(values)):
                raise ValueError(f"metric {name!r} must be an array for each replica")
        out[arm.name] = stored({n: Series(t, v[mine]) for n, (t, v) in series.items()})
    return out
