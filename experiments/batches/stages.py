"""Runs made of stages: at the end of each, a run goes on under another plan."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from optsde import gradients, schedules
from optsde.gradients import Sampler
from optsde.mesh import shards_for
from optsde.optimizers import Optimizer
from optsde.run import Progress, Series, Task, parts
from optsde.study import Seeds, require, setting
from optsde.study.runs import stored
from optsde.study.tasks import LabelSettings


class Stage(NamedTuple):
    """A part of a run: its plan, and whether the optimizer's state follows to it."""

    plan: optsde.Plan
    switches: bool = True


Way = tuple[Stage, ...]
"""The stages of a run, up to some time."""


class Settings(LabelSettings, Seeds):
    """Settings of a study whose runs change their batch."""

    optimizer: Optimizer = setting(optsde.Adam(lr=1.4e-3), "of the base run")
    batch_size: int = setting(2, "of the base run", at_least=1)
    horizon: float = setting(5120.0, "length of a run, in base steps", above=0)
    warmup: float = setting(0.0, "a linear ramp of lr, in base steps", at_least=0)
    memory: str = setting(
        "power", "decays become β**κ; linear: 1 − κ(1 − β)", one_of=("linear", "power")
    )
    group: int = setting(
        1, "examples in a pass, which share BatchNorm's statistics; 1: all", at_least=1
    )

    def demands(self):
        yield from super().demands()
        fine = self.group <= self.batch_size
        yield fine, "group", f"at most batch_size={self.batch_size}"
        fine = self.warmup < self.horizon
        yield fine, "warmup", f"less than the horizon, {self.horizon:g}"

    def base_plan(self) -> optsde.Plan:
        """Returns the plan of the base run."""
        return optsde.Plan(
            optimizer=self.optimizer,
            batch_size=self.batch_size,
            horizon=self.horizon,
            schedule=schedules.warmup(self.warmup) if self.warmup else None,
        ).checked()

    def sampler(self, task: Task) -> Sampler:
        """Returns batches of independent draws."""
        fine = self.group > 1 or not task.examples_interact
        allowed = "the size of ghost groups, for BatchNorm's would grow with the batch"
        require(fine, "group", self.group, allowed)
        group = None if self.group == 1 else self.group
        return gradients.minibatch(
            task.losses, task.train, group=group, augment=task.augment
        )


def train(
    ways: Mapping[str, Way],
    ends: Sequence[float],
    times: Sequence[float],
    sampler: Sampler,
    task: Task,
    keys: jax.Array,
) -> dict[str, dict[str, np.ndarray]]:
    """Runs every way from the same keys; returns the evaluations of each by its name.

    Ways run as one as long as their stages are the same, so that a run and its branches
    share all that was before. A way with fewer stages ends earlier.

    Args:
      ways: the stages of each run.
      ends: when each stage ends, in base steps.
      times: of the evaluations, in base steps.
    """
    begin = 0.0
    states: dict[Way, Any] = {(): None}
    series: dict[Way, Mapping[str, Series]] = {(): {}}
    for number, end in enumerate(parts(list(ends))):
        taken = dict.fromkeys(w[: number + 1] for w in ways.values() if len(w) > number)
        due = [t for t in times if begin < t <= end or t == begin == 0]
        going: dict[Way, Any] = {}
        for group in _stacks(taken):
            found = _advance(group, states, end, due, sampler, task, keys)
            for way, (state, metrics) in zip(group, found, strict=True):
                going[way] = state
                series[way] = _joined(series[way[:-1]], metrics)
        begin, states = end, going
    return {name: stored(series[way]) for name, way in ways.items()}


def _stacks(ways: Mapping[Way, Any]) -> list[list[Way]]:
    """Returns the ways whose last plans differ in numbers alone, together."""
    groups: dict[Any, list[Way]] = {}
    for way in ways:
        groups.setdefault(jax.tree.structure(way[-1].plan), []).append(way)
    return list(groups.values())


def _advance(
    group: Sequence[Way],
    before: Mapping[Way, Any],
    end: float,
    times: Sequence[float],
    sampler: Sampler,
    task: Task,
    keys: jax.Array,
) -> list[tuple[Any, dict[str, Series]]]:
    """Returns the state of each way at `end`, and what was measured until then."""
    seeds, plans = len(keys), [way[-1].plan for way in group]
    kind = jnp.result_type(float)
    members = jax.tree.map(
        lambda *x: np.repeat(np.array(x, kind), seeds, axis=0), *plans
    )
    starts = [_switched(before[way[:-1]], way) for way in group]
    state = None
    if starts[0] is not None:
        state = jax.tree.map(lambda *x: jnp.concatenate(x), *starts)
    result = optsde.fit(
        lambda plan: optsde.discrete(plan, sampler, task.init),
        jnp.tile(keys, len(group)),
        end,
        members=members,
        state=state,
        probes=[task.evaluation(times=times)],
        shards=shards_for(len(group) * seeds),
        progress=Progress(f"to {end:g}, batch {plans[0].batch_size}"),
    )
    found = []
    for number in range(len(group)):
        mine = slice(number * seeds, (number + 1) * seeds)
        metrics = {
            n: Series(at, np.asarray(x)[mine]) for n, (at, x) in result.metrics.items()
        }
        of_way = jax.tree.map(lambda x, mine=mine: x[mine], result.state)
        found.append((of_way, metrics))
    return found


def _switched(state: Any, way: Way) -> Any:
    """Returns the stacked state with which the last stage of a way begins."""
    if state is None:
        return None
    old, new = way[-2].plan, way[-1].plan
    memory = jax.vmap(lambda x: optsde.switch(x, old, new))(state.optimizer)
    if not way[-1].switches:
        memory = memory._replace(direction=state.optimizer.direction)
    return state._replace(optimizer=memory)


def _joined(
    before: Mapping[str, Series], after: Mapping[str, Series]
) -> dict[str, Series]:
    """Returns metrics of two stages that follow one another."""
    if not before:
        return dict(after)
    return {
        name: Series(
            np.concatenate([before[name].times, after[name].times]),
            np.concatenate([before[name].values, after[name].values], axis=1),
        )
        for name in after
    }


def steps(way: Way, ends: Sequence[float]) -> int:
    """Returns how many steps a way takes, one after the other.

    >>> plan = optsde.Plan(optimizer=optsde.SGD(lr=0.1), batch_size=2, horizon=8)
    >>> steps((Stage(plan), Stage(optsde.scale(plan, 4))), (4, 8))
    5
    """
    lengths = np.diff([0.0, *ends])
    pairs = zip(way, lengths, strict=False)
    return sum(round(length / stage.plan.dt) for stage, length in pairs)
