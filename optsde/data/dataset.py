"""What a set of data is: examples to train on, others to judge by, their scale."""

import dataclasses
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Array: TypeAlias = np.ndarray | jax.Array
Examples: TypeAlias = tuple[np.ndarray, np.ndarray]  # (inputs [n, …], targets [n, …])


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Images are uint8 or float [n, h, w, c] with int32 labels [n].

    Text is uint8 [n, T], with the next byte of each as int32 [n, T]; it has no mean.
    Rows of features are float [n, d]. Numbers to be predicted, in place of labels, are
    float [n, k], and there are no classes then.
    """

    name: str
    train: Examples
    test: Examples
    classes: int | None
    mean: tuple[float, ...] = ()  # of each channel, where black is 0 and white is 1
    std: tuple[float, ...] = ()
    white: int = 255

    @property
    def is_text(self) -> bool:
        """Returns whether the inputs are tokens."""
        return not self.mean

    @property
    def is_images(self) -> bool:
        """Returns whether the inputs are images, and not rows of features."""
        return self.train[0].ndim == 4

    @property
    def outputs(self) -> int:
        """Returns how many numbers a net gives for an input, or for a token of it."""
        return self.train[1].shape[1] if self.classes is None else self.classes

    def normalise(self, x: Array, dtype=jnp.float32) -> jax.Array:
        """Returns (x/white − mean)/std of each channel, and tokens as int32.

        Computed in float32 at least, then cast.
        """
        x = jnp.asarray(x)
        if self.is_text:
            return x.astype(jnp.int32)
        wide = jnp.promote_types(dtype, jnp.float32)
        per_channel = (1,) * (x.ndim - 1) + (-1,)
        mean = self.white * np.asarray(self.mean, wide).reshape(per_channel)
        std = self.white * np.asarray(self.std, wide).reshape(per_channel)
        return ((x.astype(wide) - mean) / std).astype(dtype)


def split(examples: Examples, size: int, seed: int) -> tuple[Examples, Examples]:
    """Returns (`size` random examples, the rest); smaller ones of a seed are nested.

    RandomState, since NumPy promises that its streams never change.
    """
    inputs, targets = examples
    order = np.random.RandomState(seed).permutation(len(inputs))
    chosen, rest = order[:size], order[size:]
    return (inputs[chosen], targets[chosen]), (inputs[rest], targets[rest])


def imbalanced(examples: Examples, ratio: float, seed: int = 0) -> Examples:
    """Keeps a share ratio^(c/(C − 1)) of class c: all of the first class."""
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio={ratio} must lie in (0, 1]; 1 keeps every example")
    labels = examples[1]
    position = labels / max(labels.max(), 1)
    kept = np.random.RandomState(seed).rand(len(labels)) < ratio**position
    return examples[0][kept], labels[kept]


def join(first: Examples, second: Examples) -> Examples:
    """The examples of both, in this order."""
    return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])
