"""Signal, noise and tails, against the exact covariance and against known laws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiling
from helpers.quadratic import THETA0, plan, sampler

import optsde
from optsde import data, gradients, models
from optsde.gradients import Draw, FunctionOracle
from optsde.measure import gradient_noise, noise_probe, noise_scale, tail_index

BATCH, REPEATS, BLOCKS = 512, 128, 32
PARAMS = {"w": np.array([[0.3, -1.2], [0.7, 2.0]]), "b": np.array([0.1, -0.4])}


@pytest.fixture(scope="module")
def digits():
    """A small net on digits after 100 steps of descent, and its law's moments."""
    examples = tuple(map(jnp.asarray, data.digits()))
    model = models.MLP((8, 10))
    losses = models.supervised(model, models.cross_entropy)
    params = models.init_params(model, jax.random.key(0), examples[0])
    gradient = jax.grad(lambda p: losses(p, examples).mean())

    def descend(_, params):
        return jax.tree.map(lambda p, g: p - 0.3 * g, params, gradient(params))

    params = jax.jit(lambda p: jax.lax.fori_loop(0, 100, descend, p))(params)
    law = gradients.from_data(losses, examples, BATCH)
    moments = jax.jit(law.moments)(params, jnp.zeros(len(examples[0])))
    oracle = gradients.minibatch(losses, examples)(BATCH)
    weight = jax.tree.map(lambda v: 1 / jnp.sqrt(v + 1e-5), moments.variance)
    return oracle, params, moments, weight


@pytest.fixture(scope="module")
def repeats(digits):
    oracle, params, _, weight = digits

    def measure(key):
        draw = Draw(key, jnp.int32(3))
        return gradient_noise(oracle, params, draw, blocks=BLOCKS, weight=weight)

    keys = jax.random.split(jax.random.key(1), REPEATS)
    return jax.jit(lambda keys: jax.lax.map(measure, keys, batch_size=16))(keys)


def exact(moments, weight):
    signal = jax.tree.map(lambda w, m: jnp.sum(w * m**2), weight, moments.mean)
    noise = jax.tree.map(lambda w, v: jnp.sum(w * v), weight, moments.variance)
    return signal, noise


@pytest.mark.parametrize("weighted", [False, True])
def test_unbiased_with_calibrated_errors(digits, repeats, weighted):
    """128 estimates: mean within 4 of its s.e., stated errors within .8–1.25 of the
    spread, for signal, noise and ratio of all parameters together."""
    _, params, moments, weight = digits
    if not weighted:
        weight = jax.tree.map(jnp.ones_like, params)
    signal, noise = (sum(jax.tree.leaves(x)) for x in exact(moments, weight))
    found = repeats.total(weighted)
    for value, se, truth in (
        (found.signal, found.signal_se, signal),
        (found.noise, found.noise_se, noise),
        (found.ratio, found.ratio_se, signal / noise),
    ):
        value, se = np.asarray(value, np.float64), np.asarray(se, np.float64)
        assert abs(value.mean() - truth) < 4 * value.std() / REPEATS**0.5
        assert 0.8 < np.sqrt(np.mean(se**2)) / value.std() < 1.25
    pooled = repeats.total(weighted, pool=True)
    assert abs(pooled.ratio - signal / noise) < 4 * pooled.ratio_se
    assert 0.8 < pooled.signal_se / (found.signal.std() / REPEATS**0.5) < 1.25


def test_groups_are_unbiased_and_add_up(digits, repeats):
    _, params, moments, _ = digits
    groups = repeats.groups()
    signal, noise = exact(moments, jax.tree.map(jnp.ones_like, params))
    leaf = lambda x: hasattr(x, "ratio_se")  # noqa: E731
    levels = jax.tree.leaves(groups, is_leaf=leaf)
    assert jax.tree.structure(groups, is_leaf=leaf) == jax.tree.structure(params)
    for level, g, n in zip(
        levels, jax.tree.leaves(signal), jax.tree.leaves(noise), strict=True
    ):
        for value, truth in ((level.signal, g), (level.noise, n)):
            spread = np.asarray(value, np.float64).std() / REPEATS**0.5
            assert abs(np.mean(value) - truth) < 4.5 * spread
    total = repeats.total()
    np.testing.assert_allclose(sum(x.noise for x in levels), total.noise, rtol=1e-4)
    np.testing.assert_allclose(
        noise_scale(repeats, BATCH), BATCH / total.ratio, rtol=1e-6
    )


def test_share_of_coordinates_where_noise_dominates(digits):
    """At 512 draws against the exact covariance, within .02 for κ = 1 and 4."""
    oracle, params, moments, _ = digits
    measure = jax.jit(lambda d: gradient_noise(oracle, params, d, 512, kappas=(1, 4)))
    found = measure(Draw(jax.random.key(2), jnp.int32(0))).dominated()
    mean, variance = (
        jax.flatten_util.ravel_pytree(x)[0] for x in (moments.mean, moments.variance)
    )
    alive = variance > 1e-12
    for share, kappa in zip(found, (1, 4), strict=True):
        truth = jnp.mean((kappa * mean**2 < variance)[alive])
        assert abs(share - truth) < 0.02


def test_epochs_give_independent_batches():
    """Without replacement within an epoch, and yet fresh keys draw independently."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(24, 5)), jnp.float32)
    oracle = gradients.epochs(lambda p, x: x @ p, x)(6)
    measure = jax.jit(lambda draw: gradient_noise(oracle, jnp.zeros(5), draw, 2048))
    found = measure(Draw(jax.random.key(0), jnp.int32(2))).total()
    factor = (24 - 6) / (24 - 1)  # of draws without replacement
    noise = float(x.var(0).sum()) / 6 * factor
    signal = float((x.mean(0) ** 2).sum())
    assert abs(found.noise - noise) < 4 * found.noise_se
    assert abs(found.signal - signal) < 4 * found.signal_se


def test_memory_is_that_of_blocks():
    """Four times the draws in as many blocks need no more memory."""

    def scratch(draws):
        def measure(params):
            oracle = FunctionOracle(
                lambda _, p, d: (0.0, p + jax.random.normal(d.fresh(), p.shape))
            )
            draw = Draw(jax.random.key(0), jnp.int32(0))
            return gradient_noise(oracle, params, draw, draws, 8)

        compiled = jax.jit(measure).lower(jnp.zeros(100_000)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert scratch(256) < 1.1 * scratch(64)
    assert scratch(256) < 30 * 400_000


def test_draws_of_the_run_are_not_used_again():
    seen = []

    def record(_, params, draw):
        data = jax.random.key_data(draw.fresh())
        jax.debug.callback(lambda x: seen.append(tuple(np.asarray(x).tolist())), data)
        return jnp.zeros(()), params

    draw = Draw(jax.random.key(0), jnp.int32(1))
    oracle = FunctionOracle(record)
    jax.block_until_ready(gradient_noise(oracle, jnp.ones(2), draw, 16, 4))
    jax.effects_barrier()
    own = tuple(np.asarray(jax.random.key_data(draw.fresh())).tolist())
    assert len(set(seen)) == 16
    assert own not in seen


@pytest.mark.parametrize("name", ["adam", "rmsprop", "adagrad", "sgd", "heavyball"])
def test_the_preconditioner_is_what_the_step_divides_by(name):
    """The step of a family without momentum is g/P, at the P of the state after it."""
    family = optsde.optimizers.by_name(name)
    optimizer = family(lr=0.1, **({"b1": 0.0} if name == "adam" else {}))
    direction = optimizer.direction()
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), PARAMS)
    state = direction.init(params)
    before = optimizer.preconditioner(state, params)
    assert all(jnp.all(p > 0) for p in jax.tree.leaves(before))
    grads = jax.tree.map(lambda x: 0.3 * x, params)
    u, state = direction.update(grads, state, params)
    divisor = optimizer.preconditioner(state, params)
    for a, g, p in zip(*map(jax.tree.leaves, (u, grads, divisor)), strict=True):
        np.testing.assert_allclose(a, g / p, rtol=1e-6)


@pytest.mark.parametrize("name", ["signsgd", "signum", "lion"])
def test_signs_have_no_preconditioner(name):
    optimizer = optsde.optimizers.by_name(name)(lr=0.1)
    assert optimizer.preconditioner((), THETA0) is None
    with pytest.raises(ValueError, match="no preconditioner to weigh noise by"):
        noise_probe(plan(optimizer, 8.0), sampler(1.0))


@pytest.mark.parametrize("clip", [None, 1.0])
def test_probe_of_an_ensemble(clip):
    """The noise of an ensemble in [replicas, times], and v as the weight."""
    one = plan(optsde.Adam(lr=0.01), 32.0, clip=clip)
    probe = noise_probe(one, sampler(1.0), draws=256, times=[0, 16, 32])
    keys = jax.random.split(jax.random.key(0), 6)
    dynamics = optsde.discrete(one, sampler(1.0), THETA0)
    run = optsde.fit(dynamics, keys, 32, probes=[probe])
    seen = run.metrics["noise"].values
    total = seen.total()
    assert total.ratio.shape == (6, 3)
    expected = (1 + 0.25) * (1 + 0.5 * float(THETA0 @ THETA0))
    spread = np.asarray(total.noise_se[:, 0])
    assert np.all(np.abs(np.asarray(total.noise[:, 0]) - expected) < 5 * spread)
    assert np.all(np.isfinite(seen.total(weighted=True).ratio))
    assert len(np.unique(np.asarray(total.noise))) == 18


def test_too_few_blocks_are_refused():
    draw = Draw(jax.random.key(0), jnp.int32(0))
    for draws, blocks in ((64, 3), (63, 8)):
        with pytest.raises(ValueError, match="at least 4 blocks of equal size"):
            gradient_noise(sampler(1.0)(1), THETA0, draw, draws, blocks)


def noisy(law):
    """Gradients that are noise of this law and nothing else."""
    return FunctionOracle(
        lambda _, params, draw: (0.0, law(draw.fresh(), params.shape))
    )


@pytest.mark.parametrize(
    "alpha",
    [1.2, 2.0, *(pytest.param(a, marks=pytest.mark.full) for a in (1.5, 1.8))],
)
def test_tail_index_of_stable_noise(alpha):
    """40 repetitions: the 95% interval covers α in 85 to 100 of 100."""
    oracle = noisy(partial(_stable, alpha))
    covered = 0
    for seed in range(40):
        draw = Draw(jax.random.key(seed), jnp.int32(0))
        tail = tail_index(oracle, jnp.zeros(100), draw, group=1, coordinates=64)
        covered += tail.low < alpha < tail.high
        assert tail.used == 1
    assert covered >= 34


def _stable(alpha, key, shape):
    return gradients.stable(key, alpha, shape)


def test_tail_index_of_finite_variance():
    """Laplace: above 1.9 in sums of 8 draws and more; a single draw looks heavier."""
    oracle = noisy(jax.random.laplace)
    draw = Draw(jax.random.key(0), jnp.int32(0))
    tail = tail_index(oracle, jnp.zeros(1000), draw, group=8)
    assert tail.high > 1.9
    assert tail.alpha > 1.85
    single = tail_index(oracle, jnp.zeros(1000), draw, group=1)
    assert single.alpha < tail.alpha


def test_tail_index_refuses():
    oracle = noisy(lambda key, shape: jnp.zeros(shape))
    draw = Draw(jax.random.key(0), jnp.int32(0))
    with pytest.raises(ValueError, match="zero in some term"):
        tail_index(oracle, jnp.zeros(3), draw)
    with pytest.raises(ValueError, match="sums=1"):
        tail_index(oracle, jnp.zeros(3), draw, sums=1)


def test_what_is_left_of_the_descent_at_kappa():
    """The mean of √((N+G)/(N+κG)) by weight G/√(N+G), where both are known, within 1%.

    512 measurements, pooled. A coordinate without signal weighs nothing, though its
    own estimate of G/N is of order 1/draws.
    """
    mean = jnp.array([1.0, 0.5, 0.1, 0.0])
    std = jnp.array([1.0, 1.0, 2.0, 5.0])

    def one(_, params, draw):
        return 0.0, mean + std * jax.random.normal(draw.fresh(), params.shape)

    kappas = (1, 4, 16)
    oracle = FunctionOracle(one)

    def measure(key):
        draw = Draw(key, jnp.int32(0))
        return gradient_noise(
            oracle, jnp.zeros(4), draw, 1024, 16, kappas=kappas
        ).descent

    keys = jax.random.split(jax.random.key(0), 512)
    base, slowed = jax.jit(lambda k: jax.lax.map(measure, k, batch_size=64))(keys)
    found = np.asarray(slowed).mean(0) / np.asarray(base).mean()
    part = mean**2 / np.sqrt(std**2 + mean**2)
    for kappa, value in zip(kappas, found, strict=True):
        speed = np.sqrt((std**2 + mean**2) / (std**2 + kappa * mean**2))
        np.testing.assert_allclose(value, np.average(speed, weights=part), rtol=0.01)


@pytest.mark.parametrize("pool", [False, True])
def test_what_was_measured_is_weighed_without_compiling(repeats, pool):
    """As on the device, but for rounding: sums there are in another order."""
    read = jax.device_get(repeats)
    with compiling() as names:
        here = read.total(weighted=True, pool=pool), read.groups(), read.dominated()
    assert names == []
    there = repeats.total(weighted=True, pool=pool), repeats.groups()
    there = *there, repeats.dominated()
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3), here[:2], there[:2])
    np.testing.assert_allclose(here[2], there[2], rtol=1e-6)
