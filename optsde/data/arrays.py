"""From arrays of one's own to a data set: what they mean, their scale, what is wrong.

Targets of whole numbers 0 … C − 1, or of names, are classes. Targets of other floats
are numbers to be predicted, in units of their standard deviation.
"""

import numpy as np

from optsde.data.dataset import Dataset, Examples, split

HELD_OUT = 5  # one in so many examples is held out, where nothing says which
BLOCK = 4096  # examples of which sums are formed at once


def from_arrays(
    inputs: np.ndarray,
    targets: np.ndarray,
    test: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    name: str = "arrays",
    seed: int = 0,
) -> Dataset:
    """Returns the data set of inputs and targets in memory.

    Mean and standard deviation of inputs and of numbers to be predicted are those of
    the training examples, of each channel of images and of each feature of rows.

    >>> x = np.linspace(0, 1, 40).reshape(20, 2)
    >>> from_arrays(x, np.arange(20) % 2).classes
    2
    >>> from_arrays(x, np.sin(x[:, 0])).classes is None
    True

    Args:
      inputs: images [n, h, w] or [n, h, w, channels], of uint8 or floats; or features
        [n, d].
      targets: a class for each, by number or by name; or floats [n] or [n, k].
      test: (inputs, targets) that are held out; None draws a fifth of the examples.
      name: of the data, for errors.
      seed: of that draw, and of the order of the examples.
    """
    try:
        return _from_arrays(inputs, targets, test, name, seed)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _from_arrays(inputs, targets, test, name: str, seed: int) -> Dataset:
    train = _paired(inputs, targets, "training")
    if test is None:
        count = len(train[0])
        held_out = max(1, count // HELD_OUT)
        if count < 2:
            raise ValueError("one example is none to train on and one to hold out")
        train, test = split(train, count - held_out, seed)
    else:
        test = _paired(test[0], test[1], "held-out")
        # Folders are in the order of their classes, and some studies take the first n.
        train, test = (split(part, len(part[0]), seed)[0] for part in (train, test))
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            f"training inputs are {_size(train[0])}, held-out ones {_size(test[0])}: "
            "all examples need one size"
        )
    classes, labels = _targets(train[1], test[1])
    mean, std, white = _statistics(train[0])
    train, test = (train[0], labels[0]), (test[0], labels[1])
    return Dataset(name, train, test, classes, mean, std, white)


def _paired(inputs, targets, words: str) -> Examples:
    inputs, targets = np.asarray(inputs), np.asarray(targets)
    if not inputs.size or not targets.size:
        raise ValueError(f"there are no {words} examples")
    if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets):
        shapes = f"{len(np.atleast_1d(inputs))} inputs and "
        shapes += f"{len(np.atleast_1d(targets))} targets"
        raise ValueError(f"{shapes} for {words}: each example needs one of both")
    return _inputs(inputs), targets


def _inputs(x: np.ndarray) -> np.ndarray:
    """Returns uint8 or float32, images [n, h, w, c] or features [n, d]."""
    if x.dtype.kind not in "buif":
        raise ValueError(f"inputs are {x.dtype}, and must be numbers")
    if x.ndim > 4:
        raise ValueError(
            f"inputs are {list(x.shape)}: needs images [n, h, w, channels] or "
            "features [n, d]"
        )
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] not in (1, 2, 3, 4):
        raise ValueError(
            f"images are {list(x.shape)}, with channels first: transpose them to "
            "[n, h, w, channels]"
        )
    if x.ndim == 1:
        x = x[:, None]
    if x.ndim == 3:
        x = x[..., None]
    if x.dtype == np.uint8 and x.ndim == 4:
        return x
    with np.errstate(over="ignore"):
        single = x.astype(np.float32)
    if not np.isfinite(single).all():
        row = np.argwhere(~np.isfinite(single))[0]
        place = ", ".join(map(str, row))
        raise ValueError(
            f"inputs[{place}] is {x[tuple(row)]}: all inputs must be finite in float32"
        )
    if x.ndim == 2:
        _check_resolved(x.astype(np.float64))
    return single


def _check_resolved(features: np.ndarray) -> None:
    """Refuses what varies by too little beside its size for float32 to show it."""
    first, span = features[0], np.ptp(features, axis=0)
    for number in np.flatnonzero((span > 0) & (span < 1e-5 * np.abs(first))):
        raise ValueError(
            f"feature {number} varies by {span[number]:.2g} about {first[number]:.6g}, "
            "which float32 does not resolve: subtract its mean"
        )


def _targets(train: np.ndarray, test: np.ndarray):
    """Returns (number of classes, or None; training and held-out targets)."""
    if train.shape[1:] != test.shape[1:]:
        raise ValueError(
            f"training targets are {_size(train)}, held-out ones {_size(test)}"
        )
    if train.ndim > 2:
        raise ValueError(f"targets are {list(train.shape)}: needs [n] or [n, k]")
    if train.ndim == 2 and train.shape[1] == 1:
        train, test = train[:, 0], test[:, 0]
    kinds = {part.dtype.kind for part in (train, test)}
    if kinds == {"f"}:
        return None, _numbers(train, test)
    if train.ndim == 2:
        raise ValueError(
            f"targets are whole numbers {list(train.shape)}: give one class for each "
            "example (of one-hot rows argmax), or floats to be predicted"
        )
    if kinds <= {"U", "S", "O"}:
        train, test = (part.astype(str) for part in (train, test))
        names, train = np.unique(train, return_inverse=True)
        if unknown := sorted({*test} - {*names}):
            raise ValueError(f"no training example is of the class {str(unknown[0])!r}")
        test = np.searchsorted(names, test)
    elif not kinds <= {"b", "i", "u"}:
        raise ValueError(
            f"targets are {train.dtype} and {test.dtype}: needs whole numbers or names "
            "of classes, or floats to be predicted"
        )
    return _classes(train, test), tuple(x.astype(np.int32) for x in (train, test))


def _classes(train: np.ndarray, test: np.ndarray) -> int:
    """Returns how many classes there are; refuses labels that do not count them."""
    low, high = (int(x) for x in (min(train.min(), test.min()), train.max()))
    given = np.unique(train)
    if low < 0:
        raise ValueError(f"a label is {low}: labels count the classes from 0")
    if len(given) == 1:
        raise ValueError(f"all labels are {high}: there is nothing to tell apart")
    if len(given) != high + 1:
        missing = int(np.setdiff1d(np.arange(len(given)), given)[0])
        raise ValueError(
            f"labels run up to {high}, and no training example is of class {missing}: "
            "number the classes from 0 without gaps, or store numbers that are to be "
            "predicted as floats"
        )
    if test.max() > high:
        raise ValueError(
            f"a held-out label is {int(test.max())}, training labels end at {high}"
        )
    return len(given)


def _numbers(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns numbers to be predicted, float32 [n, k], less mean, over deviation."""
    train, test = (np.asarray(x, np.float64) for x in (train, test))
    for part in (train, test):
        if not np.isfinite(part).all():
            row = np.argwhere(~np.isfinite(part))[0]
            raise ValueError(f"targets{row.tolist()} is {part[tuple(row)]}")
    doubt = "give classes as whole numbers; a number to be predicted that looks like "
    doubt += "this one can be told apart by a factor, as y/10"
    if train.ndim == 2 and _is_one_hot(train):
        raise ValueError(f"targets are one-hot rows of floats: {doubt}, or by argmax")
    given = np.unique(train)
    if train.ndim == 1 and np.array_equal(given, np.arange(len(given))):
        raise ValueError(
            f"targets are floats 0.0 … {given[-1]}, as labels are: {doubt}"
        )
    if train.ndim == 1:
        train, test = train[:, None], test[:, None]
    mean, std = train.mean(axis=0), train.std(axis=0)
    if not std.all():
        raise ValueError("all training targets are alike: there is nothing to predict")
    first, second = (((x - mean) / std).astype(np.float32) for x in (train, test))
    return first, second


def _is_one_hot(rows: np.ndarray) -> bool:
    return bool(np.isin(rows, (0, 1)).all() and (rows.sum(axis=1) == 1).all())


def _statistics(x: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Returns mean and deviation of each channel or feature, and the white level.

    Two passes in float64, a block of examples at a time. What never varies has 1.
    """
    white = 255 if x.dtype == np.uint8 else 1
    rows = x.reshape(-1, x.shape[-1])
    size = BLOCK * max(1, len(rows) // len(x))
    blocks = range(0, len(rows), size)

    def mean_of(f):
        sums = (f(rows[i : i + size] / white).sum(axis=0) for i in blocks)
        return sum(sums, np.zeros(rows.shape[1])) / len(rows)

    mean = mean_of(lambda part: part.astype(np.float64))
    std = np.sqrt(mean_of(lambda part: (part - mean) ** 2))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1).tolist()), white


def _size(x: np.ndarray) -> str:
    return "×".join(map(str, x.shape[1:])) or "single numbers"
