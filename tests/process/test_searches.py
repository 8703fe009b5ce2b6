"""Searches for eigenvalues that once never ended, in a process that may be given up."""

import sys

import pytest
from helpers import run_child

pytestmark = pytest.mark.full

CODE = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec as P
from optsde import measure

def top(key):
    scales = jnp.arange(1.0, 301.0)
    start = measure.random_vectors(key, scales)
    return measure.top_eigenvalues(lambda v: scales * v, start, key).values[0]

mesh = Mesh(jax.devices(), "x")
both = jax.shard_map(
    jax.vmap(top), mesh=mesh, in_specs=P("x"), out_specs=P("x"), check_vma=False
)
search, missed = jax.jit(both), 0
for seed in range(5):
    found = search(jax.random.split(jax.random.key(seed), 24))
    assert jnp.all(found > 298.9), found
    missed += jnp.sum(found < 299.97)
assert missed <= 6, missed  # of 120; .65% were in 2,000, the second largest in place
"""


def test_many_searches_on_two_devices_end():
    """With jax 0.10 they would not, did XLA diagonalise a dozen matrices at once."""
    done = run_child([sys.executable, "-c", CODE], timeout=120)
    assert done.returncode == 0, done.stderr
