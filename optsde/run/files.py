"""Files that are written whole, and read only if they are what was written.

A file is written beside its place, put on the disk, and then moved there, so that a
process that is killed, or a host that fails, leaves the old one or the new one. No link
is followed in writing. Arrays are an npz archive whose comment is a digest of all that
comes before it: `numpy.load` reads it as any other, and no byte of it can change
unseen.
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

PARTIAL = ".partial"  # ends the name of a file that is being written
SIZE = 16  # bytes of a digest


def write(path: Path, content: bytes | str) -> None:
    """Writes a file in place of one that may be there, both of them whole."""
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(path.name + PARTIAL)
    partial.unlink(missing_ok=True)  # of a killed process, or a link to elsewhere
    try:
        with open(partial, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _keep_names(path.parent)


def _keep_names(folder: Path) -> None:
    """Puts on the disk what files a folder has, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def json_of(content: Any, indent: int | None = None) -> str:
    """Returns lines of JSON, with null for numbers that it has not: NaN, infinities.

    >>> json_of({"loss": [np.float32(0.5), np.nan]})
    '{"loss": [0.5, null]}\\n'
    """
    return json.dumps(_plain(content), indent=indent) + "\n"


def _plain(content):
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, np.generic):
        content = content.item()
    return None if isinstance(content, float) and not isfinite(content) else content


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays; refuses those that only pickle could store."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # no date: equal arrays, equal file
            with archive.open(member, "w", force_zip64=True) as file:
                plain = np.asanyarray(array)
                np.lib.format.write_array(file, plain, allow_pickle=False)
        archive.comment = bytes(SIZE)  # zeros, where the digest will be
    content = buffer.getvalue()[:-SIZE]
    write(path, content + hashed(content).digest())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns what `write_arrays` wrote; raises ValueError if any byte is another."""
    data = path.read_bytes()
    content, digest = data[:-SIZE], data[-SIZE:]
    if hashed(content).digest() != digest:
        raise ValueError("it is not as it was written")
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        return dict(stored)


def hashed(content: bytes = b""):
    """Returns the hash of bytes, which more can be added to."""
    return hashlib.blake2b(content, digest_size=SIZE)
