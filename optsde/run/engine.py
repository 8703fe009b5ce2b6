"""The compiled loop of every run: replicas by devices, steps by chunks of any length.

Replicas are one vmapped leading axis, sharded over the mesh's replica axis; the
gradient of one replica may share its work over the data axis. A chunk is one compiled
loop whose length is an argument, with donated state, so nothing is compiled twice. A
device with one replica runs it without vmap: a single run is an ensemble of one. A CPU
runs many in turn, a few at once, so that what a few need stays in its cache.

Data and all else that a run reads besides its state is an argument of the compiled loop
and no constant in it, also where a function of a member closes over it.

The state lies whole on every device of a replica, or by a rule its large leaves are
split over these devices, and a probe gathers those that it reads.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from optsde.checks import shown
from optsde.data.resident import Resident, arrays_of
from optsde.data.stream import Stream
from optsde.dynamics.discrete import Dynamics
from optsde.hosts import check_alike, everywhere, gathered, placed, several
from optsde.mesh import (
    DATA,
    REPLICA,
    SplitRule,
    axes,
    replicated,
    run_mesh,
    split,
    whole,
)
from optsde.run.windows import Feed
from optsde.types import PyTree

OVER, EVERYWHERE = PartitionSpec(REPLICA), PartitionSpec()
CACHE = 2**18  # bytes of state that a CPU works on at once; half or twice is as fast
READ = 2**28  # bytes of an array by which a journal tells a run from others
FEWEST = 8  # replicas at once, however large: fewer, and one, are slower


class Engine:
    """Runs `replicas` of a dynamics, or of one that is a function of a member.

    Args:
      dynamics: what each replica runs; with `members`, a function of one of them.
      replicas: how many there are.
      members: hyperparameters or data of each replica, stacked along the leading axis.
      shards: devices that share the work of each replica.
      sharded: how parameters, and what the state holds like them, are split over these
        devices, such as `mesh.largest_axis`; None: each has all of them.
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
        sharded: SplitRule | None = None,
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
        self.first_member = jax.tree.map(lambda x: x[0], members)
        """The hyperparameters of the first replica."""
        first = make(self.first_member)
        self.dt, self.paces = first.dt, first.paces
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
            self._feed = Feed(first, replicas, self.mesh)
            self._window = self._feed.blank()
        self._source = self._hoisted(
            lambda member: () if self._feed else make(member).source
        )
        self._layout = Layout.of(first, sharded, shards)
        states = self._layout.specs
        self._init = self._initial(states)
        given = OVER, (OVER if self._feed is None else self._feed.specs)
        specs = (EVERYWHERE, given, states, OVER, EVERYWHERE)
        self.chunk = self._sharded(
            self._chunk, specs, (states, OVER, OVER), donate_argnums=2
        )
        self._loop: Any = None
        self.reached: Any = ()
        """An array that is ready when the last chunk is."""

    # ---- placing

    @property
    def everywhere(self) -> NamedSharding:
        """The place of what every device has a copy of."""
        return NamedSharding(self.mesh, EVERYWHERE)

    def spread(self, tree: PyTree, specs: PyTree = OVER) -> PyTree:
        """Places replicas on the mesh; copies of the last make them even."""
        rows = self.mesh.shape[REPLICA]

        def fill(x):
            return _filled(x, missing) if (missing := -x.shape[0] % rows) else x

        tree = jax.tree.map(fill, tree)
        return jax.tree.map(lambda to, x: placed(x, to), self._placing(specs), tree)

    def placed(self, state: PyTree) -> PyTree:
        """Places a stacked state on the mesh, as the steps take it."""
        return self.spread(state, self._layout.specs)

    def result(self, state: PyTree) -> PyTree:
        """Returns a copy for the caller; where nothing is split, every host has all."""
        state = _copied(state, self.replicas)
        return state if self._layout.splits else everywhere(state)

    def kept(self, tree: PyTree) -> PyTree:
        """Returns the replicas asked for, without those that fill up the devices."""
        return jax.tree.map(lambda x: x[: self.replicas], tree)

    def set_members(self, members: PyTree) -> None:
        """Goes on with other hyperparameters of the same shapes; compiles nothing."""
        self._check_members(members)
        self.first_member = jax.tree.map(lambda x: x[0], members)
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
        if several():
            check_alike("keys", gathered(jax.random.key_data(keys)).tolist())
        self.keys = keys
        return self._init(self.members, self.spread(keys))

    @property
    def examples(self) -> PyTree:
        """Returns what the steps read, or the window of a stream that is at hand."""
        return self._first.source if self._feed is None else self._window

    @property
    def about(self) -> dict[str, PyTree]:
        """Returns what tells it from others: words, numbers, and arrays of examples.

        Of what lies in more than READ bytes they are rows spread evenly.
        """
        return {**self._first.about(), "data": _data(self._first.source)}

    @property
    def labels(self) -> tuple[int, int] | None:
        """Returns the least label and how many classes, where the losses say them."""
        return getattr(getattr(self._first.source, "losses", None), "labels", None)

    def shape_of_one(self, keys: jax.Array) -> PyTree:
        """Returns the shapes of one replica's state at time 0."""
        first = self._make(self.first_member)
        return jax.eval_shape(lambda keys: first.init(keys[0]), keys)

    def shapes(self, keys: jax.Array) -> PyTree:
        """Returns the shapes of all replicas' states."""
        rows = self.mesh.shape[REPLICA]
        replicas = self.replicas + -self.replicas % rows
        return jax.tree.map(
            lambda s: jax.ShapeDtypeStruct((replicas, *s.shape), s.dtype),
            self.shape_of_one(keys),
        )

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
        The first of them is the state, of which it gathers what the function reads.
        """
        shared = self._hoisted(lambda member: make(member)[1])

        def of_one(arrays, member, stacked):
            function, source = make(member)
            state, *rest = stacked
            return function(shared.merged(source, arrays), whole(state), *rest)

        def of_all(arrays, members, state, rest):
            stacked = self._layout.inside(state), *rest
            of_replica = partial(of_one, arrays)
            if _rows(stacked) > 1:
                both = members, stacked
                return self._all(lambda pair: of_replica(*pair), both)(both)
            return _map(of_replica, members, stacked)

        run = self._sharded(of_all, (EVERYWHERE, OVER, self._layout.specs, OVER))

        def arguments(state, *rest):
            return shared.arrays, self.members, state, rest

        return Each(run, arguments)

    def _chunk(self, arrays, given, state, total, count):
        state = self._layout.inside(state)

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
        return self._layout.outside(state), total, count[None]

    def _initial(self, states: PyTree) -> Callable:
        """Returns the compiled (members, keys) -> states, on each device its part."""

        def init(members, keys):
            return _map(lambda m, k: self._make(m).init(k), members, keys)

        once = {"compiler_options": _of_one_call(self.mesh)}
        if not self._layout.splits:
            return self._sharded(init, (OVER, OVER), **once)
        return jax.jit(init, out_shardings=self._placing(states), **once)

    def _placing(self, specs: PyTree) -> PyTree:
        return jax.tree.map(
            lambda spec: NamedSharding(self.mesh, spec),
            specs,
            is_leaf=lambda x: isinstance(x, PartitionSpec),
        )

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
        leaves: list = []

        def trace(member):
            leaves.extend(jax.tree.leaves(source(member)))

        jax.eval_shape(trace, self.first_member)
        shared = [not isinstance(x, jax.core.Tracer) for x in leaves]
        arrays = [x for x, own in zip(leaves, shared, strict=True) if own]
        return _Hoisted(replicated(arrays, self.mesh), tuple(shared))

    def _sharded(self, function: Callable, in_specs, out_specs=OVER, **jit_options):
        """Compiles a function of replicas; rows of devices exchange nothing."""
        mapped = jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=in_specs,
            out_specs=out_specs,
            check_vma=False,
        )
        return jax.jit(mapped, **jit_options)


class Each:
    """A function of stacked arguments, mapped over replicas and compiled once."""

    def __init__(self, run: Any, arguments: Callable[..., tuple]):
        self._run, self._arguments = run, arguments

    def lower(self, *stacked: PyTree) -> Any:
        """Returns the map lowered for arguments like these."""
        return self._run.lower(*self._arguments(*stacked))

    def shapes(self, *stacked: PyTree) -> PyTree:
        """Returns the shapes of what it returns for arguments like these."""
        return jax.eval_shape(self._run, *self._arguments(*stacked))

    def compile(self, *stacked: PyTree) -> None:
        """Compiles for arguments like these, without a call."""
        self._run = self.lower(*stacked).compile()

    def __call__(self, *stacked: PyTree) -> PyTree:
        return self._run(*self._arguments(*stacked))


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


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the leaves of a state are split over the devices of a replica, or not."""

    plain: Any = None  # the state's structure
    marked: Any = None  # the same, with a `Shard` about each leaf that is split
    specs: PyTree = OVER  # of stacked states

    @classmethod
    def of(cls, dynamics: Dynamics, rule: SplitRule | None, shards: int) -> "Layout":
        """Returns the layout by which a rule splits a dynamics' parameters."""
        if rule is None:
            return cls()
        if dynamics.start is None:
            raise ValueError(
                "sharded: this dynamics takes its parameters whole, as SDEs do; only "
                "`discrete` steps run on parameters that are split: leave it out"
            )
        key = jax.eval_shape(lambda: jax.random.key(0))
        state = jax.eval_shape(dynamics.init, key)
        params = split(state.params, rule, shards)
        marked = jax.eval_shape(dynamics.start, key, params)
        for leaf, axis in zip(jax.tree.leaves(state), axes(marked), strict=True):
            if axis is not None and leaf.shape[axis] % shards:
                raise ValueError(
                    "sharded: the optimizer is not elementwise, and its state of "
                    f"shape {list(leaf.shape)} cannot be split over {shards} devices "
                    "as its parameter is: leave it out"
                )
        specs = [
            OVER if axis is None else PartitionSpec(REPLICA, *[None] * axis, DATA)
            for axis in axes(marked)
        ]
        plain = jax.tree.structure(state)
        return cls(plain, jax.tree.structure(marked), plain.unflatten(specs))

    @property
    def splits(self) -> bool:
        """Whether there is a rule by which leaves are split."""
        return self.marked is not None

    def inside(self, state: PyTree) -> PyTree:
        """Returns a state of devices' parts with these marked as shards."""
        if not self.splits:
            return state
        return self.marked.unflatten(jax.tree.leaves(state))

    def outside(self, state: PyTree) -> PyTree:
        """Returns a state with the parts themselves in place of marked ones."""
        if not self.splits:
            return state
        return self.plain.unflatten(jax.tree.leaves(state))


def _data(source: PyTree) -> list[Any]:
    """Returns the arrays that steps read, or some of their rows."""
    arrays: list[Any] = []
    for leaf in jax.tree.leaves(source, is_leaf=_is_source):
        arrays += arrays_of(leaf) if _is_source(leaf) else [leaf]
    known = [x for x in arrays if hasattr(x, "dtype")]
    return [x[:: -(-x.nbytes // READ)] if x.ndim and x.size else x for x in known]


def _is_source(x: Any) -> bool:
    return isinstance(x, Resident | Stream)


@partial(jax.jit, static_argnums=1)
def _filled(x: jax.Array, missing: int) -> jax.Array:
    return jnp.concatenate([x, jnp.repeat(x[-1:], missing, axis=0)])


@partial(jax.jit, static_argnums=1)
def _copied(tree: PyTree, rows: int) -> PyTree:
    return jax.tree.map(lambda x: jnp.copy(x[:rows]), tree)


def _of_one_call(mesh: Mesh) -> dict[str, int]:
    """Returns how to compile what runs once: on CPUs in a fifth of the time.

    LLVM takes long over random bits, of which an initial point is made.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    if not on_cpu or jax.config.read("jax_disable_most_optimizations"):
        return {}
    return {"xla_backend_optimization_level": 1}


def _rows(stacked: PyTree) -> int:
    return jax.tree.leaves(stacked)[0].shape[0]


def _map(function: Callable, *stacked: PyTree) -> PyTree:
    """Maps over the leading axis; where that is 1, calls the function itself."""
    if _rows(stacked) > 1:
        return jax.vmap(function)(*stacked)
    out = function(*jax.tree.map(lambda x: x[0], stacked))
    return jax.tree.map(lambda x: jnp.asarray(x)[None], out)
