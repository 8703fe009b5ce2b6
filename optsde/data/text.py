"""Text as bytes: 256 tokens, cut into windows that do not overlap.

What is always at hand is the source of Python's standard library. Its content follows
the Python version, so compare runs only within one.
"""

import os
import pathlib
import sysconfig

import numpy as np

from optsde.data.dataset import Array, Dataset, Examples

# No part of the library (packages, tests), or tables and settings rather than text.
_LEFT_OUT = {"__pycache__", "dist-packages", "encodings", "idlelib", "pydoc_data"}
_LEFT_OUT |= {"site-packages", "test", "tests"}


def standard_library(context: int = 128) -> Dataset:
    """The .py files of the standard library, every tenth of which is held out."""
    train, test = source_files()
    return from_bytes("text", _bytes_of(train), _bytes_of(test), context)


def source_files() -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Returns (files to train on, files held out), in the order of their paths."""
    files = []
    for folder, folders, names in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = [f for f in folders if f not in _LEFT_OUT and "config-" not in f]
        for name in names:
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                files.append(pathlib.Path(folder, name))
    files.sort()
    held_out = files[9::10]
    return sorted(set(files) - set(held_out)), held_out


def from_bytes(name: str, train: np.ndarray, test: np.ndarray, context: int) -> Dataset:
    """A set of text from two streams of bytes, uint8 [length]."""
    return Dataset(name, _windows(train, context), _windows(test, context), classes=256)


def next_token(windows: Array) -> tuple[Array, Array]:
    """Splits windows [..., T+1] into (inputs [..., T], the token after each, int32)."""
    return windows[..., :-1], windows[..., 1:].astype(np.int32)


def _windows(stream: np.ndarray, context: int) -> Examples:
    if not 1 <= context < len(stream):
        raise ValueError(
            f"context={context} must be from 1 to {len(stream) - 1}, one less than "
            f"the {len(stream)} bytes of the text"
        )
    count = len(stream) // (context + 1)
    windows = stream[: count * (context + 1)].reshape(count, context + 1)
    inputs, targets = next_token(windows)
    return np.ascontiguousarray(inputs), np.asarray(targets)


def _bytes_of(files: list[pathlib.Path]) -> np.ndarray:
    return np.frombuffer(b"\n".join(f.read_bytes() for f in files), np.uint8)
