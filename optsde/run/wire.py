"""Bytes that the devices of a replica exchange in a step, counted without running it.

The step is traced for any number of devices, which need not be there. What counts are
its collectives with the shapes that they have, each as often as it is done.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.extend.core import Jaxpr, jaxprs_in_params
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from optsde.dynamics.discrete import Dynamics
from optsde.mesh import DATA, REPLICA, SplitRule
from optsde.run.engine import Layout
from optsde.types import PyTree

REDUCE, GATHER, SCATTER = "all-reduce", "all-gather", "reduce-scatter"
PRIMITIVES = {
    "psum": REDUCE,
    "psum_invariant": REDUCE,
    "all_gather": GATHER,
    "reduce_scatter": SCATTER,
}


class Exchange(NamedTuple):
    """What the devices of one replica exchange in a step.

    `whole` has by collective the bytes of the arrays that it makes, or sums, as they
    are on all devices together.
    """

    whole: dict[str, int]
    devices: int

    @property
    def sent(self) -> float:
        """The bytes that each device sends, and receives, where they form a ring.

        Those of an array n − 1 times in n for a gather or a scatter, and twice that for
        an all-reduce, which is one after the other.
        """
        passes = sum(2 * x if k == REDUCE else x for k, x in self.whole.items())
        return passes * (self.devices - 1) / self.devices


def exchange(
    dynamics: Dynamics, devices: int, sharded: SplitRule | None = None
) -> Exchange:
    """Returns what the devices that share each replica exchange in a step.

    A compiler may do with less: it may keep what it gathered, and then needs it once.

    Args:
      dynamics: such as `discrete(plan, sampler, params)`.
      devices: those that share a replica.
      sharded: how parameters are split over them.
    """
    return traced(dynamics, devices, sharded).exchange


class Program(NamedTuple):
    """What each device does in a step, with the shapes of its own parts."""

    jaxpr: Jaxpr
    states: int  # how many of its outputs, from the first, are the new state
    devices: int

    @property
    def exchange(self) -> Exchange:
        """What the devices exchange in it."""
        whole = dict.fromkeys((REDUCE, GATHER, SCATTER), 0)
        for name, size, times in _collectives(self.jaxpr, 1):
            whole[name] += size * times
        return Exchange(whole, self.devices)


def traced(
    dynamics: Dynamics, devices: int, sharded: SplitRule | None = None
) -> Program:
    """Returns the program of a step on so many devices, which need not be there."""
    if dynamics.stream is not None:
        raise ValueError(
            "a Stream's step is not counted: give the sampler a data.Resident of its "
            "arrays' shapes, as jax.ShapeDtypeStruct(shape, dtype), in its place"
        )
    layout = Layout.of(dynamics, sharded, devices)

    def step(state: PyTree, source: PyTree):
        state, info = dynamics.step(layout.inside(state), source)
        return layout.outside(state), info

    everywhere = PartitionSpec()
    specs = jax.tree.map(
        lambda spec: PartitionSpec(*spec[1:]),  # of one replica
        layout.specs,
        is_leaf=lambda x: isinstance(x, PartitionSpec),
    )
    mapped = jax.shard_map(
        step,
        mesh=AbstractMesh((1, devices), (REPLICA, DATA), (AxisType.Auto,) * 2),
        in_specs=(specs, everywhere),
        out_specs=(specs, everywhere),
        check_vma=False,
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(dynamics.init, key)
    everything = jax.make_jaxpr(mapped)(state, dynamics.source).jaxpr
    (mine,) = [x for x in everything.eqns if x.primitive.name == "shard_map"]
    return Program(mine.params["jaxpr"], len(jax.tree.leaves(state)), devices)


def _collectives(jaxpr: Jaxpr, times: int) -> Iterator[tuple[str, int, int]]:
    """Yields the collectives of a program: name, bytes, and how often it is done."""
    for eqn in jaxpr.eqns:
        name = PRIMITIVES.get(eqn.primitive.name)
        if name is not None:
            arrays = eqn.outvars if name == GATHER else eqn.invars
            avals: Any = [x.aval for x in arrays]
            yield name, sum(x.size * x.dtype.itemsize for x in avals), times
        inside = times * eqn.params.get("length", 1)  # of a scan
        for inner in jaxprs_in_params(eqn.params):
            yield from _collectives(inner, inside)
