"""A loss on the sphere, small enough for closed forms: Tr Σ̄ is the same everywhere.

L(w) = ½ Σ h_i w̄_i² and noise of variance 1 in each of the d − 1 directions along the
sphere, so that Tr Σ̄ = d − 1 and γ's equation has the solution `gamma_at`.
"""


def curvatures(dimension: int, largest: float):
    """h from 0 to `largest`, so that w̄ is drawn to the first axis."""
    import jax.numpy as jnp

    return jnp.linspace(0.0, largest, dimension)


def loss_of(h):
    """L(w)."""
    import jax.numpy as jnp

    return lambda w: 0.5 * jnp.sum(h * w**2) / jnp.sum(w**2)


def tangent_noise(std: float = 1.0):
    """Σ(w) = std² (I − w̄ w̄ᵀ)/‖w‖², as scale invariance has it."""
    import jax.numpy as jnp

    from optsde.gradients.covariance import Covariance

    def spread(w, z):
        square = jnp.sum(w**2)
        return std * (z - w * (w @ z) / square) / jnp.sqrt(square)

    def variance(w):
        square = jnp.sum(w**2)
        return std**2 * (1 - w**2 / square) / square

    return Covariance(spread, variance)
