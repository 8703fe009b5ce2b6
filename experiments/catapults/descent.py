"""Gradient descent of many nets at once, each on examples of its own.

Seeds are crossed with the arms of a study seed by seed: replica s·A + a is arm a of
seed s. An arm's learning rate may go up and down in cycles.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from experiments.catapults import nets
from optsde import gradients
from optsde.measure import Probe, ntk_probe
from optsde.plans.schedules import exponential_cyclic
from optsde.run import Progress, Result, Run, Series, Task
from optsde.study import require
from optsde.types import PyTree


class Cycle(NamedTuple):
    """Triangles of the learning rate, in cycle c from low to high·growth^c.

    They are factors of a member's lr; the default is a constant rate.
    """

    low: Any = 1.0
    high: Any = 1.0
    growth: Any = 1.0


class Member(NamedTuple):
    """A replica's own settings and data; leaves [replicas, …] where stacked."""

    lr: Any
    examples: Any  # inputs [n, d], targets [n, c]
    start: Any  # parameters
    cycle: Cycle = Cycle()
    held_out: Any = ()  # examples


def members_of(s: nets.NetSettings, task: Task, root: int = 0) -> Member:
    """Returns a member for each seed: its images, its start, its critical rate as lr.

    Args:
      s: how many there are, and of how many images.
      task: whose training images they are drawn from.
      root: of the random keys.
    """
    fine = s.train_size <= task.size
    require(fine, "train_size", s.train_size, f"2 to {task.size} images")
    images: Any = task.train

    def make(seed):
        pick, draw = jax.random.split(jax.random.fold_in(jax.random.key(root), seed))
        chosen = jax.random.permutation(pick, task.size)[: s.train_size]
        inputs, targets = (x[chosen] for x in images)
        start = task.init(draw)
        lr = nets.critical_lr(task.apply, start, inputs)
        return Member(lr, (inputs, targets), start)

    Progress(f"{s.seeds} starts and critical rates").say("compiling")
    return jax.jit(jax.vmap(make))(s.seed + jnp.arange(s.seeds))


def keys_of_draws(s: nets.NetSettings) -> jax.Array:
    """Returns the key of each seed's batches."""
    seeds = s.seed + jnp.arange(s.seeds)
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(3), seed))(seeds)


def repeated(tree: PyTree, times: int) -> PyTree:
    """Returns `times` copies of each replica, one after the other."""
    return jax.tree.map(lambda x: jnp.repeat(x, times, axis=0), tree)


def crossed(members: Member, cycles: Sequence[Cycle]) -> Member:
    """Returns each seed's member with every cycle, seed by seed."""
    seeds = len(members.lr)
    cycle = jax.tree.map(lambda *x: jnp.tile(jnp.array(x), seeds), *cycles)
    return repeated(members, len(cycles))._replace(cycle=cycle)


def by_seed(metrics: Mapping[str, Series], seeds: int) -> dict[str, np.ndarray]:
    """Returns the metrics as arrays [seeds, arms, times]."""
    return {n: x.values.reshape(seeds, -1, len(x.times)) for n, x in metrics.items()}


def begin(
    losses: gradients.Losses,
    members: Member,
    steps: int,
    *,
    period: float | None = 1.0,
    family: Callable[..., optsde.Optimizer] = optsde.SGD,
    probes: Callable[[Member], Sequence[Probe]] = lambda member: (),
    state: PyTree = None,
    batch_size: int | None = None,
    keys: jax.Array | None = None,
) -> Run:
    """Returns the run of all members, whose metrics have the loss before each step.

    Args:
      losses: (params, examples) -> the loss of each example.
      members: stacked.
      steps: the length of the run.
      period: steps of a cycle; None: the rates are constant, and have no cycles.
      family: lr -> optimizer.
      probes: of a member.
      state: to go on from, in place of the members' starts.
      batch_size: of draws with replacement; None: all examples at each step.
      keys: of the draws.
    """
    make = gradients.minibatch if batch_size else gradients.full_batch

    def dynamics(member: Member):
        cycle = exponential_cyclic(period, *member.cycle) if period else None
        plan = optsde.Plan(
            optimizer=family(lr=member.lr),
            batch_size=batch_size or len(member.examples[0]),
            horizon=steps,
            schedule=cycle,
        )
        sampler = make(losses, member.examples, group=None)
        return optsde.discrete(plan, sampler, member.start)

    if keys is None:  # nothing is drawn
        keys = jax.random.split(jax.random.key(0), len(members.lr))
    return Run(dynamics, keys, every=1.0, probes=probes, members=members, state=state)


def run(losses, members: Member, steps: int, label: str = "", **options) -> Result:
    """Runs all members to the end, also where some of them diverge.

    Args:
      losses, members, steps: as for `begin`.
      label: of the progress line.
      **options: those of `begin`.
    """
    progress = Progress(f"{len(members.lr)} runs{label}")
    progress.compiling()
    whole = begin(losses, members, steps, **options)
    return whole.to(steps, progress=progress, stop_at_divergence=False)


def norms(task: Task, steps: int) -> Callable[[Member], Sequence[Probe]]:
    """Returns the probes of ‖K‖ before each step, `ntk_norm`."""

    def probes(member: Member):
        norm = ntk_probe(task.apply, member.examples[0], iterations=3, first=43)
        return [norm.at(range(steps))]

    return probes
