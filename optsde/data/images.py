"""Images that are always at hand: scikit-learn's digits, and random ones."""

import numpy as np

from optsde.data.dataset import Dataset, split


def digit_images() -> Dataset:
    """scikit-learn's digits as 8×8×1 pixels of 0…16: 1,500 to train on, 297 to test.

    Mean and standard deviation are those of all pixels of all 1,797 images.
    """
    from sklearn.datasets import load_digits

    pixels, labels = (np.asarray(part) for part in load_digits(return_X_y=True))
    images = pixels.reshape(-1, 8, 8, 1).astype(np.uint8)
    train, test = split((images, labels.astype(np.int32)), 1500, seed=0)
    mean, std = float(pixels.mean() / 16), float(pixels.std() / 16)
    return Dataset("digits", train, test, 10, (mean,), (std,), white=16)


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
