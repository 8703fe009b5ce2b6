"""Replicas and examples that are spread over devices: the numbers stay the same."""

import jax
import numpy as np
import pytest
from helpers import lowered
from helpers.quadratic import THETA0, plan, sampler

import optsde
from optsde import data
from optsde.run import Engine


def adam_run():
    return optsde.discrete(plan(optsde.Adam(lr=0.1), 12.0), sampler(1.0), THETA0)


def keys(count):
    return jax.random.split(jax.random.key(0), count)


@pytest.mark.parametrize("replicas", [3, 8, 11])
def test_an_ensemble_is_its_separate_runs(replicas):
    """For numbers of replicas below, at and above the eight devices."""
    dynamics = adam_run()
    out = optsde.ensemble(dynamics, keys(replicas), [0, 12], lambda s: s.params)
    assert out.values.shape == (replicas, 2, 2)
    assert len(out.state.params.devices()) == min(replicas, 8)

    @jax.jit
    def by_hand(key):
        def step(_, state):
            return dynamics.step(state, dynamics.source)[0]

        return jax.lax.fori_loop(0, 12, step, dynamics.init(key)).params

    alone = np.stack([by_hand(key) for key in keys(replicas)])
    np.testing.assert_allclose(out.values[:, 1], alone, rtol=1e-5)


def test_nothing_is_exchanged_between_devices():
    """The loop that the ensemble compiles has no collective."""
    engine = Engine(adam_run(), 16)
    text = lowered(engine, engine.init(keys(16))).compile().as_text()
    assert "while" in text
    assert "num_partitions=8" in text
    for word in ("all-reduce", "all-gather", "collective-permute", "all-to-all"):
        assert word not in text


def test_random_changes_of_examples_do_not_see_the_devices():
    augment = data.compose(data.crop(2), data.flip())
    images = np.random.RandomState(0).randint(0, 256, (96, 8, 8, 3), np.uint8)
    given = keys(96), (images, np.arange(96))
    rows = jax.NamedSharding(jax.make_mesh((8,), ("data",)), jax.P("data"))
    spread = jax.jit(augment)(*jax.device_put(given, rows))
    jax.tree.map(np.testing.assert_array_equal, augment(*given), spread)
