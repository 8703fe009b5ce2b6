"""Oracles, mixes, noise and laws against dense linear algebra and closed forms."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiling, sized

from optsde.gradients import (
    Draw,
    FunctionOracle,
    Penalty,
    Use,
    by_blocks,
    by_layers,
    dense,
    diagonal,
    drawn_from,
    epochs,
    from_covariance,
    from_data,
    full_batch,
    gaussian,
    heavy_tailed,
    minibatch,
    penalized,
    signed_mix,
    stable,
)
from optsde.gradients.interaction import interaction_check
from optsde.gradients.mix import weights
from optsde.models import MLP, Dense, cross_entropy, init_params, supervised
from optsde.models.norm import BatchNorm, GroupNorm, LayerNorm

N = 37


@pytest.fixture
def problem():
    model, random = MLP((7, 4)), np.random.RandomState(0)
    x = jnp.asarray(random.normal(size=(N, 5)))
    y = jnp.asarray(random.randint(0, 4, N))
    params = init_params(model, jax.random.key(2), x)
    return model, supervised(model, cross_entropy), params, (x, y)


def each_gradient(losses, params, data):
    """[N, parameters], one example at a time."""

    def one(example):
        single = jax.tree.map(lambda a: a[None], example)
        grads = jax.grad(lambda p: losses(p, single)[0])(params)
        return jax.flatten_util.ravel_pytree(grads)[0]

    return np.asarray(jax.jit(lambda data: jax.lax.map(one, data))(data))


def flat(tree):
    return np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(tree)])


def test_minibatch_among_some_examples(problem):
    """It is the batch of those examples alone."""
    _, losses, params, data = problem
    chosen, draw = jnp.array([30, 2, 11]), Draw(jax.random.key(3), 5)
    some = minibatch(losses, data, among=chosen)(8)(params, draw)
    alone = minibatch(losses, jax.tree.map(lambda x: x[chosen], data))(8)(params, draw)
    np.testing.assert_allclose(flat(some), flat(alone), rtol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("block", [1, 10, 100])
def test_full_batch_is_the_mean_for_any_block(problem, block):
    _, losses, params, data = problem
    oracle = jax.jit(full_batch(losses, data, block)().__call__)
    loss, grads = oracle(params, Draw(jax.random.key(0), 0))
    expected = each_gradient(losses, params, data).mean(0)
    np.testing.assert_allclose(flat(grads), expected, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(loss, losses(params, data).mean(), rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["blocks", "layers"])
@pytest.mark.parametrize("block", [10, N])
def test_sums_against_each_gradient(problem, kind, block):
    model, losses, params, data = problem
    w = jnp.asarray(np.random.RandomState(1).normal(size=N))
    if kind == "blocks":
        sums = jax.jit(by_blocks(losses, data, block))(params, w)
    else:
        sums = jax.jit(by_layers(model, cross_entropy, data, block))(params, w)
    g = each_gradient(losses, params, data)
    np.testing.assert_allclose(sums.loss, losses(params, data).sum(), rtol=1e-12)
    np.testing.assert_allclose(flat(sums.grad), g.sum(0), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(flat(sums.square), (g**2).sum(0), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(flat(sums.weighted), w @ g, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("kind", ["blocks", "layers"])
def test_sums_keep_the_dtype_of_the_parameters(problem, kind):
    model, losses, params, (x, y) = problem
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    data = x.astype(jnp.bfloat16), y
    if kind == "blocks":
        sums = jax.jit(by_blocks(losses, data, 10))(half, jnp.ones(N))
    else:
        sums = jax.jit(by_layers(model, cross_entropy, data, 10))(half, jnp.ones(N))
    exact = jax.jit(by_blocks(losses, problem[3], 10))(params, jnp.ones(N))
    assert {g.dtype for g in jax.tree.leaves(sums.grad)} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(
        flat(sums.grad).astype(np.float32), flat(exact.grad), atol=0.3
    )


@pytest.mark.usefixtures("x64")
def test_law_of_data_has_the_exact_covariance(problem):
    """kick is linear in dW, so its covariance is that of its matrix."""
    _, losses, params, data = problem
    batch = 4
    law = from_data(losses, data, batch)
    moments_of = jax.jit(lambda e: law.moments(params, e))
    basis = jnp.eye(N)
    matrix = np.stack([flat(moments_of(e).kick) for e in basis], axis=1)
    g = each_gradient(losses, params, data)
    sigma = np.cov(g.T, bias=True) / batch
    np.testing.assert_allclose(matrix @ matrix.T, sigma, atol=1e-13)
    moments = moments_of(basis[0])
    np.testing.assert_allclose(flat(moments.variance), np.diag(sigma), atol=1e-13)
    np.testing.assert_allclose(flat(moments.mean), g.mean(0), rtol=1e-9, atol=1e-13)
    assert law.shape(params).shape == (N,)


class Normed(nn.Module):
    norm: nn.Module

    @nn.compact
    def __call__(self, x, mask=None):
        return Dense(4)(self.norm(Dense(6)(x)))


@pytest.mark.parametrize("norm", [LayerNorm(), GroupNorm(2), BatchNorm()])
def test_a_law_refuses_examples_that_interact(problem, norm):
    """The diagonal would be of single examples and the noise of a call: two Σ."""
    net, data = Normed(norm), problem[3]
    law = from_data(supervised(net, cross_entropy), data, 4)
    params = jax.eval_shape(net.init, jax.random.key(0), data[0])["params"]

    def moments():
        return jax.eval_shape(law.moments, params, jnp.ones(N))

    if not isinstance(norm, BatchNorm):
        assert moments().loss.shape == ()
        return
    with pytest.raises(ValueError, match="changes with the others in its call"):
        moments()


def beside_the_mean(p, x):
    return p * (x - jnp.mean(x)) ** 2


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
@pytest.mark.parametrize("rows", [2, 16])
def test_interaction_is_seen_whatever_is_traced(transform, rows):
    """Traced parameters have shapes, and the check asks for no more."""
    points, ones = jnp.ones(3), jnp.ones(rows)

    def kicks(losses):
        law = from_data(losses, WHOLE[:rows], 4)
        return transform(jax.vmap(lambda p: law.moments(p, ones).kick))(points)

    assert kicks(slope).shape == (3,)
    with pytest.raises(ValueError, match="changes with the others in its call"):
        kicks(beside_the_mean)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rounding_is_no_interaction(dtype):
    """A deep net with a loss that is large beside what examples change in it."""
    model, x = MLP((50,) * 6 + (4,)), jnp.asarray(np.random.randn(64, 20), dtype)
    y = jnp.zeros(64, jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    half = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, dtype), params)
    losses = supervised(model, lambda out, y: 1e3 + cross_entropy(out, y))
    check = interaction_check(losses, (x, y))
    with compiling() as names:
        check(half)
    assert names == ["jit(losses)"]
    interaction_check(losses, (x[:1], y[:1]))(half)
    with pytest.raises(ValueError, match=r"has the shape \(\)"):
        interaction_check(lambda p, x: losses(p, x).mean(), (x, y))(half)


def test_minibatch_noise_is_that_of_the_law(problem):
    """20,000 draws: mean and variance of every parameter, largest z below 5."""
    _, losses, params, data = problem
    oracle = minibatch(losses, data)(4)
    draw = jax.vmap(lambda i: oracle(params, Draw(jax.random.key(7), i))[1])
    grads = jax.jit(draw)(jnp.arange(20_000))
    sample = np.concatenate(
        [np.asarray(x).reshape(20_000, -1) for x in jax.tree.leaves(grads)], axis=1
    )
    moments = jax.jit(from_data(losses, data, 4).moments)(params, jnp.zeros(N))
    mean, variance = flat(moments.mean), flat(moments.variance)
    z = (sample.mean(0) - mean) / np.sqrt(np.maximum(variance, 1e-12) / 20_000)
    assert np.abs(z).max() < 5
    centred = (sample - sample.mean(0)) ** 2
    z = (centred.mean(0) - variance) / (centred.std(0) / 20_000**0.5 + 1e-9)
    assert np.abs(z).max() < 5


def test_epochs_see_every_example_once():
    data = jnp.arange(12.0)
    sampler = epochs(lambda p, x: p * x, data)
    oracle = sampler(4)
    loss = jax.jit(lambda k: oracle(1.0, Draw(jax.random.key(0), k))[0])
    seen = [4 * float(loss(k)) for k in range(6)]
    assert sum(seen[:3]) == pytest.approx(66)
    assert sum(seen[3:]) == pytest.approx(66)
    assert seen[:3] != seen[3:]
    with pytest.raises(ValueError, match="batch_size=20 is above the 12"):
        sampler(20)


@pytest.mark.parametrize("gain", [1.0, 1.5, 4.0, 64.0])
def test_weights_of_the_mix(gain):
    first, second = weights(gain)
    assert first + second == pytest.approx(1)
    assert first**2 + second**2 == pytest.approx(gain)
    assert first**3 + second**3 == pytest.approx((3 * gain - 1) / 2)


def test_weights_refuse_less_noise():
    with pytest.raises(ValueError, match="use a larger batch"):
        weights(0.5)


def test_a_mix_of_epochs_is_refused():
    """SVAG(4) of SGD for 16 base steps, which are an epoch, of gradients x_i.

    Draws with replacement keep the SDE's variance, 16·var(x)/2, within 4 s.e. of 300
    paths. In epochs the noise of the steps adds up to none, at every ℓ.
    """
    data, ell = jnp.asarray(np.random.default_rng(0).normal(size=32)), 4
    gains = [*zip(weights(ell), (Use.MIX_FIRST, Use.MIX_SECOND), strict=True)]

    def mix(oracle, draw):
        return sum(w * oracle(1.0, draw.stream(use))[1] for w, use in gains)

    def variance(sampler):
        of_step = partial(mix, sampler(slope, data)(2))

        def path(key):
            steps = jnp.arange(16 * ell)
            return jax.vmap(lambda k: of_step(Draw(key, k)))(steps).sum() / ell

        keys = jax.random.split(jax.random.key(0), 300)
        return float(jax.jit(jax.vmap(path))(keys).var())

    expected = 16 * float(data.var()) / 2
    assert variance(minibatch) == pytest.approx(expected, rel=4 * (2 / 300) ** 0.5)
    assert variance(epochs) < 1e-6 * expected

    oracle = epochs(slope, data)(2)
    assert signed_mix(oracle, 1.0) is oracle
    for each in (oracle, heavy_tailed(oracle, 2.0, 0.1)):
        assert not each.independent
        with pytest.raises(ValueError, match="use minibatch"):
            signed_mix(each, 4.0)


def test_mix_keeps_the_mean_and_multiplies_the_covariance():
    """1-D data, gain 9: mean within 5 s.e., variance within 5 s.e., 40,000 draws."""
    data = jnp.asarray(np.random.default_rng(0).normal(size=8))
    oracle = minibatch(lambda p, x: p * x, data)(2)
    draws = 40_000

    def grads(oracle, seed):
        def one(i):
            return oracle(1.0, Draw(jax.random.fold_in(jax.random.key(seed), i), 0))[1]

        return np.asarray(jax.jit(jax.vmap(one))(jnp.arange(draws)))

    plain, mixed = grads(oracle, 0), grads(signed_mix(oracle, 9.0), 1)
    mean = float(data.mean())
    assert abs(mixed.mean() - mean) < 5 * mixed.std() / draws**0.5
    ratio = mixed.var() / plain.var()
    spread = [
        ((x - x.mean()) ** 2).std() / x.var() / draws**0.5 for x in (plain, mixed)
    ]
    assert abs(ratio / 9 - 1) < 5 * np.hypot(*spread)


def test_dense_and_diagonal_covariance():
    factor = jnp.array([[1.0, 0.0], [0.5, 2.0]])
    known = dense(lambda theta: factor * (1 + theta[0]))
    theta, z = jnp.array([1.0, 3.0]), jnp.array([0.3, -0.2])
    np.testing.assert_allclose(known.spread(theta, z), 2 * factor @ z, rtol=1e-6)
    full = 4 * factor @ factor.T
    np.testing.assert_allclose(known.variance(theta), np.diag(full), rtol=1e-6)
    plain = diagonal(lambda theta: {"a": theta["a"]})
    np.testing.assert_allclose(plain.variance({"a": theta})["a"], theta**2)


def test_gaussian_oracle_has_the_covariance_of_its_law():
    factor = jnp.array([[1.0, 0.0], [0.5, 2.0]])
    known = dense(lambda theta: factor)
    loss = lambda theta: jnp.sum(theta**2)  # noqa: E731
    theta = jnp.array([1.0, 3.0])
    oracle = gaussian(loss, known)(4)
    draw = jax.vmap(lambda i: oracle(theta, Draw(jax.random.key(0), i))[1])
    grads = jax.jit(draw)(jnp.arange(40_000))
    expected = np.asarray(factor @ factor.T) / 4
    np.testing.assert_allclose(np.cov(grads.T), expected, atol=5 * 0.011)
    np.testing.assert_allclose(grads.mean(0), 2 * theta, atol=5 * 0.0052)
    moments = from_covariance(loss, known, 4).moments(theta, jnp.array([1.0, 0.0]))
    np.testing.assert_allclose(moments.kick, factor[:, 0] / 2, rtol=1e-6)
    np.testing.assert_allclose(moments.variance, np.diag(expected), rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.8, 1.0, 1.5, 2.0])
def test_stable_characteristic_function(alpha):
    """E cos(tX) = exp(−|t|^α); 200,000 numbers, five s.e. of a bounded mean."""
    draw = jax.jit(lambda key: stable(key, alpha, (200_000,)))
    x = np.asarray(draw(jax.random.key(0)), np.float64)
    for t in (0.3, 1.0, 2.0):
        values = np.cos(t * x)
        se = values.std() / len(x) ** 0.5
        assert abs(values.mean() - np.exp(-(t**alpha))) < 5 * se


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("keys", sized(1, 80))
def test_stable_numbers_are_finite(alpha, keys):
    """Also where the angle rounds to ±π/2: once in 10⁷ draws."""
    draw = jax.jit(lambda k: jnp.isfinite(stable(k, alpha, (250_000,))).all())
    assert all(draw(k) for k in jax.random.split(jax.random.key(1), keys))


def test_heavy_tails_are_added_and_refused():
    zero = FunctionOracle(lambda _, params, draw: (0.0, jnp.zeros_like(params)))
    noisy = heavy_tailed(zero, 2.0, 0.5)
    _, grads = noisy(jnp.zeros(100_000), Draw(jax.random.key(0), 0))
    assert float(grads.var()) == pytest.approx(2 * 0.25, rel=0.03)
    with pytest.raises(ValueError, match=r"\(0, 2\]"):
        heavy_tailed(zero, 2.5, 1.0)


@pytest.mark.usefixtures("x64")
def test_mixing_losses_is_mixing_gradients(problem):
    """The one pass over both batches against two passes, for the same draws."""
    _, losses, params, data = problem
    oracle = minibatch(losses, data)(5)
    draw = Draw(jax.random.key(0), jnp.int32(3))
    one = signed_mix(oracle, 16.0)
    apart = signed_mix(FunctionOracle(lambda _, *x: oracle(*x)), 16.0)
    loss, grads = jax.jit(one.__call__)(params, draw)
    two = jax.jit(apart.__call__)(params, draw)
    np.testing.assert_allclose(flat(grads), flat(two[1]), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(loss, two[0], rtol=1e-12)


@pytest.mark.parametrize("kind", ["blocks", "layers"])
def test_memory_does_not_grow_with_the_data(kind):
    """Scratch memory of Σ's diagonal at 2,048 and 16,384 examples, 1,124 parameters.

    What may grow is a few numbers for each example (its weight and copies of it), far
    below the 4,496 bytes of its gradient or the 512 of its activations.
    """
    model = MLP((64, 4))
    losses = supervised(model, cross_entropy)

    def scratch(size):
        data = jnp.zeros((size, 12)), jnp.zeros(size, jnp.int32)
        params = init_params(model, jax.random.key(2), data[0])
        if kind == "blocks":
            sums = by_blocks(losses, data, 128)
        else:
            sums = by_layers(model, cross_entropy, data, 128)
        compiled = jax.jit(sums).lower(params, jnp.ones(size)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    small, large = scratch(2_048), scratch(16_384)
    assert (large - small) / (16_384 - 2_048) <= 16
    assert large < 2**23


WHOLE = jnp.asarray(np.random.default_rng(3).normal(size=16))


def slope(p, x):
    return p * x


KINDS = {
    "minibatch": lambda: minibatch(slope, WHOLE)(4),
    "epochs": lambda: epochs(slope, WHOLE)(4),
    "full_batch": lambda: full_batch(slope, WHOLE, 8, shuffle=True)(),
    "gaussian": lambda: gaussian(jnp.sin, diagonal(jnp.ones_like))(4),
    "function": lambda: FunctionOracle(
        lambda source, p, draw: (p * source, source), 2.0
    ),
    "mixed": lambda: signed_mix(minibatch(slope, WHOLE)(4), 3.0),
    "penalized": lambda: penalized(minibatch(slope, WHOLE), PENALTY)(4),
    "heavy_tailed": lambda: heavy_tailed(minibatch(slope, WHOLE)(4), 2.0, 0.3),
}
PENALTY = Penalty(1.0, lambda time: 0.1 * (1 + time), "exact")


def of_many(oracle, count=20_000):
    """Gradients of draws of different keys, the oracle an argument of the program."""

    @jax.jit
    def grads(oracle):
        def one(i):
            draw = Draw(jax.random.fold_in(jax.random.key(5), i), 0)
            return oracle(jnp.float32(1), draw)[1]

        return jax.vmap(one)(jnp.arange(count))

    return np.asarray(grads(oracle), np.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_every_oracle_can_be_mixed_and_made_heavy_tailed(kind):
    """The mean stays and the variance is as stated, within 5 standard errors."""
    oracle = KINDS[kind]()
    plain = of_many(oracle)
    cases = []
    if oracle.independent:
        cases.append((signed_mix(oracle, 4.0), 4 * plain.var()))
    if kind == "heavy_tailed":
        with pytest.raises(ValueError, match="takes heavy tails once"):
            heavy_tailed(oracle, 2.0, 0.5)
    else:
        noisy = heavy_tailed(oracle, 2.0, 0.5)
        cases.append((noisy, plain.var() + 2 * 0.5**2))
    for changed, variance in cases:
        found = of_many(changed)
        both = np.hypot(found.std(), plain.std()) / len(plain) ** 0.5
        assert abs(found.mean() - plain.mean()) < 5 * both + 1e-6
        spread = ((found - found.mean()) ** 2).std() / len(found) ** 0.5
        spread += 4 * ((plain - plain.mean()) ** 2).std() / len(plain) ** 0.5
        assert abs(found.var() - variance) < 5 * spread + 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_penalty_goes_on_examples_and_is_refused_elsewhere(kind):
    """A mix is penalized draw by draw; noise and functions have no groups."""
    refusals = {
        "gaussian": "needs an oracle of examples: minibatch, epochs or full_batch",
        "function": "needs an oracle of examples: minibatch, epochs or full_batch",
        "heavy_tailed": "needs an oracle of examples: minibatch, epochs or full_batch",
        "penalized": "takes one penalty",
    }
    sampler = penalized(lambda batch_size: KINDS[kind](), PENALTY)
    if kind in refusals:
        with pytest.raises(ValueError, match=refusals[kind]) as error:
            sampler(4)
        assert "\n" not in str(error.value)
    else:
        draw = Draw(jax.random.key(0), jnp.int32(2), 1.0)
        loss, grads = sampler(4)(1.0, draw)
        plain_loss, plain = KINDS[kind]()(1.0, draw)
        np.testing.assert_allclose(loss, plain_loss, rtol=1e-6)
        np.testing.assert_allclose(grads, plain, rtol=1e-6)  # slope has no curvature


def test_every_use_of_randomness_has_its_own_number():
    """Two names of one number would be one stream; an enum would merge them."""
    assert len(Use.__members__) == len({int(use) for use in Use})
    draw = Draw(jax.random.key(0), jnp.int32(1))
    keys = [jax.random.key_data(draw.stream(use).fresh()).tolist() for use in Use]
    assert len({tuple(key) for key in keys}) == len(Use.__members__)


def test_a_law_is_drawn_from_with_its_own_covariance(problem):
    """Of 4,000 draws: the mean, and Σ in 20 directions, within 4 standard errors.

    And Gaussian in them: the fourth moment is 3 within 4 s.e., of all directions.
    """
    _, losses, params, data = problem
    oracle = drawn_from(lambda size: from_data(losses, data, size))(4)
    steps = jnp.arange(4_000)
    draw = lambda step: Draw(jax.random.key(1), step)  # noqa: E731
    drawn = jax.jit(jax.vmap(lambda step: oracle(params, draw(step))[1]))(steps)
    leaves = [np.asarray(x).reshape(len(steps), -1) for x in jax.tree.leaves(drawn)]
    grads, g = np.concatenate(leaves, axis=1), each_gradient(losses, params, data)
    along = np.random.RandomState(0).normal(size=(grads.shape[1], 20))
    noise, exact = (grads - g.mean(0)) @ along, (g - g.mean(0)) @ along
    std = exact.std(0) / 4**0.5
    assert np.all(abs(noise.mean(0)) < 4 * std / len(steps) ** 0.5)
    assert np.all(abs(noise.var(0) / std**2 - 1) < 4 * (2 / len(steps)) ** 0.5)
    assert np.all(abs(((noise / std) ** 4).mean(0) - 3) < 4 * (96 / len(steps)) ** 0.5)
