"""Gradient noise: ‖ḡ‖² and Tr Σ of one batch, unbiased and with their errors.

The means of two different blocks of draws are independent, so that their product is
unbiased for ‖ḡ‖² (the signal G), and E‖g‖² − G is Tr Σ (the noise N). All of it, and
its error, follows from the products of the block means, kept for each leaf.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optsde.checks import ABOVE_0, check_count, check_number
from optsde.data.dataset import Array
from optsde.gradients import Draw, Oracle, Sampler, Use, signed_mix
from optsde.measure.probe import Probe, Times, probe
from optsde.optimizers.base import multiplied
from optsde.plans.plan import Plan
from optsde.types import PyTree

KAPPAS = (1, 4, 16)


class Levels(NamedTuple):
    """Signal and noise of one batch's gradient, with their standard errors."""

    signal: jax.Array  # ‖ḡ‖²
    signal_se: jax.Array
    noise: jax.Array  # Tr Σ
    noise_se: jax.Array
    ratio: jax.Array  # signal/noise
    ratio_se: jax.Array


class Products(NamedTuple):
    """Products of block means: all that signal, noise and their errors need."""

    means: PyTree  # leaves [..., blocks, blocks], products of block means
    squares: PyTree  # leaves [..., blocks], mean ‖g‖² in a block


class Counts(NamedTuple):
    """Numbers of coordinates in each leaf: with a gradient, and ruled by noise."""

    alive: PyTree  # leaves [...], those with any gradient
    dominated: PyTree  # leaves [..., kappas], those of them where noise dominates


class Descent(NamedTuple):
    """The descent Σ ḡ_i²/√(E g_i²) of each leaf, and what of it is left at κ.

    It is that of a step which is divided by the root of the squares that it averages.
    """

    base: PyTree  # leaves [...]
    slowed: PyTree  # leaves [..., kappas], each coordinate by its own signal in v


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["plain", "weighted", "counts", "descent"],
    meta_fields=["kappas"],
)
@dataclasses.dataclass(frozen=True)
class Noise:
    """A measurement of gradient noise, or many stacked along leading axes."""

    plain: Products
    weighted: Products
    counts: Counts
    descent: Descent
    kappas: tuple[float, ...]

    def groups(self, weighted: bool = False) -> PyTree:
        """Returns the levels of each leaf of the parameters."""
        products = self.weighted if weighted else self.plain
        return jax.tree.map(partial(_levels, pool=False), *products)

    def total(self, weighted: bool = False, pool: bool = False) -> Levels:
        """Returns the levels of all parameters together.

        pool: the mean over all stacked measurements, and the ratio of the means, which
        is steadier than a mean of ratios.
        """
        products = self.weighted if weighted else self.plain
        means, squares = map(_sum, products)
        return _levels(means, squares, pool)

    def dominated(self) -> jax.Array:
        """Returns the share of the coordinates with κ ḡ_i² < Σ_ii, [..., kappas].

        An estimate of ḡ_i²/Σ_ii has an error of about √2/draws, so take draws ≥ 4κ:
        with fewer, coordinates without signal are counted as having some.
        """
        alive, dominated = map(_sum, self.counts)
        return dominated / alive[..., None]


def gradient_noise(
    oracle: Oracle,
    params: PyTree,
    draw: Draw,
    draws: int = 64,
    blocks: int = 16,
    weight: PyTree | None = None,
    kappas: tuple[float, ...] = KAPPAS,
    pooled: Callable[[jax.Array], jax.Array] = lambda squares: squares,
) -> Noise:
    """Measures signal and noise of one batch of the oracle, by `draws` gradients.

    weight: like params; the weighted levels are Σ w_i ḡ_i² and Σ w_i Σ_ii.
    pooled: what a step divides by of one parameter's squares, as `Optimizer.pooled`;
    the `descent` is that of such steps.
    Each gradient has a key of its own, which the run never uses: the draws are
    independent also where the oracle goes through epochs without replacement.
    Memory is that of `blocks` gradients and a few more. Where noise dominates, the
    errors of one measurement are too large, since a variance has a floor: by 1.2 to
    1.35, the more the fewer directions the noise has. Those of pooled ones are not.
    """
    _check_draws(draws, blocks, kappas)
    key, size = draw.stream(Use.GRADIENT_NOISE).fresh(), draws // blocks
    weight = jax.tree.map(jnp.ones_like, params) if weight is None else weight

    def gradient(number):
        one = draw._replace(key=jax.random.fold_in(key, number))
        return jax.tree.map(_wide, oracle(params, one)[1])

    def add(carry, number):
        _total, _squares, _sizes, _weighted = carry
        grads = gradient(number)
        square = jax.tree.map(jnp.square, grads)
        plain = jax.tree.map(jnp.sum, square)
        more = jax.tree.map(lambda w, s: jnp.sum(w * s), weight, square)
        new = (grads, square, plain, more)
        return jax.tree.map(jnp.add, carry, new), None

    def block(squares, first):
        numbers = first + jnp.arange(size)
        start = (zeros, squares, nothing, nothing)
        (total, squares, *sizes), _ = jax.lax.scan(add, start, numbers)
        mean, *sizes = jax.tree.map(lambda x: x / size, (total, *sizes))
        return squares, (mean, *sizes)

    zeros = jax.tree.map(lambda x: jnp.zeros_like(_wide(x)), params)
    nothing = jax.tree.map(lambda x: jnp.zeros((), x.dtype), zeros)
    firsts = jnp.arange(0, draws, size)
    squares, (means, plain, weighted) = jax.lax.scan(block, zeros, firsts)
    ones = jax.tree.map(jnp.ones_like, zeros)
    return Noise(
        plain=Products(jax.tree.map(_products, means, ones), plain),
        weighted=Products(jax.tree.map(_products, means, weight), weighted),
        counts=_counts(means, squares, size, kappas),
        descent=_descent(means, squares, size, kappas, pooled),
        kappas=tuple(kappas),
    )


def noise_probe(
    plan: Plan,
    sampler: Sampler,
    draws: int = 64,
    blocks: int = 16,
    times: Times = None,
    kappas: tuple[float, ...] = KAPPAS,
) -> Probe:
    """Returns the probe of the gradient's signal and noise: a `Noise`, as "noise".

    The weight is 1/P, in which the preconditioned step is steepest descent: the loss
    that noise keeps up is lr/4·(G + N) in it. Before the first step P holds nothing
    yet; measure from some steps on.
    """
    _check_draws(draws, blocks, kappas)
    if plan.optimizer.response() is None:
        raise ValueError(
            f"{type(plan.optimizer).__name__} has no preconditioner to weigh noise by; "
            "gradient_noise measures it without"
        )

    def observe(oracle, state) -> dict:
        direction = state.optimizer.direction
        divisor = plan.optimizer.preconditioner(direction, state.params)
        weight = jax.tree.map(lambda p: 1 / p, divisor)
        draw = Draw(state.key, state.step, state.time)
        noise = gradient_noise(
            oracle,
            state.params,
            draw,
            draws,
            blocks,
            weight,
            kappas,
            plan.optimizer.pooled,
        )
        paces = plan.optimizer.relative_lr(state.params)
        descent = Descent(*(multiplied(paces, part) for part in noise.descent))
        return {"noise": dataclasses.replace(noise, descent=descent)}

    oracle = signed_mix(sampler(plan.batch_size), plan.noise_gain)
    return probe(observe, oracle, times)


def noise_scale(noise: Noise, batch_size: int, pool: bool = False) -> jax.Array:
    """Returns Tr Σ/‖ḡ‖² of one example: the batch at which signal equals noise.

    For draws with replacement; the gradient noise scale of McCandlish et al. (2018).
    """
    check_count("batch_size", batch_size)
    return batch_size / noise.total(pool=pool).ratio


def _check_draws(draws: int, blocks: int, kappas: tuple[float, ...]) -> None:
    check_count("draws", draws)
    check_count("blocks", blocks)
    if blocks < 4 or draws % blocks:
        raise ValueError(
            f"draws={draws} in blocks={blocks}: needs at least 4 blocks of equal size"
        )
    check_kappas(kappas)


def check_kappas(kappas: Sequence[float]) -> None:
    """Refuses what are no factors of a batch, one or more."""
    needs = "positive numbers, one or more"
    check_number("kappas", kappas, needs, ABOVE_0)
    if np.ndim(kappas) != 1 or not len(kappas):
        raise ValueError(f"kappas={kappas}: needs {needs}")


def _wide(x: jax.Array) -> jax.Array:
    """Returns the array in float32 at least, for sums."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _products(means: jax.Array, weight: jax.Array) -> jax.Array:
    rows = means.reshape(means.shape[0], -1)
    weighted = rows * weight.reshape(1, -1).astype(rows.dtype)
    return jnp.matmul(weighted, rows.T, precision="highest")


def _counts(means: PyTree, squares: PyTree, size: int, kappas) -> Counts:
    def count(mean, square):
        blocks = mean.shape[0]
        across = jnp.sum(mean, axis=0) ** 2 - jnp.sum(mean**2, axis=0)
        signal = across / (blocks * (blocks - 1))
        noise = square / (blocks * size) - signal
        alive = square > 0
        below = [jnp.sum(alive & (kappa * signal < noise)) for kappa in kappas]
        return jnp.sum(alive), jnp.stack(below)

    leaves, structure = jax.tree.flatten(means)
    both = [count(*pair) for pair in zip(leaves, jax.tree.leaves(squares), strict=True)]
    return Counts(*(jax.tree.unflatten(structure, x) for x in zip(*both, strict=True)))


def _descent(means: PyTree, squares: PyTree, size: int, kappas, pooled) -> Descent:
    """Returns the descent, where one half of the blocks weighs and the other slows.

    The halves are independent, so that the noise of a signal which is not there weighs
    nothing on the average. Within a half ḡ² is the mean product of different blocks.
    """

    def signal(mean):
        blocks = mean.shape[0]
        across = jnp.sum(mean, axis=0) ** 2 - jnp.sum(mean**2, axis=0)
        return across / (blocks * (blocks - 1))

    def leaf(mean, square):
        blocks = mean.shape[0]
        halves = signal(mean[: blocks // 2]), signal(mean[blocks // 2 :])
        second = pooled(square / (blocks * size))
        second = jnp.where(second > 0, second, 1)  # also where it underflows
        w = jax.lax.rsqrt(second)

        def left(kappa):
            slower = [_slower((kappa - 1) * pooled(x) / second) for x in halves]
            return jnp.sum(w * (halves[0] * slower[1] + halves[1] * slower[0])) / 2

        return left(1.0), jnp.stack([left(kappa) for kappa in kappas])

    leaves, structure = jax.tree.flatten(means)
    both = [leaf(*pair) for pair in zip(leaves, jax.tree.leaves(squares), strict=True)]
    return Descent(*(jax.tree.unflatten(structure, x) for x in zip(*both, strict=True)))


def _slower(x: jax.Array) -> jax.Array:
    """Returns (1 + x)^-½, continued to x < 0 as odd about (0, 1).

    So the errors of a signal that is not there average out, where cutting them off at
    x = 0 would slow it down.
    """
    return 1 - jnp.sign(x) * (1 - jax.lax.rsqrt(1 + jnp.abs(x)))


def _sum(tree: PyTree) -> Any:
    return sum(jax.tree.leaves(tree))


@np.errstate(divide="ignore", invalid="ignore")
def _levels(means: Array, squares: Array, pool: bool) -> Levels:
    """Returns the levels; those of measurements that are numpy's without compiling."""
    blocks = squares.shape[-1]
    signals = _across(means) / (blocks * (blocks - 1))
    noises = squares.mean(-1) - signals
    count = noises.size if pool else 1

    def mean(x):
        return x.sum() / count if pool else x

    signal, noise = mean(signals), mean(noises)
    ratio = signal / noise

    def error(a, b):
        value, least = map(mean, _variance(means, squares, a, b))
        return (value.clip(min=least) / count) ** 0.5

    # The ratio's error is that of (signal − ratio·noise)/noise with the ratio held.
    ratio_se = error(1 + ratio, -ratio) / noise
    return Levels(signal, error(1, 0), noise, error(-1, 1), ratio, ratio_se)


def _across(means: Array) -> Array:
    """Returns the sum over pairs of different blocks."""
    return means.sum((-2, -1)) - means.trace(axis1=-2, axis2=-1)


def _variance(means, squares, a, b) -> tuple[Array, Array]:
    """Returns the variance of a·G + b·E‖g‖² by the jackknife, and its least value.

    The product of two blocks is G + ξ_a + ξ_b + ζ_ab. Leaving out one block counts the
    pairs' own part ζ, which is most of the error where noise dominates, twice; so ζ's
    variance is estimated from what the rows leave over, and the excess taken off.
    The least is what is left without any ξ.
    """
    n = squares.shape[-1]
    rows = means.sum(-1) - means.diagonal(axis1=-2, axis2=-1)
    total = rows.sum(-1, keepdims=True)
    zeros = np.zeros(squares.shape[:-1], squares.dtype)
    a, b = (x + zeros for x in (a, b))
    signals = (total - 2 * rows) / ((n - 1) * (n - 2))
    sizes = (squares.sum(-1, keepdims=True) - squares) / (n - 1)
    without = a[..., None] * signals + b[..., None] * sizes
    jackknife = (n - 1) * without.var(axis=-1)

    level = total / (n * (n - 1))
    effect = (rows - (n - 1) * level) / (n - 2)
    fitted = level[..., None] + effect[..., :, None] + effect[..., None, :]
    pairs = a**2 * _across((means - fitted) ** 2) / (n * (n - 3))
    return jackknife - 2 * pairs / ((n - 1) * (n - 2)), 2 * pairs / (n * (n - 1))
