"""Random images, always at hand."""

import numpy as np

from optsde.data.dataset import Dataset


def random_images(
    shape: tuple[int, ...] = (32, 32, 3),
    classes: int = 10,
    train: int = 1024,
    test: int = 256,
    seed: int = 0,
) -> Dataset:
    """A random picture for each class, and each image one of them plus uniform noise.

    A linear model tells the classes apart. Mean and standard deviation are those of
    the first 1,024 training images.
    """
    random = np.random.RandomState(seed)
    pictures = random.randint(0, 128, (classes, *shape), np.uint8)
    labels = random.randint(0, classes, train + test).astype(np.int32)
    images = random.randint(0, 128, (train + test, *shape), np.uint8)
    images += pictures[labels]
    channels = images[: min(train, 1024)].reshape(-1, shape[-1]) / 255
    return Dataset(
        "synthetic",
        (images[:train], labels[:train]),
        (images[train:], labels[train:]),
        classes,
        tuple(channels.mean(axis=0).tolist()),
        tuple(channels.std(axis=0).tolist()),
    )
