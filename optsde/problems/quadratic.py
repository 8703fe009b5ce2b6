"""A noisy quadratic: small enough for closed forms, with noise that depends on θ."""

import jax
import jax.numpy as jnp
import numpy as np

START = np.array([1.5, -1.0])
HESSIAN = np.array([[1.0, 0.4], [0.4, 0.6]])


def quadratic_loss(theta: jax.Array) -> jax.Array:
    """½ θᵀ A θ with A = [[1, .4], [.4, .6]]."""
    return 0.5 * theta @ jnp.asarray(HESSIAN, theta.dtype) @ theta


def quadratic_std(theta: jax.Array) -> jax.Array:
    """Standard deviations of Σ(θ) = diag(1, ¼)·(1 + ½|θ|²)."""
    scale = jnp.array([1.0, 0.5], theta.dtype)
    return scale * jnp.sqrt(1 + 0.5 * theta @ theta)


def second_order_moments(theta: jax.Array) -> jax.Array:
    """θ1, θ2, θ1², θ2², θ1 θ2: test functions whose means are compared."""
    return jnp.concatenate([theta, theta**2, theta[:1] * theta[1:]])
