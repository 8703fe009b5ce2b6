"""Samplers of examples: how a batch is drawn from data.

A sampler is a function from a batch size to an oracle, so that a rescaled plan needs
nothing else to be changed. They share these options:

- `group`: examples in one call of the model: the micro-batch of gradient accumulation,
  a ghost group of BatchNorm, a block of a penalty. None puts all into one call, which
  devices then share. Where examples interact it must be set, to a number that divides
  every batch: with None the groups grow with the batch, and a rescaled plan trains
  another model.
- `at_once`: groups in one pass, which set the memory; the rest come one after the other
  and their gradients are accumulated, to the mean over all examples of the batch. What
  a rule scales by is that batch, `plan.batch_size`, whatever the groups.
- `augment`: `(key of each, examples) -> examples`, applied to what was drawn.

`data` is a pytree of arrays [n, …], or a `data.Stream` for what does not fit on the
device.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optsde.checks import check_count, check_labels, shown
from optsde.data.resident import arrays_of, source_of
from optsde.gradients.draw import Draw
from optsde.gradients.groups import shares
from optsde.gradients.oracle import Augment, ExampleOracle, Losses, Sampler
from optsde.types import PyTree


def minibatch(
    losses: Losses,
    data: PyTree,
    *,
    among: jax.Array | None = None,
    group: int | None = None,
    at_once: int = 1,
    augment: Augment | None = None,
) -> Sampler:
    """Returns a sampler of batches of independent draws, with replacement.

    For such draws the noise of a κ times larger batch is exactly Σ/κ. With `group` the
    gradient is accumulated over micro-batches of so many examples.
    `among`: the indices of the examples to draw from, if not all, so that replicas with
    training sets of their own share the data.

        >>> losses = lambda x, examples: 0.5 * (x - examples) ** 2
        >>> oracle = minibatch(losses, jnp.array([1.0, 1.0]))(8)
        >>> loss, grad = oracle(jnp.array(3.0), Draw(jax.random.key(0), 0))
        >>> float(loss), float(grad)
        (2.0, 2.0)
    """
    source = _source(losses, data)
    count = len(source if among is None else _among(among, len(source)))

    def sampler(batch_size: int) -> ExampleOracle:
        _check(batch_size, group, at_once)

        def choose(draw: Draw):
            index = jax.random.randint(draw.fresh(), (batch_size,), 0, count)
            return index if among is None else among[index]

        return _oracle(losses, source, choose, batch_size, group, at_once, augment)

    return sampler


def epochs(
    losses: Losses,
    data: PyTree,
    *,
    group: int | None = None,
    at_once: int = 1,
    augment: Augment | None = None,
) -> Sampler:
    """Returns a sampler that goes through a fresh permutation of the data each epoch.

    The examples that do not fill a batch at the end of an epoch are left out of it.
    Each batch size has its own permutations, so a switch in mid-run replays nothing.
    Its steps are not independent: their noise cancels over an epoch, where Σ is that of
    independent draws. `svag`, which would approach no SDE, refuses it.
    """
    source = _source(losses, data)
    count = len(source)

    def sampler(batch_size: int) -> ExampleOracle:
        _check(batch_size, group, at_once)
        per_epoch = count // batch_size
        if per_epoch == 0:
            raise ValueError(f"batch_size={batch_size} is above the {count} examples")

        def choose(draw: Draw):
            epoch, batch = draw.step // per_epoch, draw.step % per_epoch
            key = jax.random.fold_in(jax.random.fold_in(draw.key, per_epoch), epoch)
            order = jax.random.permutation(key, count)
            start = batch * batch_size
            return jax.lax.dynamic_slice_in_dim(order, start, batch_size)

        oracle = _oracle(losses, source, choose, batch_size, group, at_once, augment)
        return dataclasses.replace(oracle, independent=False)

    return sampler


def full_batch(
    losses: Losses,
    data: PyTree,
    group: int | None = 512,
    *,
    at_once: int = 1,
    augment: Augment | None = None,
    shuffle: bool = False,
    running_mean: bool = False,
) -> Callable[..., ExampleOracle]:
    """Returns a sampler of all examples: the exact mean, in groups.

    Its batch size is the number of examples, and may be left out:
    `full_batch(losses, data)()` is the oracle.

    Args:
      losses: of each example.
      data: arrays [n, …] on the device; a stream is refused.
      group: examples in one call of the model; None: all of them.
      at_once: groups in one pass.
      augment: applied to the examples at each step.
      shuffle: put the groups together anew at each step. It matters where examples of
        a group interact, through BatchNorm or a penalty on the group's gradient.
      running_mean: the average by which the published full-batch runs were made until
        January 2023, m ← m + (g_b − m)/n over n groups from m = 0, of total weight
        1 − (1 − 1/n)^n = .633; it leaves out the examples that do not fill a group.
    """
    source = _source(losses, data)
    if source.stream is not None:
        raise ValueError(
            "full_batch needs its data on the device, and was given a Stream; "
            "minibatch and epochs can read one"
        )
    count = used = len(source)
    if running_mean:
        if group is None or group > count:
            raise ValueError(
                f"running_mean needs blocks within the {count} examples, and group was "
                f"{group}"
            )
        used = count - count % group

    def choose(draw: Draw):
        order = jnp.arange(count)
        if shuffle:
            order = jax.random.permutation(draw.fresh(), order)
        return order[:used]

    weights = partial(_running, used) if running_mean else None

    def sampler(batch_size: int | None = None) -> ExampleOracle:
        if batch_size not in (None, count):
            raise ValueError(
                f"batch_size={batch_size}: a full batch is all {count} examples"
            )
        _check(used, group, at_once)
        return _oracle(losses, source, choose, used, group, at_once, augment, weights)

    return sampler


def _source(losses: Losses, data: PyTree) -> Any:
    """Returns the source of batches of `data`, whose arrays must be of one length.

    Losses that say which `labels` they take, as those of a `run.Task` do, are given no
    others: the last of the arrays is that of the labels. Those that the Task has
    `checked` are not read again.
    """
    source = source_of(data)
    labels = getattr(losses, "labels", None)
    arrays = jax.tree.leaves(data) if source.stream is None else arrays_of(source)
    checked = {id(x) for x in getattr(losses, "checked", ())}
    if labels is not None and arrays and id(arrays[-1]) not in checked:
        check_labels("data", arrays[-1], *labels)
    return source


def _among(among: jax.Array, count: int) -> jax.Array:
    """Returns indices of examples; refuses those of none."""
    if isinstance(among, jax.core.Tracer):
        return among
    index = np.asarray(among)
    whole = index.ndim == 1 and index.size > 0 and index.dtype.kind in "iu"
    if not (whole and index.min() >= 0 and index.max() < count):
        raise ValueError(
            f"among={shown(among)}: needs whole numbers from 0 to {count - 1}, one or "
            "more, in one axis"
        )
    return among


def _running(size: int, rows: int) -> np.ndarray:
    """Returns the weight that the running mean m ← m + (g_b − m)/n gives each group."""
    count = size // rows
    return (1 - 1 / count) ** np.arange(count - 1, -1, -1) / count


def _oracle(
    losses, source, choose, size, group, at_once, augment, weights=None
) -> ExampleOracle:
    return ExampleOracle(
        source=source,
        losses=losses,
        choose=choose,
        size=size,
        weights=weights or partial(shares, size),
        group=None if group is None else min(group, size),
        at_once=at_once,
        augment=augment,
    )


def _check(batch_size: int, group: int | None, at_once: int) -> None:
    check_count("batch_size", batch_size)
    check_count("group", 1 if group is None else group)
    check_count("at_once", at_once)
