"""Orthogonal factors against numpy's singular values in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optsde.optimizers.orthogonal import as_matrix, newton_schulz, orthogonal_factor

SEEDS = 7
SHAPES = [(4, 3), (3, 4), (5, 5), (1, 6)]


def stack(shape):
    """Matrices of numpy in float64, and their decompositions."""
    x = np.random.default_rng(0).normal(size=(SEEDS, *shape))
    return x, np.linalg.svd(x, full_matrices=False)


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonal_factor_of_stacked_matrices(shape):
    x, (u, _, vt) = stack(shape)
    single = jax.vmap(orthogonal_factor)(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(single, u @ vt, atol=1e-5)
    with jax.enable_x64(True):
        double = jax.vmap(orthogonal_factor)(jnp.asarray(x))
        np.testing.assert_allclose(double, u @ vt, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_newton_schulz_takes_each_singular_value_through_the_polynomial(shape):
    """Five times, with U and V unchanged; from .01 of the norm, to .68 to 1.14."""
    x, (u, s, vt) = stack(shape)
    ends = s / np.linalg.norm(s, axis=1, keepdims=True)
    large = ends > 0.01
    for _ in range(5):
        ends = 3.4445 * ends - 4.775 * ends**3 + 2.0315 * ends**5
    expected = (u * ends[:, None]) @ vt
    assert ends[large].min() > 0.68
    assert ends[large].max() < 1.14
    single = jax.vmap(newton_schulz)(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(single, expected, atol=1e-5)
    with jax.enable_x64(True):
        double = jax.vmap(newton_schulz)(jnp.asarray(x))
        np.testing.assert_allclose(double, expected, atol=1e-7)  # 1e-8 in the norm


@pytest.mark.usefixtures("x64")
def test_orthogonal_factor_without_full_rank():
    """The factor of a matrix of rank 2 in four dimensions, and of zero, is known."""
    x = np.random.default_rng(1).normal(size=(4, 2)) @ np.diag([5.0, 1e-3])
    x = x @ np.random.default_rng(2).normal(size=(2, 3))
    u, _, vt = np.linalg.svd(x, full_matrices=False)
    found = orthogonal_factor(jnp.asarray(x))
    np.testing.assert_allclose(found, u[:, :2] @ vt[:2], atol=1e-10)
    np.testing.assert_array_equal(orthogonal_factor(jnp.zeros((3, 2))), 0)
    np.testing.assert_array_equal(newton_schulz(jnp.zeros((3, 2))), 0)


def test_a_kernel_is_the_transpose_of_torch_s():
    """[height, width, in, out] of Flax, and [out, in, height, width] of torch, of which
    Jordan et al. flatten all but the first axis: one matrix, but for the inputs'
    order, which the factor does not see."""
    kernel = np.random.default_rng(3).normal(size=(3, 2, 4, 5))
    theirs = kernel.transpose(3, 2, 0, 1)
    factor = orthogonal_factor(as_matrix(jnp.asarray(kernel, jnp.float32)))
    u, _, vt = np.linalg.svd(theirs.reshape(5, -1), full_matrices=False)
    back = (u @ vt).reshape(theirs.shape).transpose(2, 3, 1, 0)
    np.testing.assert_allclose(factor.reshape(kernel.shape), back, atol=1e-5)
