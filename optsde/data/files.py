"""Data by path: images in folders, arrays, tables, text.

What each format must hold is said in docs/data.md.
"""

import csv
import functools
import importlib.util
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from optsde.data import columns
from optsde.data.arrays import from_arrays
from optsde.data.dataset import Dataset
from optsde.data.text import from_bytes

Part = tuple[np.ndarray, np.ndarray]  # inputs, targets
Parts = tuple[Part, Part | None]  # to train on, held out

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
TEXTS = (".txt", ".text", ".md", ".rst", ".tex", ".py")
UNREAD = (".tsv", ".json", ".jsonl", ".xlsx", ".xls", ".feather", ".arrow")
HELD_OUT = ("test", "validation", "val", "valid")  # the first that is there
ARRAYS = (
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),
    ("x", "y"),
)
TEXT_ARRAYS = ("train_text", "test_text")
FORMATS = (
    "a folder of images by class, .npz, .npy, .csv, .parquet, a text file, or a folder "
    f"of texts ({' '.join(TEXTS)})"
)


def is_path(name: str) -> bool:
    """Returns whether the name of a set is meant as a path."""
    path = Path(name).expanduser()
    suffixes = (*READERS, *TEXTS, *UNREAD)
    return "/" in name or path.suffix.lower() in suffixes or path.exists()


def maker(name: str) -> Callable[..., Dataset]:
    """Returns what makes the set of a path, by its options: context, or seed."""
    path = Path(name).expanduser()
    if not path.exists():
        raise ValueError(f"{name}: no such file or folder; needs {FORMATS}")
    suffix = path.suffix.lower()
    if suffix in UNREAD and path.is_file():
        raise ValueError(
            f"{name}: tables of kind {suffix} are not read: save it as .csv or "
            ".parquet; if it is meant as text, name it .txt"
        )
    if suffix == ".npz" and path.is_file():
        with reading(path), np.load(path) as file:
            if set(file.files) & set(TEXT_ARRAYS):
                return functools.partial(_text_arrays, name, path)
    elif path.is_dir() and not _has_images(path):
        return functools.partial(_text_folder, name, path)
    elif path.is_file() and suffix not in READERS:
        return functools.partial(_text_file, name, path)
    read = image_folder if path.is_dir() else READERS[suffix]
    return functools.partial(_examples, name, path, read)


def _examples(name: str, path: Path, read: Callable, seed: int = 0) -> Dataset:
    with reading(path):
        train, test = read(path)
    inputs, targets = train
    return from_arrays(inputs, targets, test, name=name, seed=seed)


@contextmanager
def reading(path: Path):
    """Errors of a file begin with its path."""
    try:
        yield
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: {line}") from None


# ---- arrays


def npz(path: Path) -> Parts:
    """Returns the examples of an archive, whose arrays are named as in `ARRAYS`."""
    with np.load(path) as file:
        lower = {name.lower(): name for name in file.files}
        for names in ARRAYS:
            if set(names) <= set(lower):
                arrays = [file[lower[name]] for name in names]
                train, *test = zip(arrays[::2], arrays[1::2], strict=True)
                return train, (test[0] if test else None)
    known = "; ".join(" ".join(names) for names in (*ARRAYS, TEXT_ARRAYS))
    found = ", ".join(lower) or "nothing"
    raise ValueError(f"holds {found}; needs arrays called {known}")


def npy(path: Path) -> Parts:
    """Returns the examples of a structured array, or of NAME and NAME_labels."""
    array = np.load(path)
    if array.dtype.names:
        if not {"x", "y"} <= set(array.dtype.names):
            fields = ", ".join(array.dtype.names)
            raise ValueError(f"has the fields {fields}; needs x and y")
        return (array["x"], array["y"]), None
    beside = path.with_name(f"{path.stem}_labels.npy")
    if not beside.is_file():
        raise ValueError(
            f"has no targets: needs {beside.name} beside it, or fields x and y"
        )
    return (array, np.load(beside)), None


# ---- tables


def comma_separated(path: Path) -> Parts:
    """Returns the examples of a CSV, with or without a line of names."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows:
        raise ValueError("there are no rows")
    headed = columns.are_names(rows[0], list(zip(*rows[1:], strict=False)))
    names = rows.pop(0) if headed else [f"column {i + 1}" for i in range(len(rows[0]))]
    if len({*names}) < len(names):
        raise ValueError("two columns have the same name")
    if not rows:
        raise ValueError("there are no rows below the names of the columns")
    for number, row in enumerate(rows, 1):
        if len(row) != len(names) or not all(cell.strip() for cell in row):
            raise ValueError(
                f"row {number} has {sum(bool(cell.strip()) for cell in row)} values, "
                f"and there are {len(names)} columns"
            )
    cells = zip(*rows, strict=True)
    table = {n: columns.parsed(list(x)) for n, x in zip(names, cells, strict=True)}
    return columns.examples(table), None


def parquet(path: Path) -> Parts:
    """Returns the examples of a Parquet file."""
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError("needs pyarrow: install it with `pip install optsde[parquet]`")
    import pyarrow.parquet

    return columns.examples(arrow_columns(pyarrow.parquet.read_table(path))), None


def arrow_columns(table: Any) -> dict[str, np.ndarray]:
    """Returns the columns of an Arrow table; refuses missing values and nested ones."""
    found = {}
    index = (table.schema.pandas_metadata or {}).get("index_columns", ())
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in index or name.startswith("__index_level_"):
            raise ValueError(
                f"column {name!r} is the index of a pandas frame: save it with "
                "index=False (in datasets preserve_index=False), after reset_index() "
                "if it is data"
            )
        if column.null_count:
            raise ValueError(f"column {name!r} has {column.null_count} missing values")
        array = column.to_numpy()
        if array.dtype.kind == "O":
            array = np.array(column.to_pylist(), dtype=str if _texts(array) else object)
        if array.dtype.kind not in "buifU":
            raise ValueError(
                f"column {name!r} is {column.type}: needs numbers, or names of classes"
            )
        found[name] = array
    return found


def _texts(array: np.ndarray) -> bool:
    return all(isinstance(x, str) for x in array)


# ---- images


def image_folder(path: Path) -> Parts:
    """Returns the images of root/CLASS/*, or of root/train and root/test."""
    names = [folder.name for folder in _folders(path)]
    held_out = [name for name in HELD_OUT if name in names]
    if "train" not in names or not held_out:
        return _classes_of(path), None
    if len(names) > 2:
        raise ValueError(
            f"has the folders {', '.join(names)}: leave train and one held-out one, of "
            f"{', '.join(HELD_OUT)}"
        )
    return _classes_of(path / "train"), _classes_of(path / held_out[0])


def _classes_of(root: Path) -> Part:
    """Returns the images below a folder, and for each the name of its class."""
    if importlib.util.find_spec("PIL") is None:
        raise ValueError("needs pillow: install it with `pip install pillow`")
    if _images(root):
        raise ValueError("needs a folder for each class, with its images in it")
    files = {folder: _images(folder) for folder in _folders(root)}
    if empty := [folder for folder, inside in files.items() if not inside]:
        raise ValueError(f"{empty[0].relative_to(root.parent)} holds no images")
    pictures = [(file, _opened(file)) for inside in files.values() for file in inside]
    grey = all(image.mode == "L" for _, image in pictures)
    arrays = [
        np.asarray(image if grey else image.convert("RGB")) for _, image in pictures
    ]
    for (file, _), array in zip(pictures, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"{file.name} is {_size(array)} pixels and {pictures[0][0].name} "
                f"{_size(arrays[0])}: make all images one size"
            )
    labels = [folder.name for folder, inside in files.items() for _ in inside]
    return np.stack(arrays), np.array(labels)


def _opened(file: Path) -> Any:
    import PIL.Image

    try:
        with PIL.Image.open(file) as image:
            return pixels(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{file.parent.name}/{file.name}: {error}") from None


def pixels(image: Any) -> Any:
    """Returns a picture in grey (L) or colour (RGB), of 8 bits; refuses to lose any."""
    if "transparency" in image.info and image.mode in ("1", "L", "P", "RGB"):
        image = image.convert("LA" if image.mode in ("1", "L") else "RGBA")
    if image.mode in ("RGBA", "LA"):
        if image.getextrema()[-1] != (255, 255):
            raise ValueError("is partly transparent: put it on a background")
        return image.convert(image.mode[:-1])
    if image.mode in ("L", "RGB"):
        return image.copy()
    if image.mode in ("1", "P"):
        return image.convert("L" if image.mode == "1" else "RGB")
    raise ValueError(f"has pixels of kind {image.mode}: needs 8 bits, grey or RGB")


def _has_images(root: Path) -> bool:
    return any(x.suffix.lower() in IMAGES for x in root.rglob("*"))


def _folders(root: Path) -> list[Path]:
    inside = (x for x in root.iterdir() if x.is_dir() and not x.name.startswith("."))
    return sorted(inside)


def _images(folder: Path) -> list[Path]:
    return sorted(x for x in folder.iterdir() if x.suffix.lower() in IMAGES)


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}×{array.shape[0]}"


# ---- text


def _text_file(name: str, path: Path, context: int = 128) -> Dataset:
    with reading(path):
        return _in_windows(name, [_utf8(path)], context)


def _text_folder(name: str, path: Path, context: int = 128) -> Dataset:
    with reading(path):
        files = sorted(x for x in path.rglob("*") if x.suffix.lower() in TEXTS)
        if not files:
            raise ValueError(f"a folder without images or texts; needs {FORMATS}")
        return _in_windows(name, [_utf8(file) for file in files], context)


def _text_arrays(name: str, path: Path, context: int = 128) -> Dataset:
    with reading(path), np.load(path) as file:
        for array in TEXT_ARRAYS:
            if array not in file or file[array].dtype != np.uint8:
                raise ValueError(f"needs {' and '.join(TEXT_ARRAYS)}, bytes as uint8")
        train, test = (file[array] for array in TEXT_ARRAYS)
        return from_bytes(name, train, test, context)


def _in_windows(name: str, texts: list[bytes], context: int) -> Dataset:
    """Holds out every tenth text; of fewer than ten the last tenth of the bytes."""
    if not any(texts):
        raise ValueError("the text is empty")
    if len(texts) >= 10:
        test = b"\n".join(texts[9::10])
        train = b"\n".join(x for i, x in enumerate(texts) if i % 10 != 9)
    else:
        whole = b"\n".join(texts)
        cut = len(whole) - len(whole) // 10
        train, test = whole[:cut], whole[cut:]
    first, second = (np.frombuffer(part, np.uint8) for part in (train, test))
    return from_bytes(name, first, second, context)


def _utf8(file: Path) -> bytes:
    content = file.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{file.name} is not text in UTF-8; needs {FORMATS}") from None
    return content


READERS: dict[str, Callable[[Path], Parts]] = {
    ".npz": npz,
    ".npy": npy,
    ".csv": comma_separated,
    ".parquet": parquet,
}
