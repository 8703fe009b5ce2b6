"""Orthogonal factors of matrices: U Vᵀ of X = U S Vᵀ, exactly and by Newton–Schulz.

Functions of one matrix, which `jax.vmap` stacks over seeds.
"""

import jax
import jax.numpy as jnp

from optsde.optimizers.decompositions import svd

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of Jordan et al. (2024), whose p(s) = a s + b s³ + c s⁵ is steep at 0."""

STEPS = 5

GUARD = 1e-8
"""Is added to a norm that is divided by, as in optax."""


def as_matrix(leaf: jax.Array) -> jax.Array:
    """Returns a parameter as a matrix [inputs, outputs] of its layer, by Flax's layout.

    The last axis has the outputs, all others together the inputs: a kernel of a
    convolution [height, width, in, out] becomes [height·width·in, out], which is the
    transpose of Jordan et al.'s [out, in·height·width]. A vector is a layer of one
    input, and a number one of one output too.

    >>> [as_matrix(jnp.zeros(shape)).shape for shape in ((3, 3, 4, 8), (5,), ())]
    [(36, 8), (1, 5), (1, 1)]
    """
    return leaf.reshape(-1, leaf.shape[-1]) if leaf.ndim else leaf.reshape(1, 1)


@jax.jit
def orthogonal_factor(x: jax.Array) -> jax.Array:
    """Returns U Vᵀ of the singular value decomposition of a matrix, X = U S Vᵀ.

    Where X has no full rank, U and V are those of the singular values that are not
    zero to rounding, so that the factor of 0 is 0. Dtypes below float32 go through it.

    >>> print(orthogonal_factor(jnp.diag(jnp.array([2.0, -3.0, 0.0]))))
    [[ 1.  0.  0.]
     [ 0. -1.  0.]
     [ 0.  0.  0.]]
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    u, s, vt = svd(wide)
    least = max(x.shape) * jnp.finfo(s.dtype).eps * s[0]
    return ((u * (s > least)[None, :]) @ vt).astype(x.dtype)


@jax.jit
def newton_schulz(x: jax.Array) -> jax.Array:
    """Returns nearly the orthogonal factor of a matrix, by products alone.

    X ← X/‖X‖, then `STEPS` times X ← a X + (b A + c A²) X with A = X Xᵀ. That leaves U
    and V alone and takes each singular value s to p(p(…p(s/‖X‖)…)). With the
    `COEFFICIENTS` of Jordan et al. (2024) and five steps, s/‖X‖ from .01 to 1 end in
    .68 to 1.13. They do not converge to 1, which more steps of (3/2, −1/2, 0) do.
    """
    a, b, c = COEFFICIENTS
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (jnp.linalg.norm(x) + GUARD)
    for _ in range(STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
