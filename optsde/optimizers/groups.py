"""Optimizers for parts of a net: rates and decays by group, or another family for each.

Each part follows its own rule at the same κ, so that a rescaling is that of its parts.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import optax

from optsde.mesh import whole_shapes
from optsde.optimizers.base import Clock, Optimizer, OptimizerState
from optsde.optimizers.ito import ItoSystem, Limit
from optsde.optimizers.moments import filled
from optsde.optimizers.response import Response
from optsde.optimizers.rules import Power
from optsde.squares import Squares, step_gradient
from optsde.types import PyTree, Scalar, Schedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frozen(Optimizer):
    """The optimizer of parameters that stay as they are: `optax.set_to_zero`."""

    lr: Scalar = 0.0
    moves: ClassVar[bool] = False
    rule = {"lr": Power(0, "nothing moves")}

    def checked(self) -> Self:
        return self

    def direction(self) -> optax.GradientTransformation:
        return optax.set_to_zero()

    def limit(self, keep_signal: bool = False) -> Limit:
        def still(state, mean, variance, *noise):
            return optax.tree.zeros_like(mean), state

        return Limit(still, still)

    def preconditioner(self, state, params):
        return filled(params, 1)


@dataclasses.dataclass(frozen=True)
class Groups:
    """An optimizer for each group of parameters, in place of one for all.

    It is `optax.partition` with a rule and an SDE. A schedule multiplies the lr of all
    groups alike, and a clip is of the norm of the whole gradient.

    Attributes:
      parts: the optimizer of each group, by name; `Frozen()` where nothing moves. The
        first of those that move, by name, is the one whose lr others are multiples of.
      labels: params -> a tree like them, or a prefix of one, of names of groups.

    >>> import jax.numpy as jnp
    >>> from optsde import SGD
    >>> labels = lambda params: {"body": "slow", "head": "fast"}
    >>> groups = Groups({"slow": SGD(lr=0.1), "fast": SGD(lr=1.0)}, labels)
    >>> transform = groups.transform()
    >>> params = {"body": jnp.ones(2), "head": jnp.ones(1)}
    >>> updates, state = transform.update(params, transform.init(params), params)
    >>> print(updates["body"], updates["head"])
    [-0.1 -0.1] [-1.]
    >>> groups.rescaled(kappa=4).parts["fast"].lr
    4.0
    """

    parts: Mapping[str, Optimizer]
    labels: Callable[[PyTree], PyTree]

    @property
    def lr(self) -> Scalar:
        """Returns the lr of the first group, in whose multiples the others learn."""
        return self._first.lr

    @property
    def noise_exponent(self) -> int:
        return max(part.noise_exponent for part in self._moving.values())

    @property
    def adaptive(self) -> bool:
        return any(part.adaptive for part in self.parts.values())

    @property
    def jumps(self) -> bool:
        return all(part.jumps for part in self._moving.values())

    @property
    def _moving(self) -> dict[str, Optimizer]:
        ordered = {name: self.parts[name] for name in sorted(self.parts)}
        moving = {name: part for name, part in ordered.items() if part.moves}
        return moving or ordered

    @property
    def _first(self) -> Optimizer:
        return next(iter(self._moving.values()))

    def by_group(self) -> Mapping[str, Optimizer]:
        """Returns the optimizer of each group, by name."""
        return self.parts

    def checked(self) -> Self:
        """Returns itself if every part makes sense; else names what does not."""
        if not callable(self.labels):
            raise ValueError(
                f"labels={self.labels}: needs a function of the parameters that gives "
                "a tree of names; of a tree `t` it is `lambda params: t`"
            )
        if not self.parts:
            raise ValueError("parts={}: needs an optimizer for each group")
        for name, part in self.parts.items():
            if not isinstance(part, Optimizer):
                kind = type(part).__name__
                raise ValueError(f"parts[{name!r}] is a {kind}: needs an optimizer")
            try:
                part.checked()
            except ValueError as error:
                raise ValueError(f"group {name!r}: {error}") from None
        return self

    def representative(self) -> Optimizer:
        """Returns the first part, if the others differ in rates and decays alone.

        Where P is divided by the relative lr of a group, as in `preconditioner`, the
        groups then are one optimizer, to measure and to predict.
        """
        alike = dict.fromkeys(("lr", "l2", "weight_decay", "absolute_decay"), 0.0)
        kinds = {
            (jax.tree.structure(part), *map(float, jax.tree.leaves(part)))
            for part in (
                dataclasses.replace(part, **alike) for part in self._moving.values()
            )
        }
        if len(kinds) > 1:
            raise ValueError(
                "the groups differ in more than lr and decay of the weights, and are "
                f"not one optimizer to predict by: {', '.join(map(repr, self.parts))}"
            )
        return self._first

    def single(self) -> Optimizer:
        """Refuses, for what is told of one optimizer of all parameters alone."""
        raise ValueError(
            "this is for one optimizer of all parameters, and the plan has groups: "
            f"{', '.join(map(repr, self.parts))}"
        )

    def times_lr(self, factor: Scalar) -> Self:
        """Returns the groups with every lr multiplied by a factor."""
        return self._each(lambda part: part.times_lr(factor))

    def rescaled(self, kappa: Scalar, memory: str = "linear") -> Self:
        """Returns the groups for κ times the batch, each part by its own rule."""
        return self._each(lambda part: part.rescaled(kappa, memory))

    def checked_start(self) -> Self:
        """Returns itself if every part's SDE has a start; else says what to set."""
        return self._each(lambda part: part.checked_start())

    def decays_weights(self) -> bool:
        """Returns whether weights of any group decay apart from the gradient."""
        return any(part.decays_weights() for part in self.parts.values())

    def average(self) -> Any:
        """Returns the average to evaluate that all groups share, or None."""
        first, *others = [part.average() for part in self._moving.values()]
        return first if all(other == first for other in others) else None

    def micro_batches(self, noise_gain: float = 1.0) -> int | None:
        """Returns how many micro-batches of a draw the parts take the squares of."""
        counts = {part.micro_batches(noise_gain) for part in self.parts.values()}
        counts.discard(None)
        if len(counts) > 1:
            raise ValueError(f"the groups need {counts} micro-batches: choose one")
        return counts.pop() if counts else None

    def preconditioner(self, state: PyTree, params: PyTree) -> PyTree | None:
        """Returns P like `params`, divided by each group's lr in that of the first.

        None if a part has none. `state` is the groups' own.
        """
        found = {}
        for name, theirs in self._split(params).items():
            found[name] = self.parts[name].preconditioner(state[name], theirs)
            if found[name] is None:
                return None
        divisor = self._joined(found, params)
        return jax.tree.map(jnp.divide, divisor, self.relative_lr(params))

    def relative_lr(self, params: PyTree) -> PyTree:
        """Returns a tree like `params`, of lr in multiples of the first group's."""
        return jax.tree.map(
            lambda name: self.parts[name].lr / self.lr, self._labelled(params)
        )

    def pooled(self, squares: jax.Array) -> jax.Array:
        """Returns what v has of one parameter's squares, by the representative."""
        return self.representative().pooled(squares)

    def response(self, state: PyTree = None) -> Response | None:
        """Returns the response of all groups with P fixed, or None if there is none.

        Groups that differ in more than lr and decay are refused: `representative`.
        """
        own = None if state is None else state[next(iter(self._moving))]
        return self.representative().response(own)

    def stability_threshold(self, state: PyTree = None) -> None:
        """Returns None: groups whose decays differ have no one threshold."""

    def intrinsic_rates(self, lr: Scalar | None = None) -> None:
        """Returns None: each group has rates of its own."""

    def transform(
        self,
        schedule: Schedule | None = None,
        dt: float = 1.0,
        boost: Schedule | None = None,
    ) -> optax.GradientTransformation:
        """Returns the optax transform, with one clock and a memory by group."""
        transforms: dict[str, Any] = {
            name: part.transform(schedule, dt, boost)
            for name, part in self.parts.items()
        }

        def init(params: PyTree) -> OptimizerState:
            split = self._split(params)
            starts = {n: t.init(split[n]) for n, t in transforms.items()}
            memory = {name: start.direction for name, start in starts.items()}
            return OptimizerState(Clock.start(dt), memory)

        def update(updates, state, params=None):
            if params is None:
                raise ValueError("update(updates, state, params) needs params")
            grads, theirs = self._split_gradient(updates, params), self._split(params)
            changes, memory = {}, {}
            for name, transform in transforms.items():
                own = OptimizerState(state.clock, state.direction[name])
                changes[name], own = transform.update(grads[name], own, theirs[name])
                memory[name] = own.direction
            state = OptimizerState(state.clock.tick(), memory)
            return self._joined(changes, params), state

        return optax.GradientTransformation(init, update)

    def sde(
        self,
        schedule: Schedule | None = None,
        dt: float = 1.0,
        keep_signal: bool = False,
        *,
        memory: str = "linear",
        boost: Schedule | None = None,
    ) -> ItoSystem:
        """Returns the limit κ → 0 as an Itô system, each group by its optimizer's."""
        systems = {
            name: part.sde(schedule, dt, keep_signal, memory=memory, boost=boost)
            for name, part in self.parts.items()
        }

        def init(params):
            split = self._split(params)
            return {name: system.init(split[name]) for name, system in systems.items()}

        def flow(kind, t, params, state, *trees):
            theirs = [self._split(tree, params) for tree in (params, *trees)]
            moved, memory = {}, {}
            for name, system in systems.items():
                params_, *rest = (tree[name] for tree in theirs)
                ask = getattr(system, kind)
                moved[name], memory[name] = ask(t, params_, state[name], *rest)
            return self._joined(moved, params), memory

        def drift(t, params, state, mean, variance):
            return flow("drift", t, params, state, mean, variance)

        def noise(t, params, state, mean, variance, kick, spare):
            return flow("noise", t, params, state, mean, variance, kick, spare)

        def variation(params, state, mean, kick, h):
            theirs = [self._split(tree, params) for tree in (params, mean, kick)]
            found = optax.tree.zeros_like(state)
            for name, system in systems.items():
                if system.variation is not None:
                    params_, mean_, kick_ = (tree[name] for tree in theirs)
                    found[name] = system.variation(
                        params_, state[name], mean_, kick_, h
                    )
            return found

        squares = any(system.variation is not None for system in systems.values())
        return ItoSystem(init, drift, noise, variation if squares else None)

    def rescale_state(
        self, state: PyTree, kappa: Scalar, new: Any, signal: PyTree = 0.0
    ) -> PyTree:
        """Returns the groups' state for going on as `new` = self.rescaled(κ)."""
        return {
            name: part.rescale_state(state[name], kappa, new.parts[name], signal)
            for name, part in self.parts.items()
        }

    def _each(self, change: Callable[[Optimizer], Optimizer]) -> Self:
        parts = {name: change(part) for name, part in self.parts.items()}
        return dataclasses.replace(self, parts=parts)

    def _labelled(self, params: PyTree) -> PyTree:
        """Returns a tree like the parameters, of names of groups."""
        labels = jax.tree.broadcast(self.labels(whole_shapes(params)), params)
        unknown = set(jax.tree.leaves(labels)) - set(self.parts)
        if unknown:
            raise ValueError(
                f"labels name {', '.join(map(repr, sorted(unknown, key=str)))}; "
                f"the groups are {', '.join(map(repr, self.parts))}"
            )
        return labels

    def _split(self, tree: PyTree, params: PyTree = None) -> dict[str, PyTree]:
        """Returns the tree by group, with nothing where another group is."""
        labels = self._labelled(tree if params is None else params)

        def of(name):
            return jax.tree.map(
                lambda label, x: x if label == name else optax.MaskedNode(),
                labels,
                tree,
            )

        return {name: of(name) for name in self.parts}

    def _split_gradient(self, grads: PyTree, params: PyTree) -> dict[str, PyTree]:
        """Returns the gradient by group, with squares for the parts that take them."""
        if not isinstance(grads, Squares):
            return self._split(grads, params)
        split = [self._split(tree, params) for tree in grads]

        def of(name, part):
            squares = Squares(*(tree[name] for tree in split))
            return squares if part.micro_batches() else step_gradient(squares)

        return {name: of(name, part) for name, part in self.parts.items()}

    def _joined(self, split: Mapping[str, PyTree], params: PyTree) -> PyTree:
        """Returns the tree like `params` that `split` has by group."""
        names = list(split)
        return jax.tree.map(
            lambda label, *each: each[names.index(label)],
            self._labelled(params),
            *split.values(),
        )


jax.tree_util.register_dataclass(
    Frozen,
    data_fields=[field.name for field in dataclasses.fields(Frozen)],
    meta_fields=[],
)
jax.tree_util.register_dataclass(Groups, data_fields=["parts"], meta_fields=["labels"])


def decay_where(mask: PyTree, optimizer: Optimizer) -> Groups:
    """Returns the optimizer with its weight decay on some parameters alone.

    Args:
      mask: a tree of bools like the parameters, or a function of them that gives one,
        as `optax.adamw` takes it. Matrices, without biases and norms, are
        `lambda params: jax.tree.map(lambda x: x.ndim > 1, params)`.
      optimizer: for all parameters, but for its three decays where the mask is False.
    """
    without = dict(l2=0.0, weight_decay=0.0, absolute_decay=0.0)
    rest = dataclasses.replace(optimizer, **without)

    def labels(params):
        chosen = mask(params) if callable(mask) else mask
        return jax.tree.map(lambda x: "decayed" if x else "rest", chosen)

    return Groups({"decayed": optimizer, "rest": rest}, labels)
