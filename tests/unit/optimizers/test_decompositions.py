"""Stacked decompositions on CPUs: those of numpy, by a LAPACK call for each matrix."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optsde.optimizers.decompositions import eigh, svd

X = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("ours", "numpys"), [(eigh, np.linalg.eigh), (svd, np.linalg.svd)]
)
def test_stacked_twice_is_each_by_itself(ours, numpys):
    x = X + X.swapaxes(-1, -2)
    stacked = jax.jit(jax.vmap(jax.vmap(ours)))
    for found, expected in zip(stacked(x), numpys(x), strict=True):
        np.testing.assert_allclose(abs(found), abs(expected), atol=2e-5)
    calls = re.findall(
        r"@lapack_\w+\(.*?\) .*: \((.*?)\) ->", stacked.lower(x).as_text()
    )
    assert calls
    assert all(call == "tensor<4x4xf32>" for call in calls)


def test_one_matrix_needs_no_stack():
    values, vectors = eigh(jnp.diag(jnp.array([2.0, 1.0])))
    np.testing.assert_allclose(values, [1, 2])
    np.testing.assert_allclose(abs(vectors), [[0, 1], [1, 0]])
