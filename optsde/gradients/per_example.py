"""Sums over examples that need each example's own gradient, in bounded memory.

The diagonal of Σ needs Σ_i g_i², the noise of the SDE Σ_i w_i g_i with random weights.
`by_blocks` works for any losses, with the gradients of one block in memory at a time.
`by_layers` never forms them: for a dense layer with inputs x_i and output gradients
δ_i, g_i = x_i δ_iᵀ, so the three sums are xᵀδ, (x²)ᵀ(δ²) and xᵀ(w δ).
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import optax

from optsde.checks import check_count, check_rows
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


def by_layers(model: nn.Module, loss: Callable, data: PyTree, block: int = 512):
    """Sums over examples for models of `optsde.models.Dense` layers.

    `data` is (inputs, targets).

    `loss(outputs, targets)` gives the loss of each example. One forward and one
    backward pass yield all three sums.
    """
    layers = layers_of(model, data[0][:1])

    def sums_of_block(params, examples, mask, weights) -> Sums:
        inputs, targets = examples
        weights = jnp.zeros_like(mask) if weights is None else weights

        def total(outputs):
            return mask @ loss(outputs, targets)

        value, pairs = layers(params, inputs, total)
        grad, square, weighted = {}, {}, {}
        for path, layer in _layers(params).items():
            x, d = pairs[path]
            wd = weights[:, None] * d
            grad[path] = _outer(layer, x, d)
            square[path] = _outer(layer, x * x, d * d)
            weighted[path] = _outer(layer, x, wd)
        unflatten = flax.traverse_util.unflatten_dict
        return Sums(value, unflatten(grad), unflatten(square), unflatten(weighted))

    return _over_blocks(sums_of_block, data, block)


LayersOf = Callable[[PyTree, jax.Array, Callable], tuple[jax.Array, dict]]


def layers_of(model: nn.Module, inputs: jax.Array) -> LayersOf:
    """Returns what looks into the layers of a model of `optsde.models.Dense` alone.

    It is a function (params, inputs, scalar) -> (scalar(outputs), pairs). For each
    layer, by its path in the parameters, the pair has its inputs, and the derivatives
    of the scalar by its outputs. A model with other layers is refused.
    """
    shapes = jax.eval_shape(model.init, jax.random.key(0), inputs[:1])
    if reason := _other_layers(model, shapes, inputs[:1]):
        raise ValueError(reason)

    def of_inputs(params, inputs, scalar):
        def total(taps):
            variables = {"params": params, "perturbations": taps}
            outputs, recorded = model.apply(
                variables, inputs, mutable=["intermediates"]
            )
            return scalar(outputs), recorded["intermediates"]

        rows, dtype = len(inputs), jnp.result_type(*jax.tree.leaves(params))
        taps = jax.tree.map(
            lambda s: jnp.zeros((rows, *s.shape[1:]), dtype), shapes["perturbations"]
        )
        (value, recorded), deltas = jax.value_and_grad(total, has_aux=True)(taps)
        pairs = {
            path: (_at(recorded, path)["inputs"][0], _at(deltas, path)["outputs"])
            for path in _layers(params)
        }
        return value, pairs

    return of_inputs


def _outer(layer: dict, x: jax.Array, d: jax.Array) -> dict:
    """Σ_i x_i d_iᵀ for the kernel, Σ_i d_i for the bias where there is one."""
    sums = {"kernel": x.T @ d.astype(x.dtype)}
    if "bias" in layer:
        sums["bias"] = jnp.sum(d, axis=0)
    return optax.tree.cast_like(sums, {name: layer[name] for name in sums})


def _layers(params: PyTree) -> dict[tuple[str, ...], dict]:
    """The dictionaries that hold a layer's own arrays, by their path."""
    layers: dict[tuple[str, ...], dict] = {}
    for path, leaf in flax.traverse_util.flatten_dict(params).items():
        layers.setdefault(path[:-1], {})[path[-1]] = leaf
    return layers


def _at(tree: PyTree, path: tuple[str, ...]) -> PyTree:
    for name in path:
        tree = tree[name]
    return tree


def all_dense(model: nn.Module, inputs: jax.Array) -> bool:
    """Returns whether `by_layers` takes this model, called on inputs like these."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), inputs[:1])
    return not _other_layers(model, shapes, inputs[:1])


def _other_layers(model: nn.Module, shapes: PyTree, inputs: jax.Array) -> str:
    """Returns why `by_layers` cannot take the model; nothing where it can."""
    taps = flax.traverse_util.flatten_dict(shapes.get("perturbations", {}))
    tapped = {path[:-1] for path in taps}
    for path, layer in _layers(shapes["params"]).items():
        if path not in tapped or not set(layer) <= {"kernel", "bias"}:
            return (
                f"by_layers needs every parameter in an optsde.models.Dense layer; "
                f"{'/'.join(path)} is another kind: use by_blocks, which takes any"
            )
    recorded = jax.eval_shape(
        lambda v: model.apply(v, inputs, mutable=["intermediates"])[1], shapes
    )
    for path in tapped:
        calls = _at(recorded["intermediates"], path)["inputs"]
        if len(calls) != 1 or calls[0].ndim != 2:
            return (
                f"by_layers needs each layer called once, on [examples, features]; "
                f"{'/'.join(path)} is not: use by_blocks, which takes any model"
            )
    return ""


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
