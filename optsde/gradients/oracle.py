"""Oracles: `oracle(params, draw) -> (loss, grads)`, the only source of gradients.

An oracle is a pure function and a pytree of the data that it reads, so that a compiled
step takes the data as an argument. A *sampler* makes one for a batch size.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from optsde import squares
from optsde.checks import check_count
from optsde.data.stream import Stream
from optsde.gradients.draw import Draw, Use
from optsde.gradients.groups import (
    Groups,
    each_group,
    gathered_once,
    gathered_twice,
    grouped,
    places,
    sum_over_groups,
    weighted,
    weighted_sum,
)
from optsde.mesh import data_shards, has_shards, own_shards, whole
from optsde.squares import Squares
from optsde.types import PyTree

Losses = Callable[..., jax.Array]
"""(params, examples) -> the loss of each. Where examples of one call interact, as
through BatchNorm, the function has the attribute `takes_mask` = True and is called as
(params, examples, mask): rows where the mask is False only fill the call up. Where it
draws random numbers, as dropout does, it has `takes_key` = True and is given key=, of
the step and the group, in training alone."""

Augment = Callable[[jax.Array, PyTree], PyTree]  # (key of each, examples) -> examples

LossOfParams = Callable[[PyTree], jax.Array]
GradientOfGroup = Callable[[LossOfParams, PyTree, Any], tuple[jax.Array, PyTree]]
"""(loss of a group, params, time) -> (loss, gradient): a replacement for ∇loss."""


class Oracle:
    """A gradient of a loss: `oracle(params, draw) -> (loss, grads)`.

    Every oracle is a pytree whose leaves are the data that it reads. `FunctionOracle`
    makes one of a function, and `minibatch`, `epochs` and `full_batch` of examples.
    """

    @property
    def independent(self) -> bool:
        """Whether the noise of each step is independent of all other steps' noise."""
        return True

    @property
    def stream(self) -> Stream | None:
        """The stream that batches are read from ahead of use, if there is one."""
        return None

    @property
    def adds(self) -> tuple[Use, ...]:
        """The streams of randomness whose noise it adds to another oracle's."""
        return ()

    def __call__(self, params: PyTree, draw: Draw) -> tuple[jax.Array, PyTree]:
        """Returns the loss of a draw at `params`, and its gradient."""
        raise TypeError(f"{type(self).__name__} does not define __call__(params, draw)")

    def mixed(self, first: float, second: float) -> "Oracle":
        """Returns first·(one draw) + second·(another), of loss and gradient.

        Refused where steps are not `independent`: over an epoch their noise cancels, so
        that SVAG has less and less of it as ℓ grows, and approaches no SDE.
        """
        self._refuse_dependence()

        def mix(oracle, params, draw):
            loss_1, grads_1 = oracle(params, draw.stream(Use.MIX_FIRST))
            loss_2, grads_2 = oracle(params, draw.stream(Use.MIX_SECOND))
            grads = squares.mixed(first, grads_1, second, grads_2)
            return first * loss_1 + second * loss_2, grads

        return self.wrapped(mix)

    def squared(self, count: int) -> "Oracle":
        """Returns the oracle of `count` draws in one, as micro-batches of a step.

        Its gradient is `Squares`: the mean of the draws' gradients, and of their
        squares. Draw j of step k is that of step k·count + j of this oracle, so that
        runs with other numbers of the same micro-batches read the same examples.
        """
        check_count("count", count)

        def draws(oracle, params, draw):
            def add(total, number):
                one = draw._replace(step=draw.step * count + number)
                loss, g = oracle(params, one)
                more = loss, g, jax.tree.map(jnp.square, g)
                return jax.tree.map(jnp.add, total, more), None

            loss, g = jax.eval_shape(oracle, params, draw)
            zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss, g, g))
            total, _ = jax.lax.scan(add, zero, jnp.arange(count))
            loss, mean, square = jax.tree.map(lambda x: x / count, total)
            return loss, Squares(mean, mean, square)

        return self.wrapped(draws, self.adds)

    def wrapped(self, function: Callable, adds: tuple[Use, ...] = ()) -> "Oracle":
        """Returns the oracle function(this oracle, params, draw) -> (loss, grads)."""
        if self.stream is not None:
            raise ValueError(
                "this oracle reads a Stream, which only a minibatch and its signed mix "
                "do: give it arrays on the device"
            )
        return FunctionOracle(function, self, adds, self.independent)

    def _refuse_dependence(self) -> None:
        if not self.independent:
            raise ValueError(
                "epochs draws without replacement, so that the noise of its steps "
                "cancels over an epoch and SVAG would lose it as ell grows: use "
                "minibatch, whose draws are independent"
            )

    def with_gradient(self, of_group: GradientOfGroup) -> "Oracle":
        """Returns an oracle whose gradient is formed group by group."""
        raise ValueError(
            "a penalty on the gradient of a group needs an oracle of examples: "
            "minibatch, epochs or full_batch"
        )


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["source"],
    meta_fields=["function", "noise", "independent"],
)
@dataclasses.dataclass(frozen=True)
class FunctionOracle(Oracle):
    """An oracle that is `function(source, params, draw) -> (loss, grads)`.

    `source` is a pytree of what the function reads besides its arguments.

        >>> oracle = FunctionOracle(lambda source, x, draw: (x**2 / 2, x))
        >>> oracle(3.0, Draw(jax.random.key(0), 0))
        (4.5, 3.0)
    """

    function: Callable[[PyTree, PyTree, Draw], tuple[jax.Array, PyTree]]
    source: PyTree = ()
    noise: tuple[Use, ...] = ()
    independent: bool = True

    @property
    def adds(self) -> tuple[Use, ...]:
        return self.noise

    def __call__(self, params: PyTree, draw: Draw) -> tuple[jax.Array, PyTree]:
        loss, grads = self.function(self.source, whole(params), draw)
        return loss, squares.each(partial(own_shards, like=params), grads)


Sampler: TypeAlias = Callable[[int], Oracle]  # batch size -> oracle


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["source"],
    meta_fields=[
        "losses",
        "choose",
        "size",
        "weights",
        "group",
        "at_once",
        "augment",
        "of_group",
        "uses",
        "gains",
        "independent",
        "micros",
    ],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleOracle(Oracle):
    """The mean loss over the examples that `choose(draw)` names, and its gradient.

    Three things in a row: *draw* their indices, *take* them from the source (resident
    on the device, or a window of a stream), and *average* over groups.

    Args:
      source: `data.Resident`, `data.Stream`, or the window of one that a run feeds.
      losses: `Losses`, of each example.
      choose: draw -> indices [size].
      weights: rows in a group -> the share of each group of a draw.
      group: examples in one call of the model. None: all of them, which then must not
        interact, since devices share them.
      at_once: groups in one pass; the rest one after the other, in the memory of one.
      augment: applied to what was drawn, with a key of each example's own.
      of_group: forms a group's gradient in place of ∇loss, such as with a penalty.
      uses, gains: draws that are mixed; each draw's groups stay among themselves.
      independent: whether `choose` draws each step's examples independently.
      micros: micro-batches of `size` examples in a draw, each a group of its own, whose
        gradients give `Squares`. None: the gradient alone.
    """

    source: Any
    losses: Losses
    choose: Callable[[Draw], jax.Array]
    size: int
    weights: Callable[[int], np.ndarray]
    group: int | None = None
    at_once: int = 1
    augment: Augment | None = None
    of_group: GradientOfGroup | None = None
    uses: tuple[Use, ...] = ()
    gains: tuple[float, ...] = (1.0,)
    independent: bool = True
    micros: int | None = None

    @property
    def stream(self) -> Stream | None:
        return self.source.stream

    @property
    def examples(self) -> int:
        """The number of examples that one step reads."""
        return self.size * (self.micros or 1) * len(self.gains)

    def __call__(self, params: PyTree, draw: Draw) -> tuple[jax.Array, PyTree]:
        rows, at_once = self._split(data_shards())
        data, index = self.source.at(draw.step, self.index(draw))
        share = np.tile(self.weights(rows), self.micros or 1) / (self.micros or 1)
        weights = np.concatenate([gain * share for gain in self.gains])
        groups = grouped(index, rows, weights)
        total = partial(self._total, data, draw)
        if self.micros is not None:
            part: Any = partial(self._squares, total, draw.time)
        elif self.of_group is not None:
            part = weighted(partial(self._gradient, total, draw.time))
        else:
            part = None
        if has_shards(params):
            part = gathered_twice(total) if part is None else gathered_once(part)
        elif part is None:
            part = jax.value_and_grad(total)
        own = self.source.own
        loss, grads = sum_over_groups(part, params, groups, at_once, own)
        if self.micros is not None and not self.uses:
            grads = grads._replace(mean=grads.grad)
        return loss, grads

    def places(self, shards: int) -> np.ndarray:
        """Returns which of a step's examples each device reads, [shards, some]."""
        parts = (self.micros or 1) * len(self.gains)
        return places(parts, self.size, *self._split(shards), shards)

    def _split(self, shards: int) -> tuple[int, int]:
        """Returns the rows of a group, and how many groups are in one pass."""
        if self.micros is not None:
            return self.size, self.at_once
        if self.group is None:
            return -(-self.size // shards), len(self.gains)
        return self.group, self.at_once

    def index(self, draw: Draw) -> jax.Array:
        """Returns the examples of a draw, [draws in it, size]."""
        draws = [draw.stream(use) for use in self.uses] or [draw]
        if self.micros is None:
            return jnp.stack([self.choose(d) for d in draws])
        steps = draw.step * self.micros + jnp.arange(self.micros)

        def choose(draw):
            return jax.vmap(lambda step: self.choose(draw._replace(step=step)))(steps)

        return jnp.concatenate([choose(d) for d in draws])

    def mixed(self, first: float, second: float) -> Oracle:
        """Returns first·(one draw) + second·(another), as one weighted mean."""
        if self.uses:
            return super().mixed(first, second)
        self._refuse_dependence()
        uses = Use.MIX_FIRST, Use.MIX_SECOND
        return dataclasses.replace(self, uses=uses, gains=(first, second))

    def with_gradient(self, of_group: GradientOfGroup) -> "ExampleOracle":
        """Returns an oracle that forms each group's gradient by `of_group`."""
        if self.of_group is not None:
            raise ValueError("an oracle takes one penalty, and this one has it")
        return dataclasses.replace(self, of_group=of_group)

    def squared(self, count: int) -> "ExampleOracle":
        """Returns the oracle of `count` draws in one, in a single pass over groups."""
        check_count("count", count)
        if self.group not in (None, self.size):
            raise ValueError(
                f"group={self.group} splits a micro-batch of {self.size} examples, "
                "whose gradient is squared as a whole: use group=None, or "
                f"micro-batches of {self.group}"
            )
        if self.uses or self.micros is not None:
            raise ValueError(
                "squared() takes an oracle of single draws, before any signed mix"
            )
        return dataclasses.replace(self, micros=count)

    def reading(self, window: Any) -> "ExampleOracle":
        """Returns the oracle of these examples that takes them from a window."""
        return dataclasses.replace(self, source=window)

    def _gradient(self, total, time, params: PyTree, group: Groups):
        """Returns one group's mean loss and its gradient, or what `of_group` makes."""
        only = jax.tree.map(lambda x: x[None], group)._replace(weight=jnp.ones(1))
        if self.of_group is None:
            return jax.value_and_grad(total)(params, only)
        return self.of_group(lambda p: total(p, only), params, time)

    def _squares(self, total, time, params: PyTree, groups: Groups):
        """Returns Σ_b w_b·loss_b, and the `Squares` of micro-batches, which are groups.

        Copies that only fill up a pass have the weight 0. The mean is left out where it
        is the gradient.
        """
        assert self.micros is not None
        each = each_group(partial(self._gradient, total, time), params, groups)
        loss, grad = weighted_sum(groups.weight, each)
        alike = jnp.where(groups.weight == 0, 0, 1 / (self.micros * len(self.gains)))
        square = weighted_sum(alike, jax.tree.map(jnp.square, each[1]))
        mean = weighted_sum(alike, each[1]) if self.uses else ()
        return loss, Squares(grad, mean, square)

    def _total(
        self, data: PyTree, draw: Draw, params: PyTree, groups: Groups
    ) -> jax.Array:
        """Returns Σ_b w_b·(mean loss of group b)."""
        several = groups.index.shape[0] > 1
        over = jax.vmap if several else lambda function, *_: function
        if not several:
            groups = jax.tree.map(lambda x: x[0], groups)
        examples = jax.tree.map(lambda x: x[groups.index], data)
        if self.augment is not None:
            key = draw.stream(Use.AUGMENT).fresh()
            fold = over(jax.vmap(partial(jax.random.fold_in, key)))
            examples = over(self.augment)(fold(groups.slot), examples)
        counted, given, keys = groups.counted, [examples], {}
        if counted is not None and getattr(self.losses, "takes_mask", False):
            given.append(counted)
        if getattr(self.losses, "takes_key", False):
            key = draw.stream(Use.DROPOUT).fresh()
            fold = over(partial(jax.random.fold_in, key))
            keys["key"] = fold(groups.slot[..., 0])  # a group is named by its first row
        each = over(self.losses, (None, *[0] * len(given)))(params, *given, **keys)
        if each.shape != groups.slot.shape:
            shape = list(each.shape[1:] if several else each.shape)
            size = groups.slot.shape[-1]
            raise ValueError(
                f"losses(params, {size} examples) has the shape {shape}: return the "
                f"loss of each, [{size}], without a mean over the batch"
            )
        if counted is None:
            means = jnp.mean(each, axis=-1)
        else:
            sums = jnp.sum(jnp.where(counted, each, 0), axis=-1)
            means = sums / jnp.sum(counted, axis=-1).astype(each.dtype)
        weight: Any = groups.weight.astype(means.dtype)
        return weight @ means if several else weight * means
