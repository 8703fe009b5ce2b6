"""Micro-batches that devices share: their squares are those on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import lowered
from test_full_batch import flat, on_devices, problem

import optsde
from optsde.gradients import minibatch, signed_mix
from optsde.run import Engine


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("gain", [1.0, 4.0])
def test_eight_devices_are_one(gain):
    """Twelve micro-batches of three, which eight devices do not divide evenly."""
    losses, params, data = problem()
    oracle = signed_mix(minibatch(losses, data)(3).squared(12), gain)
    one, eight = (flat(on_devices(oracle, params, n)) for n in (1, 8))
    assert np.linalg.norm(one - eight) < 1e-12 * np.linalg.norm(one)


def test_one_all_reduce_a_step():
    losses, params, data = problem(dtype=jnp.float32)
    optimizer = optsde.InvariantAdam(lr=0.01, micros=16)
    plan = optsde.Plan(optimizer=optimizer, batch_size=32, horizon=3)
    run = optsde.discrete(plan, minibatch(losses, data), params)
    engine = Engine(run, 1, shards=8)
    state = engine.init(jax.random.split(jax.random.key(0), 1))
    text = lowered(engine, state).compile().as_text()
    assert "num_partitions=8" in text
    assert text.count(" all-reduce(") + text.count(" all-reduce-start(") == 1
