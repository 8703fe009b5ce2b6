"""A process by itself; two are met in tests/hosts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optsde import hosts


def test_alone_it_is_process_0():
    assert hosts.first()
    assert not hosts.several()
    hosts.connect(num_processes=1)
    hosts.connect()  # nothing launched it
    assert not hosts.several()


def test_alone_it_tells_itself():
    assert hosts.broadcast(lambda: {"a": 1}) == {"a": 1}
    np.testing.assert_array_equal(hosts.all_gather([3, 4]), [[3, 4]])
    tree = {"x": jnp.arange(3.0)}
    np.testing.assert_array_equal(hosts.gathered(tree)["x"], [0, 1, 2])
    assert hosts.everywhere(tree)["x"] is tree["x"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("localhost:1", None, None), "give all three"),
        ((None, 2, 0), "give all three"),
        (("localhost", 2, 0), "coordinator=localhost: must be HOST:PORT"),
        (("localhost:x", 2, 0), "must be HOST:PORT"),
        (("localhost:1", 2, 2), "process_id=2: must be from 0 to 1"),
        (("localhost:1", 2, -1), "process_id=-1: must be from 0 to 1"),
    ],
)
def test_half_an_address_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        hosts.connect(*given)


def test_late_it_is_refused():
    """Once a device was touched, processes cannot meet any more."""
    jax.devices()
    with pytest.raises(ValueError, match="did not meet"):
        hosts.connect("localhost:1", 2, 0)
