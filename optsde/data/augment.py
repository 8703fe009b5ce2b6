"""Random changes of examples, inside jit: (keys [n], (x, y)) -> (x, y).

Each example has a key of its own, so the outcome does not depend on how the examples
are split into blocks or over devices. Pixels stay uint8.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from optsde.checks import check_count
from optsde.data.dataset import Array, Examples

Augment: TypeAlias = Callable[[jax.Array, Any], Any]


def crop(pad: int) -> Augment:
    """A shift by up to `pad` pixels each way, with black (0) coming in.

    The same as padding all sides and cutting out the old size at random.
    """

    check_count("pad", pad, least=0)

    def augment(keys, examples):
        images, labels = examples
        sides = (pad, pad)
        padded = jnp.pad(images, ((0, 0), sides, sides, (0, 0)))

        def one(key, image):
            corner = jax.random.randint(key, (2,), 0, 2 * pad + 1)
            start = (corner[0], corner[1], 0)
            return jax.lax.dynamic_slice(image, start, images.shape[1:])

        return jax.vmap(one)(keys, padded), labels

    return augment


def shifted(examples: tuple[Array, Array]) -> tuple[jax.Array, jax.Array]:
    """Returns each image at the nine shifts by up to a pixel, unshifted first.

    Edges are repeated. A draw from them is a draw of an image and of a shift.
    """
    images, labels = examples
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    corners = sorted(((i, j) for i in range(3) for j in range(3)), key=(1, 1).__ne__)
    copies = [padded[:, i : i + height, j : j + width] for i, j in corners]
    return jnp.concatenate(copies), jnp.tile(labels, 9)


def flip() -> Augment:
    """Mirrors half of the images, left and right."""

    def augment(keys, examples):
        images, labels = examples
        chosen = jax.vmap(jax.random.bernoulli)(keys)
        mirrored = images[:, :, ::-1]
        return jnp.where(chosen[:, None, None, None], mirrored, images), labels

    return augment


def compose(*augments: Augment) -> Augment:
    """Applies augmentations one after the other, each with randomness of its own."""

    def augment(keys, examples):
        for number, each in enumerate(augments):
            own = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
            examples = each(own, examples)
        return examples

    return augment


def mask_tokens(
    rate: float = 0.15, mask_token: int = 0, vocabulary: int = 256
) -> Augment:
    """Masks tokens to be guessed from those around them, as BERT does.

    Gives (inputs, targets), int32 [n, T].

    Each token is chosen with probability `rate`; of the chosen, 80% are seen as
    `mask_token`, 10% as any of the vocabulary, 10% as they are. Targets are −1 where
    not chosen. Byte 0, which text does not have, is the default mask.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate={rate} must lie in (0, 1]")

    def one(key, tokens):
        choice, kind, other = jax.random.split(key, 3)
        chosen = jax.random.bernoulli(choice, rate, tokens.shape)
        u = jax.random.uniform(kind, tokens.shape)
        any_token = jax.random.randint(other, tokens.shape, 0, vocabulary)
        shown = jnp.where(u < 0.8, mask_token, jnp.where(u < 0.9, any_token, tokens))
        return jnp.where(chosen, shown, tokens), jnp.where(chosen, tokens, -1)

    def augment(keys, examples):
        tokens, _ = examples
        return jax.vmap(one)(keys, tokens.astype(jnp.int32))

    return augment


def frozen(
    train: Examples, augment: Augment, copies: int, seed: int = 0, block: int = 1024
) -> Examples:
    """Returns `copies` augmented copies of a training set, in numpy.

    The key of example i in copy c follows from (seed, c, i) alone.
    """
    check_count("copies", copies)
    size = len(train[0])
    compute = jax.jit(augment)

    def rows(copy, start):
        index = np.arange(start, min(start + block, size), dtype=np.uint32)
        key = jax.random.fold_in(jax.random.key(seed), copy)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
        return compute(keys, jax.tree.map(lambda x: x[index], train))

    like = jax.eval_shape(lambda: rows(0, 0))
    out = jax.tree.map(lambda s: np.empty((copies * size, *s.shape[1:]), s.dtype), like)
    for copy in range(copies):
        for start in range(0, size, block):
            part = jax.device_get(rows(copy, start))
            at = copy * size + start
            pairs = zip(jax.tree.leaves(out), jax.tree.leaves(part), strict=True)
            for whole, piece in pairs:
                whole[at : at + len(piece)] = piece
    return out
