"""A small transformer for causal or masked language modelling."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from optsde.models.layers import Dense
from optsde.models.norm import LayerNorm

_normal = nn.initializers.normal


class Transformer(nn.Module):
    """A transformer from tokens [n, T] to logits [n, T, classes].

    As GPT-2, or with causal=False as BERT.

    Norm before each sublayer, learned positions up to `length`, GELU, four times the
    width inside the MLP. The tokens' embedding is the last layer too, unless
    tied=False: then that has weights of its own, and a row of the embedding has a
    gradient only where its token is read. Weights begin as N(0, 0.02²), divided by
    √(2·depth) where they write to the residual stream. Attention's softmax and the
    logits are float32 whatever the `dtype`.
    """

    takes_mask = True

    classes: int
    width: int = 128
    depth: int = 4
    heads: int = 4
    length: int = 128
    causal: bool = True
    tied: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, tokens: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        size = tokens.shape[1]
        if self.width % self.heads:
            raise ValueError(
                f"width={self.width} is no multiple of heads={self.heads}: give one"
            )
        if size > self.length:
            raise ValueError(
                f"{size} tokens are more than the {self.length} positions: "
                f"give length={size} or more"
            )
        shape = (self.classes, self.width)
        embedding = self.param("tokens", _normal(0.02), shape)
        last = embedding if self.tied else self.param("output", _normal(0.02), shape)
        shape = (self.length, self.width)
        positions = self.param("positions", _normal(0.02), shape)
        x = embedding[tokens] + positions[None, :size]
        x, last = promote_dtype(x, last, dtype=self.dtype)
        for number in range(self.depth):
            x = _Layer(
                self.heads,
                self.causal,
                residual_init=_normal(0.02 / math.sqrt(2 * self.depth)),
                dtype=self.dtype,
                name=f"layer{number}",
            )(x)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        x = LayerNorm()(x)
        return jnp.einsum("ntd,vd->ntv", x, last, preferred_element_type=wide)


class _Layer(nn.Module):
    """A layer x ← x + attention(norm(x)),  x ← x + MLP(norm(x))."""

    heads: int
    causal: bool
    residual_init: Any
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, size, width = x.shape
        dense = functools.partial(Dense, dtype=self.dtype)
        qkv = dense(3 * width, kernel_init=_normal(0.02), name="qkv")(LayerNorm()(x))
        q, k, v = jnp.split(qkv.reshape(n, size, 3 * self.heads, -1), 3, axis=2)
        y = _attend(q, k, v, self.causal).reshape(n, size, width)
        x = x + dense(width, kernel_init=self.residual_init, name="out")(y)
        y = nn.gelu(
            dense(4 * width, kernel_init=_normal(0.02), name="up")(LayerNorm()(x))
        )
        return x + dense(width, kernel_init=self.residual_init, name="down")(y)


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool) -> jax.Array:
    """Returns softmax(q kᵀ/√d) v of [n, T, heads, d], with a softmax in float32."""
    wide = jnp.promote_types(q.dtype, jnp.float32)
    scores = jnp.einsum("nqhd,nkhd->nhqk", q, k, preferred_element_type=wide)
    scores = scores / math.sqrt(q.shape[-1])
    if causal:
        past = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        scores = jnp.where(past[None, None], scores, -jnp.inf)
    weights = jax.nn.softmax(scores).astype(v.dtype)
    return jnp.einsum("nhqk,nkhd->nqhd", weights, v)
