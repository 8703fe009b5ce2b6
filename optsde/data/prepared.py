"""Sets that are fetched once by `python -m optsde.data.prepare NAME`, read with numpy.

A set NAME is one file, NAME.npz, in the folder `root`, else $OPTSDE_DATA, else
~/.cache/optsde/data. Mean and standard deviation are the usual published ones, in which
each channel's pixels run from 0 to 1.
"""

import os
import pathlib
from typing import NamedTuple

import numpy as np

from optsde.data.dataset import Dataset
from optsde.data.text import from_bytes


class Statistics(NamedTuple):
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGES = {
    "cifar10": Statistics(10, (0.49147, 0.48226, 0.44677), (0.24703, 0.24349, 0.26159)),
    "cifar100": Statistics(
        100, (0.50707, 0.48655, 0.44092), (0.26733, 0.25644, 0.27615)
    ),
    "mnist": Statistics(10, (0.1307,), (0.3081,)),
    "fashion_mnist": Statistics(10, (0.2860,), (0.3530,)),
    "svhn_cropped": Statistics(10, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
}
# Any set of TFDS with a text feature will do.
TEXTS = ("tiny_shakespeare", "lm1b", "wiki40b/en")
NAMES = (*IMAGES, *TEXTS)


class NotPreparedError(ValueError):
    """The set is known, but its file is not there."""


def data_root(root: str | os.PathLike | None = None) -> pathlib.Path:
    """The folder where sets lie."""
    place = root or os.environ.get("OPTSDE_DATA") or "~/.cache/optsde/data"
    return pathlib.Path(place).expanduser()


def file_of(name: str, root: str | os.PathLike | None = None) -> pathlib.Path:
    """Returns the file of a prepared set, be it there or not; `a/b` becomes `a-b`."""
    return data_root(root) / f"{name.replace('/', '-')}.npz"


def image_set(name: str, root: str | os.PathLike | None = None) -> Dataset:
    """A prepared set of images."""
    arrays = "train_images", "train_labels", "test_images", "test_labels"
    parts, numbers = _read(name, root, arrays), IMAGES[name]
    train = parts["train_images"], parts["train_labels"]
    test = parts["test_images"], parts["test_labels"]
    return Dataset(name, train, test, numbers.classes, numbers.mean, numbers.std)


def text_set(
    name: str, root: str | os.PathLike | None = None, context: int = 128
) -> Dataset:
    """A prepared set of text, in windows of `context` bytes and their next ones."""
    parts = _read(name, root, ("train_text", "test_text"))
    return from_bytes(name, parts["train_text"], parts["test_text"], context)


def _read(
    name: str, root: str | os.PathLike | None, arrays: tuple[str, ...]
) -> dict[str, np.ndarray]:
    path = file_of(name, root)
    if not path.exists():
        where = f" --root {root}" if root else ""
        raise NotPreparedError(
            f"{name!r} is not prepared in {path.parent}: run `python -m "
            f"optsde.data.prepare {name}{where}` once, or use a set that is always at "
            "hand: digits, synthetic, text"
        )
    with np.load(path) as file:
        if not set(arrays) <= set(file.files):
            raise ValueError(
                f"{path} holds {', '.join(file.files)}, and is not what "
                f"`python -m optsde.data.prepare {name}` writes ({', '.join(arrays)}): "
                "move it, and load it by its path"
            )
        return dict(file)
