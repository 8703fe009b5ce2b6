"""Measurements that a training run takes of itself: --config.probes=sharpness,ntk.

Their numbers come in the rows of metrics.jsonl.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optsde import data, measure, run
from optsde.analysis.spikes import SpikeDetector
from optsde.gradients import Draw
from optsde.measure.probe import Probe
from optsde.plans.plan import Plan
from optsde.run import Series, Task
from optsde.study.runs import ArmRuns, Runs
from optsde.study.settings import Names, Seeded, setting
from optsde.study.shapes import UsageError
from optsde.types import PyTree

AT_ONCE = 4096  # examples, whose activations ‖K‖ holds
SPIKES = "spikes"  # takes no measurement of its own: the rows have the loss
NAMES = ("sharpness", "ntk", "invariance", SPIKES)


class ProbeSettings(Seeded):
    """Settings of a study whose runs may be measured as they go."""

    probes: Names = setting((), "measured as a run goes", some_of=NAMES)
    probe_examples: int = setting(
        0,
        "training examples that sharpness and ntk are of",
        zero="all",
        at_least=0,
    )


def writer(s: ProbeSettings, path: Path) -> Any:
    """Returns the writer of metrics.jsonl, which marks spikes if that is asked."""
    rows = run.JsonLines(path)
    return run.MarkSpikes(rows) if SPIKES in s.probes else rows


def with_spikes(s: ProbeSettings, runs: Runs) -> Runs:
    """Returns the runs with `spike`, 1 where the loss is part of one, if asked."""
    return runs.derived(spike=_spikes) if SPIKES in s.probes else runs


def _spikes(run: ArmRuns) -> Series:
    times, losses = run.loss
    marks = []
    for of_seed in losses:
        detector = SpikeDetector()
        pairs = zip(times, of_seed, strict=True)
        marks.append([int(detector.update(at, loss)) for at, loss in pairs])
    return Series(times, np.array(marks))


def build_probes(
    s: ProbeSettings, plan: Plan, task: Task, sampler: Callable, group: int = 512
) -> list[Probe]:
    """Returns the probes for a run of this plan, on examples without augmentation.

    Numbers of a part of the training set say so: sharpness_of_256.

    Args:
      sampler: the run's own, batch size -> oracle.
      group: examples in a pass of the sharpness.
    """
    makers: dict[str, Callable[[], Probe]] = {
        "sharpness": lambda: _sharpness(s, plan, task, group),
        "ntk": lambda: _ntk(s, task),
        "invariance": lambda: _invariance(s, plan, task, sampler),
    }
    probes = []
    for name, make in makers.items():  # in one order: a checkpoint holds it
        if name in s.probes:
            try:
                probes.append(make())
            except ValueError as error:
                raise UsageError(f"--config.probes={name}: {error}") from None
    return probes


def _sharpness(s: ProbeSettings, plan: Plan, task: Task, group: int) -> Probe:
    examples = _examples(s, task)
    return _labelled(s, measure.sharpness_probe(plan, task.losses, examples, group))


def _ntk(s: ProbeSettings, task: Task) -> Probe:
    inputs, targets = _examples(s, task)
    if len(inputs) > AT_ONCE:
        raise ValueError(
            f"‖K‖ takes {len(inputs)} examples at once; set --config.probe_examples "
            f"to {AT_ONCE} or fewer"
        )
    if task.examples_interact:
        raise ValueError(
            "BatchNorm makes examples interact, and such a net has no kernel; use "
            "another norm, such as group"
        )
    if targets.ndim > 1:
        raise ValueError("needs one target for each example, and text has many")

    probe = measure.ntk_probe(task.apply, inputs)

    def observe(source, state, memory):
        metrics, memory = probe.observe(source, state, memory)
        # The critical rate that it names is that of a squared error.
        return {"ntk_norm": metrics["ntk_norm"]}, memory

    return _labelled(s, probe._replace(observe=observe))


def _invariance(s: ProbeSettings, plan: Plan, task: Task, sampler: Callable) -> Probe:
    # At the rate of half-way: that of step 0 may be zero.
    half = plan.steps // 2
    draw = Draw(jax.random.key(s.seed), jnp.int32(half), half * plan.dt)
    report = measure.intrinsic_report(plan, sampler, _parameters(task), draw)
    print(report, flush=True)
    return measure.invariance_probe(plan, sampler, report.invariant)


def _parameters(task: Task) -> PyTree:
    return task.init(jax.random.key(0))


def _examples(s: ProbeSettings, task: Task) -> Any:
    """Returns the training examples that a probe reads, or the first of them."""
    if isinstance(task.train, data.Stream):
        raise ValueError("needs its examples on the device, and they are streamed")
    if s.probe_examples > task.size:
        raise ValueError(
            f"probe_examples={s.probe_examples} is above the {task.size} there are"
        )
    return jax.tree.map(lambda x: x[: s.probe_examples or None], task.train)


def _labelled(s: ProbeSettings, probe: Probe) -> Probe:
    """Returns the probe, its metrics named after the part of the data they are of."""
    if not s.probe_examples:
        return probe

    return probe.named(lambda name: f"{name}_of_{s.probe_examples}")
