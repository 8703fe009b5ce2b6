"""scikit-learn's digits: 1,797 real images of 8×8 pixels, always at hand."""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from optsde.data.dataset import Dataset, split


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs [1797, 64], in about −.3 … .7, and labels [1797]."""
    pixels, labels = _pixels()
    return (pixels / 16 - 0.3).astype(np.float32), labels


def digit_images() -> Dataset:
    """Returns the digits as 8×8×1 pixels of 0…16: 1,500 to train on, 297 to test.

    Mean and standard deviation are those of all pixels of all 1,797 images.
    """
    pixels, labels = _pixels()
    images = pixels.reshape(-1, 8, 8, 1).astype(np.uint8)
    train, test = split((images, labels), 1500, seed=0)
    mean, std = float(pixels.mean() / 16), float(pixels.std() / 16)
    return Dataset("digits", train, test, 10, (mean,), (std,), white=16)


def all_digits() -> Dataset:
    """Returns `digits()` as images 8×8×1, all of them to train on.

    No image is held out: those to evaluate on are the same.
    """
    inputs, labels = digits()
    every = inputs.reshape(-1, 8, 8, 1), labels
    return Dataset("all_digits", every, every, 10, (0.0,), (1.0,), white=1)


def _pixels() -> tuple[np.ndarray, np.ndarray]:
    """Returns pixels [1797, 64], float64 of 0…16, and labels.

    They are read from scikit-learn's file; its import takes a second.
    """
    sklearn = find_spec("sklearn")
    if sklearn is None or sklearn.origin is None:
        raise ImportError(
            "the digits come with scikit-learn: pip install 'optsde[studies]'"
        )
    file = Path(sklearn.origin).parent / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(file, "rt") as lines:
        rows = np.loadtxt(lines, delimiter=",")
    return rows[:, :-1], rows[:, -1].astype(np.int32)
