"""The compiled loop of all runs: replicas by devices, steps by chunks of any length.

Replicas are one vmapped leading axis, sharded over the mesh's replica axis; the oracle
of one replica may share its work over the data axis. A chunk is one compiled loop whose
length is an argument, with donated state, so nothing is compiled twice. A device with
one replica runs it without vmap, so a single run is an ensemble of one at no cost.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from optsde.dynamics.algorithm import Dynamics
from optsde.dynamics.feed import Feed, is_streamed
from optsde.mesh import REPLICA, replicated, run_mesh
from optsde.types import PyTree

OVER, EVERYWHERE = PartitionSpec(REPLICA), PartitionSpec()


class Engine:
    """Runs `replicas` of a dynamics, or of one that is a function of a member.

    shards: devices that share the work of each replica. with_info: whether to add up
    what the steps say about themselves; it is not computed otherwise.
    """

    def __init__(
        self,
        dynamics: Dynamics | Callable[[Any], Dynamics],
        replicas: int,
        *,
        members: PyTree = None,
        shards: int = 1,
        with_info: bool = False,
    ):
        self.dynamics = dynamics
        self.replicas = replicas
        self.with_info = with_info
        self.mesh = run_mesh(replicas, shards)
        self._feed = None
        if is_streamed(dynamics):
            # The windows of data take the place of members.
            self._feed = Feed(dynamics, replicas, self.spread)
            self.dynamics, members = self._feed.reading, self._feed.blank(replicas)
        first = self._of_member(jax.tree.map(lambda x: x[0], members))
        self.dt = first.dt
        # What members make is made inside the loop, sources and all.
        source = first.source if isinstance(self.dynamics, Dynamics) else None
        self._given = replicated(source, self.mesh), self.spread(members)
        self._init = self.each(lambda member, key: self._of_member(member).init(key))
        self._loop = None
        self._zeros: PyTree = None

    def set_members(self, members: PyTree) -> None:
        """Go on with other hyperparameters of the same shapes; compiles nothing."""
        self._given = self._given[0], self.spread(members)

    def spread(self, tree: PyTree) -> PyTree:
        """Place replicas on the mesh; the last is repeated until they divide evenly."""
        rows = self.mesh.shape[REPLICA]

        def fill(x):
            if missing := -x.shape[0] % rows:
                return jnp.concatenate([x, jnp.repeat(x[-1:], missing, axis=0)])
            return x

        tree = jax.tree.map(fill, tree)
        return jax.device_put(tree, NamedSharding(self.mesh, OVER))

    def kept(self, tree: PyTree) -> PyTree:
        """The replicas asked for, without those that fill up the devices."""
        return jax.tree.map(lambda x: x[: self.replicas], tree)

    def init(self, keys: jax.Array) -> PyTree:
        """The states at time 0, one for each key."""
        return self._init(self._given[1], self.spread(keys))

    def each(self, function: Callable, shared: PyTree = None) -> Callable:
        """The compiled map of a function of one replica over stacked arguments.

        `shared` is for what the function reads besides, such as data: it is given it
        first, and has it as an argument and not as a constant.
        """
        if shared is None:
            return self._sharded(lambda *stacked: _map(function, *stacked), OVER)
        placed = replicated(shared, self.mesh)

        def with_shared(shared, stacked):
            return _map(partial(function, shared), *stacked)

        run = self._sharded(with_shared, (EVERYWHERE, OVER))
        return lambda *stacked: run(placed, stacked)

    def no_info(self, state: PyTree) -> PyTree:
        """Where the sums of `advance` begin."""
        if not self.with_info:
            return ()
        if self._zeros is None:
            zeros = jax.tree.map(
                lambda s: np.zeros(s.shape, s.dtype), self._said(state)
            )
            self._zeros = jax.device_put(zeros, NamedSharding(self.mesh, OVER))
        return self._zeros

    def lower(self, state: PyTree):
        """The loop for states like this one, not yet compiled."""

        def advance(source, members, state, total, count):
            def step(_, carry):
                state, total = carry
                state, info = _map(partial(self._step, source), members, state)
                return state, jax.tree.map(jnp.add, total, info)

            return jax.lax.fori_loop(0, count, step, (state, total))

        specs = (EVERYWHERE, OVER, OVER, OVER, EVERYWHERE)
        loop = self._sharded(advance, specs, donate_argnums=2)
        return loop.lower(*self._given, state, self._said(state), self._count(0))

    def compile(self, state: PyTree) -> None:
        """Compile the loop, once."""
        if self._loop is None:
            self._loop = self.lower(state).compile()

    def advance(
        self, state: PyTree, total: PyTree, steps: int
    ) -> tuple[PyTree, PyTree]:
        """(state, total) `steps` further, with what the steps said added to `total`.

        The state is given away. Returns before the devices are done.
        """
        self.compile(state)
        assert self._loop is not None
        if self._feed is None:
            return self._loop(*self._given, state, total, self._count(steps))
        for window, count in self._feed.parts(state, steps):
            state, total = self._loop(None, window, state, total, self._count(count))
        self._feed.follow(state)
        return state, total

    def _said(self, state: PyTree) -> PyTree:
        """Shapes of the info of one step, with the axis of replicas."""
        source, members = self._given

        def all_steps(members, state):
            return _map(partial(self._step, source), members, state)[1]

        return jax.eval_shape(all_steps, members, state)

    def _of_member(self, member: PyTree) -> Dynamics:
        given = self.dynamics
        return given if isinstance(given, Dynamics) else given(member)

    def _step(self, source: PyTree, member: PyTree, state: PyTree):
        made = self._of_member(member)
        own = source if isinstance(self.dynamics, Dynamics) else made.source
        state, info = made.step(state, own)
        return state, info if self.with_info else ()

    def _count(self, steps: int) -> jax.Array:
        return replicated(jnp.int32(steps), self.mesh)

    def _sharded(self, function: Callable, in_specs, **jit_options):
        """Each row of devices runs its own replicas; rows exchange nothing."""
        mapped = jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=in_specs,
            out_specs=OVER,
            check_vma=False,
        )
        return jax.jit(mapped, **jit_options)


def _map(function: Callable, *stacked: PyTree) -> PyTree:
    """vmap over the leading axis; where that is 1, the function itself."""
    if jax.tree.leaves(stacked)[0].shape[0] > 1:
        return jax.vmap(function)(*stacked)
    out = function(*jax.tree.map(lambda x: x[0], stacked))
    return jax.tree.map(lambda x: x[None], out)
