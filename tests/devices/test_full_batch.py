"""The sum over groups: blocks, devices, ghost statistics, penalty, one all-reduce."""

import dataclasses
import re
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import lowered
from jax.sharding import Mesh, PartitionSpec

import optsde
from optsde import models
from optsde.gradients import (
    Draw,
    Penalty,
    full_batch,
    minibatch,
    penalized,
    signed_mix,
)
from optsde.mesh import DATA, REPLICA
from optsde.models.norm import BatchNorm
from optsde.run import Engine

N, GROUP, WIDTH = 46, 8, 6  # a ragged last group of 6
DRAW = Draw(jax.random.key(7), jnp.int32(3), 6.0)


class Net(nn.Module):
    """The smallest with BatchNorm, which lets the examples of a group interact."""

    takes_mask = True

    @nn.compact
    def __call__(self, x, mask=None):
        hidden = nn.silu(BatchNorm()(models.Dense(WIDTH)(x), mask))
        return models.Dense(3)(hidden)


@cache
def problem(size=N, dtype=jnp.float64):
    """(losses, params, examples) on random inputs."""
    random = np.random.RandomState(0)
    x = jnp.asarray(random.normal(size=(size, 4)), dtype)
    y = jnp.asarray(random.randint(0, 3, size))
    params = models.init_params(Net(), jax.random.key(2), x)
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    return models.supervised(Net(), models.cross_entropy), params, (x, y)


def flat(tree):
    return np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(tree)])


def on_devices(oracle, params, shards, draw=DRAW):
    """What the oracle gives under a mesh of so many devices."""
    mesh = Mesh(np.array(jax.devices()[:shards]).reshape(1, shards), (REPLICA, DATA))
    everywhere = PartitionSpec()
    mapped = jax.shard_map(
        lambda oracle, params, draw: oracle(params, draw),
        mesh=mesh,
        in_specs=everywhere,
        out_specs=everywhere,
        check_vma=False,
    )
    return jax.jit(mapped)(oracle, params, draw)


def by_hand(losses, params, data, gradient=None):
    """Σ_b |b|/N · (loss_b, gradient_b), with a Python loop over groups as they are."""

    @jax.jit
    def of_block(params, block):
        mean = lambda p: jnp.mean(losses(p, block))  # noqa: E731
        return gradient(mean, params) if gradient else jax.value_and_grad(mean)(params)

    loss, total = 0.0, 0.0
    for start in range(0, N, GROUP):
        block = jax.tree.map(lambda x: x[start : start + GROUP], data)  # noqa: B023
        share = len(block[1]) / N
        value, grad = of_block(params, block)
        loss, total = loss + share * float(value), total + share * flat(grad)
    return loss, total


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("shards", "at_once"), [(1, 3), (2, 100), (8, 1)])
def test_the_mean_for_any_split_with_batch_norm(shards, at_once):
    losses, params, data = problem()
    oracle = full_batch(losses, data, GROUP, at_once=at_once)()
    loss, grads = on_devices(oracle, params, shards)
    expected_loss, expected = by_hand(losses, params, data)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-12)
    error = np.linalg.norm(flat(grads) - expected)
    assert error < 1e-12 * np.linalg.norm(expected)


@pytest.mark.usefixtures("x64")
def test_ghost_groups_are_another_function():
    """What the tests above hold fixed matters: other groups, other gradients."""
    losses, params, data = problem()
    ours, other = (
        flat(on_devices(full_batch(losses, data, group)(), params, 1)[1])
        for group in (8, 23)
    )
    assert np.linalg.norm(ours - other) > 0.01 * np.linalg.norm(ours)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("form", "shards", "at_once"),
    [("forward", 8, 1), ("central", 8, 1), ("exact", 8, 1), ("exact", 1, 4)],
)
def test_penalty_of_each_block(form, shards, at_once):
    """g_b + (lr_t/4)·s·H_b g_b, summed over blocks, against dense-free jvp by hand."""
    losses, params, data = problem()
    penalty = Penalty(0.5, lambda time: 0.05 * time, form, eps=1e-4)
    sampler = full_batch(losses, data, GROUP, at_once=at_once)
    oracle = penalized(sampler, penalty)()
    loss, grads = on_devices(oracle, params, shards)

    def gradient(mean, p):
        value, g = jax.value_and_grad(mean)(p)
        hg = jax.jvp(jax.grad(mean), (p,), (g,))[1]
        return value, jax.tree.map(lambda g, h: g + 0.3 / 4 * 0.5 * h, g, hg)

    expected_loss, expected = by_hand(losses, params, data, gradient)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-12)
    plain = by_hand(losses, params, data)[1]
    size = np.linalg.norm(expected - plain)
    error = np.linalg.norm(flat(grads) - expected) / size
    assert error < {"forward": 1e-3, "central": 1e-6, "exact": 1e-12}[form]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", ["forward", "central"])
def test_order_of_the_finite_differences(form):
    """Error ∝ eps forward and eps² central, on a smooth network."""
    losses, params, data = problem()
    mean = lambda p: jnp.mean(losses(p, data))  # noqa: E731

    @jax.jit
    def exactly(params):
        grads = jax.grad(mean)(params)
        return grads, jax.jvp(jax.grad(mean), (params,), (grads,))[1]

    grads, exact = map(flat, exactly(params))

    def error(eps):
        penalty = Penalty(1.0, lambda time: 4.0, form, eps)
        oracle = penalized(full_batch(losses, data, None), penalty)()
        total = flat(on_devices(oracle, params, 1)[1])
        return np.linalg.norm(total - grads - exact) / np.linalg.norm(exact)

    order = np.log2(error(4e-3) / error(2e-3))
    assert abs(order - {"forward": 1, "central": 2}[form]) < 0.1


def test_a_zero_gradient_has_no_penalty():
    loss = lambda p, examples: 0 * examples[0] * p  # noqa: E731
    sampler = full_batch(loss, (jnp.ones(4),), 2)
    oracle = penalized(sampler, Penalty(1.0, lambda time: 1.0))()
    assert oracle(jnp.float32(2.0), DRAW)[1] == 0


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shards", [1, 8])
def test_the_published_running_mean(shards):
    """m ← m + (g_b − m)/n in the order of the blocks, without the ragged one."""
    losses, params, data = problem()
    oracle = full_batch(losses, data, GROUP, running_mean=True, at_once=2)()
    gradient = jax.jit(jax.grad(lambda p, block: jnp.mean(losses(p, block))))
    n, m = N // GROUP, 0
    for b in range(n):
        block = jax.tree.map(lambda x: x[b * GROUP : (b + 1) * GROUP], data)  # noqa: B023
        m = m + (flat(gradient(params, block)) - m) / n
    np.testing.assert_allclose(
        flat(on_devices(oracle, params, shards)[1]), m, rtol=1e-9, atol=1e-14
    )


def test_total_weight_of_the_published_running_mean():
    data = (jnp.zeros((50_000, 1), jnp.uint8),)
    sampler = full_batch(
        lambda p, e: p * jnp.ones(len(e[0])), data, 128, running_mean=True
    )
    loss, _ = sampler()(jnp.float32(1.0), DRAW)
    np.testing.assert_allclose(loss, 0.6326, atol=5e-5)


def jitter(keys, examples):
    x, y = examples
    noise = jax.vmap(lambda k: jax.random.normal(k, x.shape[1:], x.dtype))(keys)
    return x + 0.3 * noise, y


@pytest.mark.usefixtures("x64")
def test_augmentation_and_shuffling_do_not_see_the_split():
    losses, params, data = problem()
    oracle = full_batch(losses, data, GROUP, augment=jitter, shuffle=True)()
    one = flat(on_devices(oracle, params, 1)[1])
    split = dataclasses.replace(oracle, at_once=3)
    other = flat(on_devices(split, params, 8)[1])
    assert np.linalg.norm(one - other) < 1e-12 * np.linalg.norm(one)
    draw = DRAW._replace(step=jnp.int32(4))
    later = flat(on_devices(oracle, params, 1, draw)[1])
    assert np.linalg.norm(one - later) > 0.01 * np.linalg.norm(one)


@pytest.mark.usefixtures("x64")
def test_minibatches_and_svag_share_the_code():
    """Data-parallel minibatches, with and without SVAG's mix: as on one device."""
    losses, params, data = problem()
    for group in (None, 4):
        plain = minibatch(losses, data, group=group, augment=jitter)(24)
        for oracle in (plain, signed_mix(plain, 16.0)):
            whole = dataclasses.replace(oracle, group=group or 3)
            one = flat(on_devices(whole, params, 1)[1])
            many = flat(on_devices(oracle, params, 8)[1])
            assert np.linalg.norm(one - many) < 1e-12 * np.linalg.norm(one)


def run_of(size, penalty=None, steps=20, group=GROUP):
    losses, params, data = problem(size=size, dtype=jnp.float32)
    optimizer = optsde.HeavyBall(lr=0.05, beta=0.9, nesterov=True, l2=5e-4)
    plan = optsde.Plan(optimizer=optimizer, batch_size=size, horizon=steps, clip=0.25)
    sampler = full_batch(losses, data, group)
    if penalty is not None:
        sampler = penalized(sampler, penalty)
    return optsde.discrete(plan, sampler, params)


PENALTIES = [None, Penalty(0.5, lambda t: 0.1), Penalty(0.5, lambda t: 0.1, "exact")]


@pytest.mark.parametrize(
    ("penalty", "size"),
    [(PENALTIES[0], 46), (PENALTIES[1], 400), (PENALTIES[2], 46)],
)
def test_one_all_reduce_a_step(penalty, size):
    """In the compiled loop on 8 devices, for any number of blocks."""
    engine = Engine(run_of(size, penalty), 1, shards=8)
    state = engine.init(jax.random.split(jax.random.key(0), 1))
    text = lowered(engine, state).compile().as_text()
    assert "num_partitions=8" in text
    calls = re.findall(r"= .* (all-reduce|all-reduce-start)\(", text)
    assert len(calls) == 1
    for word in ("all-gather", "collective-permute", "all-to-all", "reduce-scatter"):
        assert word not in text


def test_a_run_on_eight_devices_is_that_on_one():
    keys = jax.random.split(jax.random.key(0), 1)
    dynamics = run_of(46, PENALTIES[1])
    one, eight = (
        optsde.ensemble(dynamics, keys, [20], lambda s: s.params, shards=shards)
        for shards in (1, 8)
    )
    np.testing.assert_allclose(flat(one.values), flat(eight.values), rtol=0, atol=2e-5)


def test_memory_does_not_grow_with_the_data():
    """Temporary memory of the compiled step, 4k against 64k examples."""

    def temporary(size):
        def shapes(k):
            return jax.random.split(jax.random.key(0), k)

        engine = Engine(run_of(size, group=64), 1, shards=1)
        compiled = lowered(engine, engine.init(shapes(1))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    small, large = temporary(4096), temporary(65536)
    indices = 65536 * (4 + 4 + 8)  # a few integers for each example
    assert large - small < 2 * indices
    assert small > 64 * WIDTH * 4  # a block's activations are among it


def test_pmap_gives_the_same_step():
    """Each device a part of the minibatch, gradients averaged: the old recipe."""
    losses, params, data = problem(dtype=jnp.float32)
    plan = optsde.Plan(optimizer=optsde.SGD(lr=0.1), batch_size=16, horizon=3)
    sampler = minibatch(losses, data, group=2)
    dynamics = optsde.discrete(plan, sampler, params)
    key = jax.random.key(0)
    ours = optsde.ensemble(dynamics, key[None], [3], lambda s: s.params, shards=8)

    @partial(jax.pmap, axis_name="i", devices=jax.devices())
    def step(params, examples):
        grads = jax.grad(lambda p: jnp.mean(losses(p, examples)))(params)
        grads = jax.lax.pmean(grads, "i")
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

    theirs = jax.tree.map(lambda p: jnp.broadcast_to(p, (8, *p.shape)), params)
    for k in range(3):
        index = sampler(16).index(Draw(key, jnp.int32(k)))[0]
        batch = jax.tree.map(lambda x: x[index].reshape(8, 2, *x.shape[1:]), data)  # noqa: B023
        theirs = step(theirs, batch)
    theirs = jax.tree.map(lambda x: x[0], theirs)
    np.testing.assert_allclose(flat(ours.values), flat(theirs), rtol=0, atol=2e-6)


def test_dropout_has_the_same_masks_on_any_number_of_devices(x64):
    _, params, data = problem(size=24)

    def train(params, inputs, key):
        kept = jax.random.bernoulli(key, 0.5, inputs.shape)
        return apply(params, inputs * kept)

    def apply(params, inputs):
        return inputs @ params["Dense_1"]["kernel"][:4]

    net = models.Net(lambda key, inputs: params, apply, train, noisy=True)
    oracle = minibatch(models.supervised(net, models.cross_entropy), data, group=2)(24)
    one, eight = (flat(on_devices(oracle, params, shards)) for shards in (1, 8))
    np.testing.assert_allclose(eight, one, rtol=1e-10, atol=1e-12)
