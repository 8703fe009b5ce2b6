"""A check that the examples of a call do not interact, as they do through BatchNorm.

The exact noise of a batch is Σ_i ξ_i (g_i − ḡ)/√(nB), with g_i the gradient of example
i whatever stands beside it. Where examples interact there is no such g_i.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from optsde.gradients.oracle import Losses
from optsde.types import PyTree

ROWS = 4


def interaction_check(losses: Losses, data: PyTree) -> Callable[[PyTree], None]:
    """Returns `check(params)`, which refuses losses of examples that interact.

    It asks at random parameters of the shapes of `params`, which may be traced, whether
    the loss of the first example changes when the others are replaced by copies of it.
    Both are the same program, so that the two agree but for rounding; a change below
    √eps of the loss passes. It costs a forward pass of four examples, once. Examples
    that are traced are taken as they are.
    """
    size = jax.tree.leaves(data)[0].shape[0]
    others = np.linspace(0, size - 1, ROWS).round().astype(int)
    beside, alone = (
        jax.tree.map(lambda x, rows=rows: x[rows], data)
        for rows in (others, np.zeros(ROWS, int))
    )
    traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(data))
    passed = set()

    def check(params: PyTree) -> None:
        leaves, structure = jax.tree.flatten(params)
        shapes = [(jnp.shape(x), jnp.result_type(x)) for x in leaves]
        kind = structure, tuple(shapes)
        if traced or kind in passed:
            return
        point = structure.unflatten([_random(*s, i) for i, s in enumerate(shapes)])
        # Compiled by itself, since this may be called while another function is traced.
        of_each = jax.jit(losses).lower(point, beside).compile()
        first = [np.asarray(of_each(point, x)) for x in (beside, alone)]
        if first[0].shape != (ROWS,):
            raise ValueError(
                f"losses(params, {ROWS} examples) has the shape {first[0].shape}: it "
                f"must be the loss of each, [{ROWS}]"
            )
        a, b = (x[0].astype(np.float64) for x in first)
        rounding = math.sqrt(jnp.finfo(first[0].dtype).eps)
        if abs(a - b) > rounding * max(abs(a), abs(b)):
            raise ValueError(
                "the loss of an example changes with the others in its call, as with "
                "BatchNorm, and this law is of independent examples: use a norm of "
                "each example, such as group"
            )
        passed.add(kind)

    return check


def _random(shape: tuple[int, ...], dtype: jnp.dtype, number: int) -> np.ndarray:
    """Returns parameters for which activations neither vanish nor explode."""
    fan_in = math.prod(shape[:-1]) if len(shape) > 1 else 1
    drawn = np.random.default_rng(number).standard_normal(shape) / math.sqrt(fan_in)
    return np.asarray(drawn, dtype)
