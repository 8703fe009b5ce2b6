"""How gradient noise adds up: as √n, or faster because its tails are heavy."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optsde.analysis.statistics import estimate, interval
from optsde.checks import check_count
from optsde.gradients import Draw, Oracle, Use
from optsde.types import PyTree


class Tail(NamedTuple):
    """Sums of n draws grow as n^(1/alpha); the interval is of level 95%."""

    alpha: float
    low: float
    high: float
    used: float  # share of the coordinates looked at that are in it


def tail_index(
    oracle: Oracle,
    params: PyTree,
    draw: Draw,
    group: int = 4,
    sums: int = 8,
    blocks: int = 16,
    coordinates: int = 1024,
) -> Tail:
    """Estimates α in |X_1 + … + X_n| ~ n^(1/α), for n = `sums` terms of `group` draws.

    With α, the noise of a κ times larger batch shrinks as κ^(1/α − 1): the SDE's rule
    needs 2. A term X sums differences of two draws, so it is centred and symmetric.

        1/α = (E log|X_1 + … + X_n| − E log|X|)/log n

    Means over a block and over random coordinates, those that are zero in no term; the
    interval is Student's over the blocks. It takes 2·group·sums·blocks gradients.
    Where the variance is finite it tends to 2 with `group`, as terms become Gaussian:
    a single draw (group=1) that is peaked or skewed looks heavy-tailed.
    """
    check_count("sums", sums, least=2)
    check_count("blocks", blocks, least=2)
    check_count("group", group)
    check_count("coordinates", coordinates)
    inverse, used = _inverse(oracle, params, draw, group, sums, blocks, coordinates)
    if not float(used) > 0:
        raise ValueError(
            "every coordinate looked at is zero in some term: raise coordinates or "
            "group"
        )
    value, low, high = interval(estimate(np.asarray(inverse)))
    upper = 1 / low if low > 0 else np.inf
    return Tail(1 / value, 1 / high, upper, float(used))


@partial(jax.jit, static_argnums=(3, 4, 5, 6))
def _inverse(oracle, params, draw, group, sums, blocks, coordinates):
    """Returns 1/α in each block, and the share of the coordinates used."""
    key = draw.stream(Use.TAIL_INDEX).fresh()
    size = sum(x.size for x in jax.tree.leaves(params))
    picked = jax.random.randint(jax.random.fold_in(key, 0), (coordinates,), 0, size)

    def some(number):
        one = draw._replace(key=jax.random.fold_in(key, number))
        grads = oracle(params, one)[1]
        return jax.flatten_util.ravel_pytree(grads)[0][picked]

    def term(_, number):
        def add(total, number):
            return total + some(number) - some(number + 1), None

        numbers = number + 2 * jnp.arange(group)
        return None, jax.lax.scan(add, jnp.zeros(coordinates), numbers)[0]

    numbers = 1 + 2 * group * jnp.arange(sums * blocks)
    x = jax.lax.scan(term, None, numbers)[1].reshape(blocks, sums, -1)
    y = x.sum(1)
    fine = jnp.all(x != 0, axis=(0, 1)) & jnp.all(y != 0, axis=0)
    one, many = (jnp.log(jnp.abs(jnp.where(fine, z, 1))) for z in (x, y))
    count = jnp.maximum(fine.sum(), 1)
    gain = (many - one.mean(1)).sum(-1) / count
    return gain / jnp.log(float(sums)), fine.mean()
