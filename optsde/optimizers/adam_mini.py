"""Adam-mini: Adam with one v for a block of parameters."""

import dataclasses

import jax
import jax.numpy as jnp

from optsde.optimizers.adam import Adam
from optsde.optimizers.base import register
from optsde.optimizers.moments import second_moment, square


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamMini(Adam):
    """Adam with one v for a block (Zhang et al. 2024, arXiv 2406.16793).

        v ← b2 v + (1−b2)·mean g² over the block,

    and the rest is Adam's. A block is all weights that lead to one output: what has one
    last index, by Flax's layout, a vector as a whole, and a number by itself. That is
    the paper's partition by neurons of dense layers, of values and projections of
    attention, and by tokens of an output layer. The paper has larger blocks for queries
    and keys, one for a head, and others for embeddings, one for a token, which is a row
    of an embedding [tokens, features]; leave these to Adam, in `Groups`. Of a kernel
    [inputs, heads, size] a block here has its place in all heads.

    Rule: Adam's, since a mean of squares falls as each of them: lr·√κ, and 1 − b1 and
    1 − b2 grow by κ. SDE: Adam's, with the block's mean of diag Σ for diag Σ in dv. The
    signal counts in v by its mean over a block as well, so that a few coordinates ruled
    by their signal do not end the rule where the block is ruled by noise.

    >>> transform = AdamMini(lr=0.1, eps=1.0).transform()
    >>> params, grads = jnp.ones((2, 2)), jnp.array([[1.0, 3.0], [-7.0, 3.0]])
    >>> updates, state = transform.update(grads, transform.init(params), params)
    >>> print(state.direction.v.shape)
    (1, 2)
    >>> print(params + updates)  # v̂ = 25 and 9
    [[0.98333335 0.925     ]
     [1.1166667  0.925     ]]
    """

    def pooled(self, squares):
        """Returns the mean of each block, whose axes stay, with one entry."""
        if not squares.ndim:
            return squares
        across = tuple(range(max(squares.ndim - 1, 1)))
        return jnp.mean(squares, axis=across, keepdims=True)

    def _entering(self, updates, state):
        return updates, jax.tree.map(self.pooled, square(updates))

    def _second_moment(self, mean, variance, keep_signal):
        return jax.tree.map(self.pooled, second_moment(mean, variance, keep_signal))

    def rescale_state(self, state, kappa, new, signal=0.0):
        """Returns the state at κ; `signal` is a share of each block's v."""
        shares = jax.tree.broadcast(signal, state.v)
        for q, v in zip(jax.tree.leaves(shares), jax.tree.leaves(state.v), strict=True):
            if jnp.broadcast_shapes(jnp.shape(q), v.shape) != v.shape:
                raise ValueError(
                    f"signal has a share of shape {list(jnp.shape(q))} for a v of "
                    f"{list(v.shape)}: give one for each block, mean G/mean (N + G)"
                )
        return super().rescale_state(state, kappa, new, signal)
