"""The compiled loop of every run: replicas by devices, steps by chunks of any length.

Replicas are one vmapped leading axis, sharded over the mesh's replica axis; the
gradient of one replica may share its work over the data axis. A chunk is one compiled
loop whose length is an argument, with donated state, so nothing is compiled twice. A
device with one replica runs it without vmap: a single run is an ensemble of one. A CPU
runs many in turn, a few at once, so that what a few need stays in its cache.

Data and all else that a run reads besides its state is an argument of the compiled loop
and no constant in it, also where a function of a member closes over it.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from optsde.checks import shown
from optsde.dynamics.discrete import Dynamics
from optsde.hosts import placed
from optsde.mesh import REPLICA, replicated, run_mesh
from optsde.run.windows import Feed
from optsde.types import PyTree

OVER, EVERYWHERE = PartitionSpec(REPLICA), PartitionSpec()
CACHE = 2**18  # bytes of state that a CPU works on at once; half or twice is as fast
FEWEST = 8  # replicas at once, however large: fewer, and one, are slower


class Engine:
    """Runs `replicas` of a dynamics, or of one that is a function of a member.

    Args:
      dynamics: what each replica runs; with `members`, a function of one of them.
      replicas: how many there are.
      members: hyperparameters or data of each replica, stacked along the leading axis.
      shards: devices that share the work of each replica.
      with_info: whether to add up what the steps tell of themselves (loss, gradient
        norm); it is not computed otherwise.
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
        if not (isinstance(dynamics, Dynamics) or callable(dynamics)):
            raise ValueError(
                f"dynamics={shown(dynamics)}: needs what discrete(plan, sampler, "
                "params) or sde(plan, law, params) returns, or a function of a member"
            )
        if (members is None) != isinstance(dynamics, Dynamics):
            raise ValueError(
                "members go with dynamics that are a function of one member, such as "
                "lambda adam: discrete(replace(plan, optimizer=adam), sampler, params)"
            )
        self.replicas = replicas
        self._check_members(members)
        self.mesh = run_mesh(replicas, shards)
        make: Any = dynamics if members is not None else lambda member: dynamics
        first = make(jax.tree.map(lambda x: x[0], members))
        self.dt, self.paces, self.about = first.dt, first.paces, first.about
        self.with_info = with_info
        self._make = make
        self._first = first
        self.keys: jax.Array | None = None
        """What the replicas began with, unless they go on from a state."""
        self.members = self.spread(members)
        self._feed, self._window = None, None
        if first.stream is not None:
            if members is not None:
                raise ValueError("a stream cannot be read by stacked members")
            self._feed = Feed(first, replicas, self.spread)
            self._window = self.spread(self._feed.blank(replicas))
        self._source = self._hoisted(
            lambda member: () if self._feed else make(member).source
        )
        self._init = self._sharded(
            lambda members, keys: _map(lambda m, k: make(m).init(k), members, keys),
            (OVER, OVER),
        )
        specs = (EVERYWHERE, OVER, OVER, OVER, EVERYWHERE)
        self.chunk = self._sharded(self._chunk, specs, donate_argnums=2)
        self._loop: Any = None
        self.reached: Any = ()
        """An array that is ready when the last chunk is."""

    # ---- placing

    @property
    def everywhere(self) -> NamedSharding:
        """The place of what every device has a copy of."""
        return NamedSharding(self.mesh, EVERYWHERE)

    def spread(self, tree: PyTree) -> PyTree:
        """Places replicas on the mesh; copies of the last make them even."""
        rows = self.mesh.shape[REPLICA]

        def fill(x):
            if missing := -x.shape[0] % rows:
                return jnp.concatenate([x, jnp.repeat(x[-1:], missing, axis=0)])
            return x

        return placed(jax.tree.map(fill, tree), NamedSharding(self.mesh, OVER))

    def kept(self, tree: PyTree) -> PyTree:
        """Returns the replicas asked for, without those that fill up the devices."""
        return jax.tree.map(lambda x: x[: self.replicas], tree)

    def set_members(self, members: PyTree) -> None:
        """Goes on with other hyperparameters of the same shapes; compiles nothing."""
        self._check_members(members)
        self.members = self.spread(members)

    def _check_members(self, members: PyTree) -> None:
        for leaf in jax.tree.leaves(members):
            if np.shape(leaf)[:1] != (self.replicas,):
                plural = "s" if self.replicas > 1 else ""
                raise ValueError(
                    f"members has a leaf of shape {np.shape(leaf)}, and there are "
                    f"{self.replicas} key{plural}: stack every hyperparameter, as in "
                    "jax.vmap(lambda lr: Adam(lr=lr))(lrs)"
                )

    # ---- running

    def init(self, keys: jax.Array) -> PyTree:
        """Returns the states at time 0, one for each key."""
        self.keys = keys
        return self._init(self.members, self.spread(keys))

    @property
    def examples(self) -> PyTree:
        """Returns what the steps read, or the window of a stream that is at hand."""
        return self._first.source if self._feed is None else self._window

    @property
    def labels(self) -> tuple[int, int] | None:
        """Returns the least label and how many classes, where the losses say them."""
        return getattr(getattr(self._first.source, "losses", None), "labels", None)

    def shape_of_one(self, keys: jax.Array) -> PyTree:
        """Returns the shapes of one replica's state at time 0."""
        first = jax.tree.map(lambda x: x[0], self.members)
        return jax.eval_shape(lambda key: self._make(first).init(key), keys[0])

    def zeros(self, state: PyTree) -> PyTree:
        """Returns the zero sums of what steps tell of themselves, `()` without info."""
        given = self.members, self._window
        info = jax.eval_shape(self._info, self._source.arrays, given, state)
        zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), info)
        return placed(zeros, NamedSharding(self.mesh, OVER))

    def arguments(self, state: PyTree, total: PyTree, steps: int) -> tuple:
        """Returns what `chunk` takes to run so many steps."""
        count = replicated(np.int32(steps), self.mesh)
        given = self.members, self._window
        return self._source.arrays, given, state, total, count

    @property
    def waits_for_compiling(self) -> bool:
        """Whether no loop has been compiled yet."""
        return self._loop is None

    def lower(self, state: PyTree) -> jax.stages.Lowered:
        """Returns the loop lowered for a state, of which the shapes are enough."""
        return self.chunk.lower(*self.arguments(state, self.zeros(state), 0))

    def compile(self, lowered: jax.stages.Lowered) -> None:
        """Compiles the loop, of `chunk` lowered for a state."""
        self._loop = lowered.compile()

    def advance(self, state: PyTree, total: PyTree, steps: int):
        """Returns (state, total) `steps` further, and what the steps tell added up.

        The state is given away. Returns before the devices are done.
        """
        if self.waits_for_compiling:
            self.compile(self.lower(state))
        if self._feed is None:
            out = self._loop(*self.arguments(state, total, steps))
            state, total, self.reached = out
            return state, total
        for window, count in self._feed.parts(state, steps):
            self._window = window
            out = self._loop(*self.arguments(state, total, count))
            state, total, self.reached = out
        self._feed.follow(state)
        return state, total

    def each(self, make: Callable[[Any], tuple[Callable, PyTree]]) -> "Each":
        """Returns the compiled map over replicas of a function of stacked arguments.

        `make(member)` is (function, source), called as function(source, *arguments).
        """
        shared = self._hoisted(lambda member: make(member)[1])

        def of_all(arrays, members, stacked):
            def of_one(member, stacked):
                function, source = make(member)
                return function(shared.merged(source, arrays), *stacked)

            if _rows(stacked) > 1:
                both = members, stacked
                return self._all(lambda pair: of_one(*pair), both)(both)
            return _map(of_one, members, stacked)

        run = self._sharded(of_all, (EVERYWHERE, OVER, OVER))
        return Each(run, lambda stacked: (shared.arrays, self.members, stacked))

    def _chunk(self, arrays, given, state, total, count):
        def replica(_, carry):
            given, state, total = carry
            made, source = self._of_replica(given, arrays)
            state, info = made.step(state, source)
            info = info if self.with_info else ()
            return given, state, jax.tree.map(jnp.add, total, info)

        steps = partial(jax.lax.fori_loop, 0, count, replica)
        carry = given, state, total
        if _rows(carry) > 1:
            carry = self._all(steps, carry)(carry)
        else:
            carry = jax.tree.map(lambda x: x[0], carry)
            carry = jax.tree.map(lambda x: x[None], steps(carry))
        _, state, total = carry
        return state, total, count[None]

    def _all(self, function: Callable, stacked: PyTree) -> Callable:
        """Returns a function of many replicas: all at once, or on a CPU some."""
        rows, bytes_ = _rows(stacked), sum(x.nbytes for x in jax.tree.leaves(stacked))
        most = min(rows // FEWEST, bytes_ // CACHE)
        # Of equal size, since a remainder would be compiled besides.
        blocks = max((n for n in range(1, most + 1) if rows % n == 0), default=1)
        if self.mesh.devices.flat[0].platform != "cpu" or blocks == 1:
            return jax.vmap(function)
        return partial(jax.lax.map, function, batch_size=rows // blocks)

    def _info(self, arrays, given, state):
        """Returns the info of one step of all replicas."""

        def of_one(given, state):
            made, source = self._of_replica(given, arrays)
            return made.step(state, source)[1]

        return _map(of_one, given, state) if self.with_info else ()

    def _of_replica(self, given, arrays) -> tuple[Dynamics, PyTree]:
        """Returns a replica's dynamics and what its steps read."""
        member, window = given
        made = self._make(member)
        if self._feed is not None:
            return made, self._feed.oracle.reading(window)
        return made, self._source.merged(made.source, arrays)

    def _hoisted(self, source: Callable[[Any], PyTree]) -> "_Hoisted":
        first = jax.tree.map(lambda x: x[0], self.members)
        leaves: list = []

        def trace(member):
            leaves.extend(jax.tree.leaves(source(member)))

        jax.eval_shape(trace, first)
        shared = [not isinstance(x, jax.core.Tracer) for x in leaves]
        arrays = [x for x, own in zip(leaves, shared, strict=True) if own]
        return _Hoisted(replicated(arrays, self.mesh), tuple(shared))

    def _sharded(self, function: Callable, in_specs, **jit_options):
        """Compiles a function of replicas; rows of devices exchange nothing."""
        mapped = jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=in_specs,
            out_specs=OVER,
            check_vma=False,
        )
        return jax.jit(mapped, **jit_options)


class Each:
    """A function of stacked arguments, mapped over replicas and compiled once."""

    def __init__(self, run: Any, arguments: Callable[[tuple], tuple]):
        self._run, self._arguments = run, arguments

    def lower(self, *stacked: PyTree) -> Any:
        """Returns the map lowered for arguments like these."""
        return self._run.lower(*self._arguments(stacked))

    def shapes(self, *stacked: PyTree) -> PyTree:
        """Returns the shapes of what it returns for arguments like these."""
        return jax.eval_shape(self._run, *self._arguments(stacked))

    def compile(self, *stacked: PyTree) -> None:
        """Compiles for arguments like these, without a call."""
        self._run = self.lower(*stacked).compile()

    def __call__(self, *stacked: PyTree) -> PyTree:
        return self._run(*self._arguments(stacked))


@dataclasses.dataclass(frozen=True)
class _Hoisted:
    """The leaves of a source that are the same for every member, as arguments."""

    arrays: list[jax.Array]
    shared: tuple[bool, ...]  # of each leaf

    def merged(self, source: PyTree, arrays: list[jax.Array]) -> PyTree:
        """Returns the source of a member with the arguments in their places."""
        leaves, structure = jax.tree.flatten(source)
        given = iter(arrays)
        pairs = zip(leaves, self.shared, strict=True)
        return structure.unflatten([next(given) if s else x for x, s in pairs])


def _rows(stacked: PyTree) -> int:
    return jax.tree.leaves(stacked)[0].shape[0]


def _map(function: Callable, *stacked: PyTree) -> PyTree:
    """Maps over the leading axis; where that is 1, calls the function itself."""
    if _rows(stacked) > 1:
        return jax.vmap(function)(*stacked)
    out = function(*jax.tree.map(lambda x: x[0], stacked))
    return jax.tree.map(lambda x: jnp.asarray(x)[None], out)
