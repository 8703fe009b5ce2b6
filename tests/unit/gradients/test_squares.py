"""Squares of micro-batches, against loops over them and a second implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optsde
from optsde import data
from optsde.gradients import Draw, Oracle, epochs, minibatch, signed_mix
from optsde.squares import Squares, clipped, shifted

X = (np.random.RandomState(1).normal(size=(37, 5)),)
START = {"w": np.linspace(0.2, 1.0, 5), "b": np.array(0.3)}
DRAW = Draw(jax.random.key(5), jnp.int32(3))


def losses(params, examples):
    (x,) = examples
    return jnp.square(jnp.tanh(x @ params["w"]) + params["b"] - x[:, 0])


def by_hand(oracle, draws):
    """The mean of micro-batches' gradients, drawn one by one, and of their squares."""
    each = [oracle(START, draw)[1] for draw in draws]
    return [
        jax.tree.map(lambda *g, p=power: np.mean(np.power(g, p), axis=0), *each)
        for power in (1, 2)
    ]


def close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), one, other)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("at_once", [1, 3, 5])
def test_squares_are_those_of_the_draws_one_after_the_other(at_once):
    """Draw j of step 3 of 5 is step 15 + j of the micro-batch alone; three at once do
    not divide five."""
    oracle = minibatch(losses, X, at_once=at_once)(4)
    loss, grads = jax.jit(oracle.squared(5).__call__)(START, DRAW)
    draws = [DRAW._replace(step=15 + j) for j in range(5)]
    mean, square = by_hand(oracle, draws)
    close(grads, Squares(mean, mean, square))
    np.testing.assert_allclose(loss, np.mean([oracle(START, d)[0] for d in draws]))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("gain", [1.0, 4.0])
def test_one_pass_over_groups_is_the_loop_over_any_oracle(gain):
    """With SVAG's mix: the gradient is mixed by sign, and moments count both alike."""
    oracle = minibatch(losses, X)(4)
    groups = signed_mix(oracle.squared(3), gain)
    loop = signed_mix(Oracle.squared(oracle, 3), gain)
    one, other = (jax.jit(o.__call__)(START, DRAW) for o in (groups, loop))
    close(one, other)
    gap = np.abs(one[1].grad["w"] - one[1].mean["w"]).max()
    assert (gap > 0.01) == (gain > 1)
    assert np.all(one[1].square["w"] >= one[1].mean["w"] ** 2)


@pytest.mark.parametrize("sampler", [minibatch, epochs])
def test_other_numbers_of_micro_batches_read_the_same_examples(sampler):
    oracle = sampler(losses, X)(3)
    single, four = oracle.squared(1), oracle.squared(4)
    read = four.index(Draw(DRAW.key, 2))
    alone = [single.index(Draw(DRAW.key, step))[0] for step in range(8, 12)]
    np.testing.assert_array_equal(read, alone)


def test_what_has_no_squares_is_refused():
    with pytest.raises(ValueError, match="group=2 splits a micro-batch of 4 examples"):
        minibatch(losses, X, group=2)(4).squared(2)
    with pytest.raises(ValueError, match="takes an oracle of single draws"):
        signed_mix(minibatch(losses, X)(4), 4.0).squared(2)


def test_adding_to_micro_batches_and_clipping_them():
    each = np.array([[1.0, -2.0], [3.0, 4.0], [-1.0, 0.5]], np.float32)

    def squares(each):
        return Squares(each.mean(0), each.mean(0), (each**2).mean(0))

    close_32 = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5)  # noqa: E731
    by = np.float32([0.7, -0.3])
    jax.tree.map(close_32, shifted(squares(each), by), squares(each + by))
    norm = np.linalg.norm(each.mean(0))
    jax.tree.map(close_32, clipped(squares(each), norm, norm / 2), squares(each / 2))
    jax.tree.map(close_32, clipped(squares(each), norm, 2 * norm), squares(each))
    theirs, _ = optax.clip_by_global_norm(0.3).update(each, optax.EmptyState())
    np.testing.assert_array_equal(clipped(each, optax.tree.norm(each), 0.3), theirs)
    alike = shifted(squares(each[:1]), -each[0] * np.float32(1 + 1e-7))
    assert np.all(alike.square >= 0)  # and not below by rounding


def test_a_stream_is_the_resident_set_bit_for_bit():
    optimizer = optsde.InvariantAdam(lr=0.01, micros=3)
    base = optsde.Plan(optimizer=optimizer, batch_size=6, horizon=3)
    start = jax.tree.map(np.float32, START)

    def end(source):
        run = optsde.discrete(optsde.svag(base, 2), minibatch(losses, source), start)
        return optsde.fit(run, jax.random.key(0)[None], 3).state.params

    arrays = (np.float32(X[0]),)
    streamed = end(data.Stream(data.Arrays(*arrays)))
    jax.tree.map(np.testing.assert_array_equal, streamed, end(arrays))
