"""The empirical neural tangent kernel, K = J Jᵀ with J = ∂f/∂θ over n·c outputs.

`apply(params, x)` gives the outputs [n, c], each example's from its input alone. Near
interpolation of L = (s/2) Σ|f − y|² the Hessian is s·JᵀJ, so ‖K‖ sets the critical
learning rate 2/(s‖K‖).
"""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from optsde.checks import check_count, check_rows
from optsde.gradients import layers_of
from optsde.measure.probe import Probe
from optsde.types import PyTree, Scalar

Apply = Callable[[PyTree, jax.Array], jax.Array]

FORMS = {"full": "ik,jl->ikjl", "outputs": "ik,jk->kij", "trace": "ik,jk->ij"}
SWAPS = {"full": (2, 3, 0, 1), "outputs": (0, 2, 1), "trace": (1, 0)}  # i with j
LOSSES = {
    "half_sum": lambda n, c: 1.0,  # ½ Σ|f − y|²
    "half_mean": lambda n, c: 1 / n,  # the mean of models.squared_error
    "mean": lambda n, c: 2 / n,  # (1/n) Σ|f − y|²
    "mean_over_outputs": lambda n, c: 2 / (n * c),  # jnp.mean((f − y)**2)
}
"""The s of L = (s/2) Σ|f − y|² for each way of writing the loss."""


def kernel(
    apply: Apply, params: PyTree, x: jax.Array, form: str = "full", block: int = 32
) -> jax.Array:
    """Returns the kernel K exactly, in the type of the parameters.

    form: "full" [n, c, n, c]; "outputs" [c, n, n], its diagonal blocks; "trace" [n, n],
    their sum over outputs. Besides K it takes the memory of the jacobians of two blocks
    of examples, 2·block·c numbers for each parameter.
    """
    _check_form(form)
    if block < 1:
        raise ValueError(f"block={block} must be at least 1")
    n = x.shape[0]
    rows = min(block, n)
    count = -(-n // rows)
    filled = jnp.concatenate([x, jnp.repeat(x[:1], count * rows - n, axis=0)])
    blocks = filled.reshape(count, rows, *x.shape[1:])

    def jacobian(examples):
        def of_one(example):
            return jax.jacrev(lambda p: apply(p, example[None])[0])(params)

        return jax.vmap(of_one)(examples)

    def of_pair(pair):
        left, right = (jacobian(blocks[number]) for number in pair)
        return _product(left, right, form)

    above = np.triu_indices(count)  # K is symmetric
    parts = jax.lax.map(of_pair, tuple(map(jnp.asarray, above)))
    swapped = parts.transpose(0, *(1 + x for x in SWAPS[form]))
    whole = jnp.zeros((count, count, *parts.shape[1:]), parts.dtype)
    whole = whole.at[above].set(parts).at[above[::-1]].set(swapped)
    return _joined(whole, form, n)


def kernel_by_layers(
    model: nn.Module, params: PyTree, x: jax.Array, form: str = "full"
) -> jax.Array:
    """Returns the kernel K of a model of dense layers (nn.Dense), as `kernel`.

    No jacobian is formed: with the inputs x_i of a layer, and the derivatives δ_i of
    the outputs by the layer's own, its part of K is (x_i·x_j + 1)(δ_i·δ_j), without the
    1 if it has no bias. It costs a backward pass for each output. Other models are
    refused.
    """
    _check_form(form)
    layers = layers_of(model, x)
    outputs = jax.eval_shape(lambda p: model.apply({"params": p}, x), params).shape[1]

    def of_output(direction):
        _, pairs = layers(params, x, lambda y: jnp.sum(y @ direction))
        given = {path: inputs for path, (inputs, _) in pairs.items()}
        return given, {path: deltas for path, (_, deltas) in pairs.items()}

    units = jnp.eye(outputs, dtype=jnp.result_type(*jax.tree.leaves(params)))
    given, deltas = jax.vmap(of_output, out_axes=(None, 1))(units)
    left, _, right = FORMS[form].partition("->")
    one, two = left.split(",")

    def part(path):
        biased = "bias" in functools.reduce(operator.getitem, path, params)
        alike = given[path] @ given[path].T + biased
        bent = jnp.einsum(f"{one}p,{two}p->{right}", deltas[path], deltas[path])
        return jnp.einsum(f"ij,{right}->{right}", alike, bent)

    return functools.reduce(jnp.add, map(part, given))


def exact_kernel(
    apply: Apply, params: PyTree, x, form: str = "full", block: int = 32
) -> np.ndarray:
    """Returns `kernel` in float64, whatever jax is set to, on the host."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda p: jnp.asarray(np.asarray(p), float), (params, x))
        found = jax.jit(kernel, static_argnums=(0, 3, 4))(apply, *wide, form, block)
        return np.asarray(found)


def norm(
    apply: Apply,
    params: PyTree,
    x: jax.Array,
    vector: jax.Array | None = None,
    iterations: Scalar = 100,
) -> tuple[jax.Array, jax.Array]:
    """Returns (‖K‖, its eigenvector [n, c]) by power iteration, without forming K.

    An iteration is one vjp and one jvp. The value comes from below, with an error that
    falls as (λ₂/λ₁)^(2·iterations): with several outputs the two may be close. From the
    `vector` of the last call few are enough after some steps of training; without one
    it begins at a fixed random vector.
    """
    outputs, push = jax.linearize(lambda p: apply(p, x), params)
    pull = jax.linear_transpose(push, params)
    if vector is None:
        vector = _random_like(outputs)

    def iterate(_, carry):
        _value, u = carry
        image = push(*pull(u))
        return jnp.sum(u * image), _unit(image)

    start = jnp.zeros((), outputs.dtype), _unit(vector)
    return jax.lax.fori_loop(0, iterations, iterate, start)


def critical_lr(
    norm: Scalar, examples: int, outputs: int = 1, loss: str = "half_mean"
) -> Scalar:
    """The learning rate 2/(s‖K‖) of gradient descent above which the loss spikes.

    >>> critical_lr(norm=50.0, examples=100, loss="mean")  # n/‖K‖
    2.0
    """
    _check_loss(loss)
    return 2 / (LOSSES[loss](examples, outputs) * norm)


def _check_loss(loss: str) -> None:
    if loss not in LOSSES:
        raise ValueError(f"loss={loss!r} is none of {', '.join(LOSSES)}")


class Spectrum(NamedTuple):
    eigenvalues: np.ndarray  # float64, falling
    norm: float
    least: float
    condition: float  # norm/least; infinite where least is lost in rounding
    effective_rank: float  # (Σλ)²/Σλ², between 1 and their number


def spectrum(kernel) -> Spectrum:
    """The eigenvalues of K, [n, c, n, c] or [n, n], in float64 on the host.

    Those of a kernel in float32 are good to about 1e-7‖K‖: for a condition number above
    1e5 take `exact_kernel`.
    """
    matrix = _square(kernel)
    eigenvalues = np.linalg.eigvalsh(matrix)[::-1]
    top, least = float(eigenvalues[0]), float(eigenvalues[-1])
    resolved = least > len(eigenvalues) * np.finfo(np.float64).eps * top
    return Spectrum(
        eigenvalues,
        norm=top,
        least=least,
        condition=top / least if resolved else np.inf,
        effective_rank=float(eigenvalues.sum() ** 2 / np.sum(eigenvalues**2)),
    )


def target_alignment(kernel, targets) -> float:
    """Returns yᵀKy/(‖K‖_F |y|²): 1 where K is y yᵀ (Cristianini et al. 2001).

    K [n, c, n, c] or, for each output alike, [n, n]; targets [n, c].
    """
    y = np.asarray(targets, np.float64)
    matrix = _square(kernel)
    y = y.reshape(matrix.shape[0], -1)
    return float(np.sum(y * (matrix @ y)) / (np.linalg.norm(matrix) * np.sum(y**2)))


class ProbeMemory(NamedTuple):
    vector: jax.Array
    count: jax.Array  # int32, of measurements


def ntk_probe(
    apply: Apply,
    x: jax.Array,
    loss: str = "half_mean",
    iterations: int = 5,
    first: int = 100,
) -> Probe:
    """Returns the probe of ‖K‖ on the examples x and of their critical learning rate.

    Metrics: ntk_norm, ntk_critical_lr. Each measurement goes on from the eigenvector of
    the last one with `iterations`; the first takes `first`.
    """

    check_count("iterations", iterations)
    check_count("first", first)
    check_rows("x", x)
    _check_loss(loss)

    def observe(x, state, memory: ProbeMemory):
        turns = jnp.where(memory.count == 0, first, iterations)
        value, vector = norm(apply, state.params, x, memory.vector, turns)
        examples, outputs = vector.shape
        critical = jnp.asarray(critical_lr(value, examples, outputs, loss))
        metrics = {"ntk_norm": value, "ntk_critical_lr": critical}
        return metrics, ProbeMemory(vector, memory.count + 1)

    def init(state):
        shape = jax.eval_shape(apply, state.params, x)
        return ProbeMemory(_random_like(shape), jnp.int32(0))

    return Probe(observe, init, x)


def _check_form(form: str) -> None:
    if form not in FORMS:
        raise ValueError(f"form={form!r} is none of {', '.join(FORMS)}")


def _product(left: PyTree, right: PyTree, form: str) -> jax.Array:
    """Returns J_a J_bᵀ for two blocks, leaf by leaf."""
    inputs, outputs = FORMS[form].split("->")
    one, two = inputs.split(",")

    def of_leaf(a, b):
        a, b = (j.reshape(*j.shape[:2], -1) for j in (a, b))
        return jnp.einsum(f"{one}p,{two}p->{outputs}", a, b)

    products = jax.tree.map(of_leaf, left, right)
    return functools.reduce(jnp.add, jax.tree.leaves(products))


def _joined(parts: jax.Array, form: str, n: int) -> jax.Array:
    """Puts blocks [a, b, …] in place, without the rows that filled the last one up."""
    if form == "full":
        a, b, i, k, j, m = parts.shape
        whole = parts.transpose(0, 2, 3, 1, 4, 5).reshape(a * i, k, b * j, m)
        return whole[:n, :, :n]
    a, b, *_, i, j = parts.shape
    whole = jnp.moveaxis(jnp.moveaxis(parts, 0, -3), 0, -2)
    return whole.reshape(*parts.shape[2:-2], a * i, b * j)[..., :n, :n]


def _square(kernel) -> np.ndarray:
    kernel = np.asarray(kernel, np.float64)
    if kernel.ndim == 4:
        size = kernel.shape[0] * kernel.shape[1]
        return kernel.reshape(size, size)
    if kernel.ndim != 2:
        raise ValueError(
            f"a kernel of shape {kernel.shape}: needs [n, c, n, c] or [n, n]; of the "
            "form 'outputs' take one output"
        )
    return kernel


def _random_like(outputs) -> jax.Array:
    return jax.random.normal(jax.random.key(0), outputs.shape, outputs.dtype)


def _unit(u: jax.Array) -> jax.Array:
    return u / jnp.maximum(jnp.linalg.norm(u), jnp.finfo(u.dtype).tiny)
