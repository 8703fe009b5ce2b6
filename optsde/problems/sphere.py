"""A scale-invariant loss with known noise, small enough for closed forms.

The loss is L(w) = ½ Σ h_i w̄_i² with w̄ = w/‖w‖, and the noise has variance 1 in each of
the d − 1 directions along the sphere. So Tr Σ̄ = d − 1 everywhere, and γ = ‖w‖⁴/η² has
the closed form `optsde.dynamics.sphere.gamma_at`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from optsde.gradients.covariance import Covariance


def curvatures(dimension: int, largest: float) -> jax.Array:
    """Returns h from 0 to `largest`, so that w̄ is drawn to the first axis.

    >>> curvatures(3, 1.0).tolist()
    [0.0, 0.5, 1.0]
    """
    return jnp.linspace(0.0, largest, dimension)


def loss_of(h: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """Returns the loss w -> ½ Σ h_i w_i²/‖w‖², which no rescaling of w changes.

    >>> loss = loss_of(jnp.array([0.0, 4.0]))
    >>> float(loss(jnp.array([1.0, 1.0]))), float(loss(jnp.array([3.0, 3.0])))
    (1.0, 1.0)
    """
    return lambda w: 0.5 * jnp.sum(h * w**2) / jnp.sum(w**2)


def tangent_noise(std: float = 1.0) -> Covariance:
    """Returns Σ(w) = std² (I − w̄ w̄ᵀ)/‖w‖², whose size is that of scale invariance."""

    def spread(w, z):
        square = jnp.sum(w**2)
        return std * (z - w * (w @ z) / square) / jnp.sqrt(square)

    def variance(w):
        square = jnp.sum(w**2)
        return std**2 * (1 - w**2 / square) / square

    return Covariance(spread, variance)
