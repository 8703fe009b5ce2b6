"""From a table's columns to inputs and targets."""

from collections.abc import Mapping, Sequence

import numpy as np

TARGETS = ("label", "target", "y")
MISSING = ("", "na", "n/a", "nan", "null", "?")


def examples(columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns features [n, d] and the targets of a table.

    The target is the column called label, target or y, else the last one.
    """
    names = list(columns)
    if len(names) < 2:
        raise ValueError(
            f"one column, {names[0]!r}: needs features and a target, separated by "
            "commas in a CSV"
            if names
            else "no columns"
        )
    named = [name for name in names if name.lower() in TARGETS]
    if len(named) > 1:
        raise ValueError(
            f"columns {', '.join(named)} are all named as targets: leave one"
        )
    target = named[0] if named else names[-1]
    features = [name for name in names if name != target]
    for name in features:
        if columns[name].dtype.kind not in "buif":
            text = next(x for x in columns[name] if not is_number(x))
            raise ValueError(
                f"column {name!r} has {str(text)!r}: features must be numbers; the "
                f"target is {target!r}"
            )
        if not name.strip():
            raise ValueError(
                "a column has no name: name it, or leave it out if it counts the rows"
            )
    texts = columns[target] if columns[target].dtype.kind == "U" else ()
    for row, cell in enumerate(texts, 1):
        if _is_missing(cell):
            raise ValueError(
                f"column {target!r} has {str(cell)!r} in row {row}: fill it in or "
                "leave the row out"
            )
    inputs = np.stack([columns[name].astype(np.float64) for name in features], axis=1)
    bad = np.argwhere(~np.isfinite(inputs))
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"column {features[column]!r} has {inputs[row, column]} in row {row + 1}: "
            "fill it in or leave the row out"
        )
    return inputs, columns[target]


def are_names(first: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Returns whether the first line of a table names its columns.

    It does if it has no numbers, or a text where all below are numbers, or label,
    target or y where no other cell is that. One that may only count the columns is
    refused.
    """
    if not any(map(is_number, first)):
        return True
    cells = list(zip(first, below, strict=False))
    if any(_is_name(cell, column) for cell, column in cells):
        return True
    counted = (
        cell == str(i) if is_number(cell) else cell not in column
        for i, (cell, column) in enumerate(cells)
    )
    if len(cells) > 1 and all(counted):
        raise ValueError(
            f"the first row is {', '.join(first)}, which may count the columns: put a "
            "line with a name for each above it, or in its place"
        )
    return False


def _is_name(cell: str, column: Sequence[str]) -> bool:
    if is_number(cell):
        return False
    if cell.lower() in TARGETS and cell not in column:
        return True
    return all(map(is_number, column)) and not _is_missing(cell)


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in MISSING


def parsed(cells: list[str]) -> np.ndarray:
    """Returns a column of texts as integers, floats or texts, the first that fits."""
    texts = np.array(cells)
    for kind in (np.int64, np.float64):
        try:
            return texts.astype(kind)
        except (ValueError, OverflowError):
            continue
    return texts


def is_number(text) -> bool:
    """Returns whether a cell can be read as a number."""
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True
