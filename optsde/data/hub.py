"""From the `datasets` library to a data set: the only file that knows it."""

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from optsde.data import columns
from optsde.data.arrays import from_arrays
from optsde.data.dataset import Dataset
from optsde.data.files import HELD_OUT, arrow_columns, pixels
from optsde.data.text import from_bytes

PREFIX = "hf://"


def maker(name: str) -> Callable[..., Dataset]:
    """Returns what makes the set hf://NAME[:CONFIG], or the one in a local folder."""
    try:
        train, test = _splits(name)
        kind = _kind(train)
        if kind == "text":
            return functools.partial(_text, name, train, test)
        read = _images if kind == "images" else _table
        held_out = None if test is None else read(test)
        return functools.partial(_examples, name, read(train), held_out)
    except ValueError as error:
        line = (str(error).strip().splitlines() or ["ValueError"])[0]
        raise ValueError(f"{name}: {line}") from None


def folder_of(name: str) -> Path:
    """Returns the local folder that hf://FOLDER[:CONFIG] means, be it there or not."""
    return Path(name.removeprefix(PREFIX).partition(":")[0]).expanduser()


def _splits(name: str) -> tuple[Any, Any]:
    """Returns (the split to train on, the held-out one or None)."""
    if importlib.util.find_spec("datasets") is None:
        raise ValueError("needs datasets: install it with `pip install optsde[hf]`")
    import datasets

    place, _, config = name.removeprefix(PREFIX).partition(":")
    folder = folder_of(name)
    stored = any((folder / x).exists() for x in ("state.json", "dataset_dict.json"))
    datasets.disable_progress_bars()
    try:
        if stored:
            found: Any = datasets.load_from_disk(str(folder))
        else:
            place = str(folder) if folder.is_dir() else place
            found = datasets.load_dataset(place, config or None)
    except Exception as error:  # whatever the library and the network raise
        raise ValueError(f"{type(error).__name__}: {error}") from None
    if not isinstance(found, dict):
        return found, None
    if len(found) == 1:
        return next(iter(found.values())), None
    if "train" not in found:
        raise ValueError(
            f"has the splits {', '.join(map(str, found))}, and none called train"
        )
    held_out = [found[split] for split in HELD_OUT if split in found]
    if not held_out:
        raise ValueError(
            f"has the splits {', '.join(map(str, found))}, and none to hold out: needs "
            f"one called {', '.join(HELD_OUT)}"
        )
    return found["train"], held_out[0]


def _kind(data: Any) -> str:
    """Returns images, text or table."""
    kinds = {name: type(x).__name__ for name, x in data.features.items()}
    if "Image" in kinds.values():
        return "images"
    if "text" not in kinds:
        return "table"
    if others := [name for name in kinds if name.lower() in columns.TARGETS]:
        raise ValueError(
            f"has text and {others[0]}, and no net here classifies text: define "
            "task(config) in a file of your own"
        )
    return "text"


def _examples(name: str, train: Any, test: Any, seed: int = 0) -> Dataset:
    inputs, targets = train
    return from_arrays(inputs, targets, test, name=name, seed=seed)


def _images(data: Any) -> tuple[np.ndarray, np.ndarray]:
    kinds = {name: type(x).__name__ for name, x in data.features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    labels = labels or [name for name in kinds if name.lower() in columns.TARGETS]
    if len(images) != 1 or len(labels) != 1:
        raise ValueError(
            f"has the columns {', '.join(kinds)}: needs one of images and one of labels"
        )
    pictures = [pixels(picture) for picture in data[images[0]]]
    grey = all(picture.mode == "L" for picture in pictures)
    arrays = [np.asarray(x if grey else x.convert("RGB")) for x in pictures]
    if len({array.shape for array in arrays}) > 1:
        raise ValueError("its images are of several sizes: make them one size")
    return np.stack(arrays), np.array(data[labels[0]])


def _table(data: Any) -> tuple[np.ndarray, np.ndarray]:
    return columns.examples(arrow_columns(data.with_format("arrow")[:]))


def _text(name: str, train: Any, test: Any, context: int = 128) -> Dataset:
    first = _bytes(train)
    if test is not None:
        return from_bytes(name, first, _bytes(test), context)
    cut = len(first) - len(first) // 10
    return from_bytes(name, first[:cut], first[cut:], context)


def _bytes(data: Any) -> np.ndarray:
    return np.frombuffer("\n".join(data["text"]).encode(), np.uint8)
