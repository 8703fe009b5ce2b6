"""Sets by name or path."""

import dataclasses
import difflib
import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path

from optsde.checks import check_count
from optsde.data import files, hub, prepared
from optsde.data.dataset import Dataset, join, split
from optsde.data.digits import all_digits, digit_images
from optsde.data.images import random_images
from optsde.data.text import standard_library

AT_HAND: dict[str, Callable[..., Dataset]] = {
    "digits": digit_images,
    "all_digits": all_digits,
    "synthetic": random_images,
    "text": standard_library,
}
NAMES = (*AT_HAND, *prepared.NAMES)


def load(
    name: str,
    *,
    root: str | os.PathLike | None = None,
    train_size: int | None = None,
    subset: int = 0,
    **options,
) -> Dataset:
    """Returns the set of this name or path, with all its training examples or some.

    Those are `train_size`, drawn from the seed `subset`. So few are the digits that
    those not trained on join the held-out ones. A path is a folder of images by class,
    a file of arrays or a table, or text: see docs/data.md. `hf://NAME[:CONFIG]` is read
    by the `datasets` library. `options` are those of the set: context for text; seed,
    of the held-out examples, for other paths; shape, classes, train, test and seed for
    synthetic. Sets that have to be prepared are looked for in `root`, else
    $OPTSDE_DATA, else ~/.cache/optsde/data.

    >>> few = load("digits", train_size=256)
    >>> few.train[0].shape, few.test[0].shape
    ((256, 8, 8, 1), (1541, 8, 8, 1))
    """
    make = _maker(name, root)
    _check_options(name, make, options)
    full = make(**options)
    if train_size is None:
        return full
    check_count("train_size", train_size, least=0)
    check_count("subset", subset, least=0)
    size = len(full.train[0])
    if not 1 <= train_size <= size:
        raise ValueError(f"train_size={train_size} must be from 1 to {size} for {name}")
    train, rest = split(full.train, train_size, subset)
    test = join(full.test, rest) if name == "digits" else full.test
    return dataclasses.replace(full, train=train, test=test)


def _maker(name: str, root: str | os.PathLike | None) -> Callable[..., Dataset]:
    if name in AT_HAND:
        return AT_HAND[name]
    if name in prepared.IMAGES:
        return functools.partial(prepared.image_set, name, root)
    if name in prepared.TEXTS:
        return functools.partial(prepared.text_set, name, root)
    if name.startswith(hub.PREFIX):
        return hub.maker(name)
    if (file := prepared.file_of(name, root)).exists():
        return files.maker(str(file))
    if name and files.is_path(name):
        return files.maker(name)
    raise ValueError(unknown(name, NAMES) + ", or a path")


def path_of(name: str) -> Path | None:
    """Returns the file or folder of one's own that `load` reads, None if there is none.

    Sets by name have none, and those of the `datasets` library that are no folder here.
    """
    if name in NAMES:
        return None
    if name.startswith(hub.PREFIX):
        path = hub.folder_of(name)
    elif not (path := prepared.file_of(name)).exists():
        path = Path(name).expanduser()
    return path.resolve() if path.exists() else None


def unknown(name: str, names) -> str:
    """Returns one line: the name given, what is near it, and what there is."""
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"data set {name!r} is not known; {hint}One of: {', '.join(names)}"


def _check_options(name: str, make: Callable, options: dict) -> None:
    allowed = [key for key in inspect.signature(make).parameters if key != "root"]
    allowed = [key for key in allowed if key != "name"]
    for key in options:
        if key not in allowed:
            takes = ", ".join(allowed) if allowed else "none"
            raise ValueError(f"{key} is no option of {name!r}; it takes: {takes}")
