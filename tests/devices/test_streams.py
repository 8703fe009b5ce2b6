"""Streamed batches: a device has the examples of its own groups, read once each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_sharded import losses, numbers, plan_of, problem

import optsde
from optsde import data
from optsde.gradients import minibatch
from optsde.run import Engine

KEYS = jax.random.split(jax.random.key(1), 3)


class Counting(data.Arrays):
    """Counts the rows that are read."""

    rows = 0

    def __getitem__(self, index):
        self.rows += np.size(index)
        return super().__getitem__(index)


def streamed(source, batch_size=16, ell=1, **options):
    init, _ = problem(jnp.float32)
    plan = plan_of(optsde.Adam(lr=0.01), batch_size=batch_size)
    return optsde.discrete(
        optsde.svag(plan, ell), minibatch(losses, source, **options), init
    )


SPLITS = {  # of a batch: even; in groups that fill up, more or fewer than devices
    "even": dict(batch_size=16),
    "ragged": dict(batch_size=20, group=3, at_once=2, ell=2),
    "fewer": dict(batch_size=10, group=3),
    "one group": dict(batch_size=20),
}


OTHERS = [pytest.param(x, marks=pytest.mark.full) for x in SPLITS if x != "ragged"]


@pytest.mark.parametrize("split", ["ragged", *OTHERS])
@pytest.mark.parametrize("replicas", [1, pytest.param(3, marks=pytest.mark.full)])
def test_a_stream_is_the_resident_set_bit_for_bit(split, replicas):
    _, arrays = problem(jnp.float32)
    stream = data.Stream(data.Arrays(*map(np.asarray, arrays)))
    one, two = (
        optsde.fit(
            streamed(source, **SPLITS[split]), KEYS[:replicas], 3, shards=8 // replicas
        )
        for source in (arrays, stream)
    )
    pairs = zip(numbers(one.state), numbers(two.state), strict=True)
    assert all(np.array_equal(*pair) for pair in pairs)


def test_each_example_of_a_batch_is_read_once_and_lies_on_one_device():
    """Where eight devices split a batch; the one besides is read for its shape."""
    _, arrays = problem(jnp.float32)
    source = Counting(*map(np.asarray, arrays))
    made = streamed(data.Stream(source), batch_size=16)
    engine = Engine(made, 1, shards=8)
    state = engine.init(KEYS[:1])
    feed = engine._feed
    window, count = next(feed.parts(state, 3))
    feed._windows.close()  # what was read ahead is there
    x, _ = window.examples
    assert {part.data.shape for part in x.addressable_shards} == {
        (1, feed.length, 2, 8)
    }
    windows, rest = divmod(source.rows - 1, 16 * feed.length)
    assert (count, rest) == (3, 0)
    assert windows <= 3  # the one that is used, and two ahead
