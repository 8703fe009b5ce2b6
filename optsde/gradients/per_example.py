"""Sums over examples that need each example's own gradient, in bounded memory.

The diagonal of Σ needs Σ_i g_i², the noise of the SDE Σ_i w_i g_i with random weights.
`by_blocks` works for any losses, with the gradients of one block in memory at a time.
`by_layers` works for Linen modules. A dense layer that an example passes once, with
inputs x_i and output gradients δ_i, has g_i = x_i δ_iᵀ, which is never formed: its
three sums are xᵀδ, (x²)ᵀ(δ²) and xᵀ(w δ). Where a parameter meets an example at many
positions, as in convolutions and attention, g_i is a sum over these. Its square has no
such form, and g_i is formed, in the backward pass that gives the δ_i too.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.linen.dtypes import promote_dtype
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.extend.core import Literal

from optsde.checks import check_count, check_rows
from optsde.models import net_of
from optsde.models.losses import Loss, of_each
from optsde.types import PyTree


class Sums(NamedTuple):
    """Over all examples i with gradients g_i."""

    loss: jax.Array  # Σ loss_i
    grad: PyTree  # Σ g_i
    square: PyTree  # Σ g_i²
    weighted: PyTree  # Σ w_i g_i


SumsOf = Callable[[PyTree, jax.Array | None], Sums]  # (params, w[n]) -> Sums


def by_blocks(losses: Callable, data: PyTree, block: int = 128) -> SumsOf:
    """Sums over examples of any losses, by vmapped gradients of a block at a time.

    Without weights only loss and grad are computed, in one ordinary pass.
    """

    def sums_of_block(params, examples, mask, weights) -> Sums:
        value, pull = jax.vjp(lambda p: losses(p, examples), params)
        mask = mask.astype(value.dtype)
        (grad,) = pull(mask)
        loss = mask @ value
        if weights is None:
            return Sums(loss, grad, (), ())
        (weighted,) = pull(mask * weights.astype(value.dtype))

        def gradient(example):
            single = jax.tree.map(lambda x: x[None], example)
            return jax.grad(lambda p: losses(p, single)[0])(params)

        each = jax.vmap(gradient)(examples)
        square = jax.tree.map(lambda g: jnp.tensordot(mask, g * g, 1), each)
        return Sums(loss, grad, square, weighted)

    return _over_blocks(sums_of_block, data, block)


def by_layers(
    model: nn.Module, loss: Loss, data: PyTree, block: int | None = None
) -> SumsOf:
    """Sums over examples of a Linen module, from one forward and one backward pass.

    Gradients of examples are formed for its convolutions, attention, norms and all
    others, but not for its dense layers (nn.Dense, at one position of an example).
    BatchNorm, with which an example has no gradient of its own, is refused.

    Args:
      model: called as model(inputs).
      loss: (outputs, targets) -> the loss of each example.
      data: (inputs, targets).
      block: examples at once; by default 128, and 32 where gradients are formed, of
        which those of a block are in memory.
    """
    inputs, _ = data
    params = _params(model, inputs)
    if net_of(model).examples_interact(params, inputs[:1]):
        raise ValueError(
            "BatchNorm makes examples interact, and by_layers adds up gradients of "
            "independent ones: use another norm, such as group"
        )
    dense = _dense_layers(model, params, inputs)
    if block is None:
        block = 32 if _others(params, dense) else 128

    def sums_of_block(params, examples, mask, weights) -> Sums:
        def of_one(example):
            inputs, targets = jax.tree.map(lambda x: x[None], example)

            def loss_of(outputs):
                return of_each(loss, outputs, targets)[0]

            return _derivatives(model, dense, params, inputs, loss_of)

        losses, pairs, formed = jax.vmap(of_one)(examples)
        mask = mask.astype(losses.dtype)
        weights = jnp.zeros_like(mask) if weights is None else mask * weights
        weights = weights.astype(losses.dtype)
        grad, square, weighted = {}, {}, {}
        for path, (x, d) in pairs.items():
            grad |= _outer(path, x, mask[:, None] * d)
            square |= _outer(path, x * x, mask[:, None] * d * d)
            weighted |= _outer(path, x, weights[:, None] * d)
        for path, g in formed.items():
            grad[path], weighted[path] = jnp.tensordot(jnp.stack([mask, weights]), g, 1)
            square[path] = jnp.tensordot(mask, g * g, 1)

        def like_params(sums):
            of_params = {path: sums[path] for path in flatten_dict(params)}
            return optax.tree.cast_like(unflatten_dict(of_params), params)

        return Sums(mask @ losses, *map(like_params, (grad, square, weighted)))

    return _over_blocks(sums_of_block, data, block)


Path = tuple[str, ...]
LayersOf = Callable[[PyTree, jax.Array, Callable], tuple[jax.Array, dict]]


def layers_of(model: nn.Module, inputs: jax.Array) -> LayersOf:
    """Returns what looks into the layers of a Linen module of dense layers alone.

    It is a function (params, inputs, scalar) -> (values, pairs), with the scalar of the
    outputs [1, …] of each example. For each layer, by its path in the parameters, the
    pair has its inputs and the derivatives of these values by its outputs, both
    [examples, features]. A module with other layers is refused.
    """
    params = _params(model, inputs)
    dense = _dense_layers(model, params, inputs)
    if others := _others(params, dense):
        raise ValueError(
            "this needs every parameter in an nn.Dense that is called once, on one "
            f"position of an example, and {'/'.join(min(others))} is not"
        )

    def of_inputs(params, inputs, scalar):
        def of_one(x):
            return _derivatives(model, dense, params, x[None], scalar)

        values, pairs, _ = jax.vmap(of_one)(inputs)
        return values, pairs

    return of_inputs


def _derivatives(model, dense, params, inputs, scalar) -> tuple[jax.Array, dict, dict]:
    """Returns a scalar of one example's outputs, and its derivatives.

    For each dense layer those are the pair of its inputs x and δ, for g = x δᵀ; for
    each of the other parameters g itself.
    """
    others = _others(params, dense)
    flat: dict[Path, Any] = flatten_dict(params)
    fixed = {path: x for path, x in flat.items() if path not in others}

    def value(taps, others):
        given = {}

        def tap(layer, x, y):
            if layer.path not in taps:
                return y
            given[layer.path] = jnp.ravel(x)
            return y + taps[layer.path].reshape(y.shape).astype(y.dtype)

        variables = {"params": unflatten_dict(fixed | others)}
        with _at_dense(tap):
            outputs = model.apply(variables, inputs)
        return scalar(outputs), given

    kernels = {path: fixed[*path, "kernel"] for path in dense}
    taps = {path: jnp.zeros(w.shape[1], w.dtype) for path, w in kernels.items()}
    of_both = jax.value_and_grad(value, argnums=(0, 1), has_aux=True)
    (result, given), (deltas, formed) = of_both(taps, others)
    pairs = {}
    for path, w in kernels.items():
        x = given[path].astype(jnp.result_type(given[path], w))
        pairs[path] = x, deltas[path].astype(x.dtype)
    return result, pairs, formed


def _outer(path: Path, x: jax.Array, d: jax.Array) -> dict[Path, jax.Array]:
    """Returns Σ_i x_i d_iᵀ for a layer's kernel, and Σ_i d_i for a bias."""
    return dict(zip(_own(path), (x.T @ d, jnp.sum(d, axis=0)), strict=True))


def _params(model: nn.Module, inputs: jax.Array) -> PyTree:
    """Returns the shapes of the parameters."""
    return jax.eval_shape(model.init, jax.random.key(0), inputs[:1])["params"]


def _others(params: PyTree, dense: set[Path]) -> dict[Path, Any]:
    """Returns the parameters that are not of these layers, by their path."""
    own = set().union(*map(_own, dense))
    return {path: x for path, x in flatten_dict(params).items() if path not in own}


def _own(path: Path) -> tuple[Path, Path]:
    """Returns the paths of a dense layer's kernel and bias."""
    return (*path, "kernel"), (*path, "bias")


def _dense_layers(model: nn.Module, params: PyTree, inputs: jax.Array) -> set[Path]:
    """Returns the paths of dense layers for which g = x δᵀ for each example.

    Such a layer is called once, on one position, with its parameters as they are given,
    and nothing else reads these: not what the outputs are computed from when those of
    the layer are replaced by others, made of its inputs alone.
    """
    positions: dict[Path, list[int]] = {}

    def outputs(params):
        flat = flatten_dict(params)

        def replace(layer, x, y):
            own = layer.variables["params"].items()
            if any(leaf is not flat.get((*layer.path, name)) for name, leaf in own):
                return y
            positions.setdefault(layer.path, []).append(math.prod(x.shape[:-1]))
            return jnp.zeros_like(y) + jnp.sum(x).astype(y.dtype)

        with _at_dense(replace):
            return model.apply({"params": params}, inputs[:1])

    read = _read(outputs, params)
    once = {path for path, calls in positions.items() if calls == [1]}
    return {path for path in once if read.isdisjoint(_own(path))}


def _read(function: Callable, params: PyTree) -> set[Path]:
    """Returns the paths of the parameters that a function's outputs are made of."""
    program = jax.make_jaxpr(function)(params).jaxpr
    needed = {x for x in program.outvars if not isinstance(x, Literal)}
    for line in reversed(program.eqns):
        if not needed.isdisjoint(line.outvars):
            needed |= {x for x in line.invars if not isinstance(x, Literal)}
    variables = jax.tree.unflatten(jax.tree.structure(params), program.invars)
    return {path for path, x in flatten_dict(variables).items() if x in needed}


_CALL = inspect.unwrap(nn.Dense.__call__)


def _at_dense(change: Callable):
    """Intercepts calls of nn.Dense, whose outputs become change(layer, x, outputs)."""

    def intercept(call, args, kwargs, context):
        outputs, layer = call(*args, **kwargs), context.module
        if context.orig_method.func is not _CALL or layer.is_initializing():
            return outputs
        own = layer.dot_general, layer.dot_general_cls
        if own != (None, None) or layer.promote_dtype is not promote_dtype:
            return outputs
        (x,) = (*args, *kwargs.values())
        return change(layer, x, outputs)

    return nn.intercept_methods(intercept)


def _over_blocks(sums_of_block: Callable, data: PyTree, block: int) -> SumsOf:
    """Accumulate over equal blocks; the rows that fill up the last one count zero."""
    check_count("block", block)
    size = check_rows("data", data)
    count = -(-size // block)
    rows = -(-size // count)

    def blocked(x):
        filled = jnp.concatenate([x, x[: count * rows - size]])
        return filled.reshape(count, rows, *x.shape[1:])

    examples = jax.tree.map(blocked, data)
    mask = blocked(jnp.ones(size)).at[-1, rows - (count * rows - size) :].set(0)

    def sums(params, weights=None) -> Sums:
        split = None if weights is None else blocked(weights)
        if count == 1:
            only = jax.tree.map(lambda x: x[0], (examples, mask, split))
            return sums_of_block(params, *only)

        def add(total, part):
            more = sums_of_block(params, *part)
            return jax.tree.map(jnp.add, total, more), None

        first = jax.tree.map(lambda x: x[0], (examples, mask, split))
        zero = jax.tree.map(
            lambda s: jnp.zeros(s.shape, s.dtype),
            jax.eval_shape(sums_of_block, params, *first),
        )
        return jax.lax.scan(add, zero, (examples, mask, split))[0]

    return sums
