"""What is refused of a run directory before anything in it is trusted or written.

Links and special files, which lead out of it or do not end; folders in the place of
files; what cannot be written; JSON of another shape. Reading executes nothing.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILES = {".json", ".jsonl", ".html", ".log", ".npz", ".partial"}
FILES |= {".png", ".pdf", ".gif", ".svg"}
FOLDERS = {"figures", "curves", "unfinished", "checkpoints", "tensorboard"}
FOREIGN = "wandb"  # a folder that only wandb writes and reads, and fills with links


def refuse_foreign(folder: Path, writing: bool = True) -> None:
    """Refuses a directory that holds what no run has written.

    Where it is for `writing`, what cannot be written is refused too.
    """
    for entry in _walk(folder):
        hint = "or name another directory"
        if entry.is_symlink():
            raise ValueError(f"{entry.path} is a link; remove it, {hint}")

        is_folder = entry.is_dir(follow_symlinks=False)
        if not is_folder and not entry.is_file(follow_symlinks=False):
            raise ValueError(f"{entry.path} is no plain file; remove it, {hint}")
        if is_folder and Path(entry.name).suffix in FILES:
            raise ValueError(
                f"{entry.path} is a folder, and must be a file; remove it, {hint}"
            )
        if not is_folder and entry.name in FOLDERS:
            raise ValueError(
                f"{entry.path} is a file, and must be a folder; remove it, {hint}"
            )
        if writing and not os.access(entry.path, os.W_OK):
            raise ValueError(f"{entry.path} cannot be written; allow it, {hint}")


def _walk(folder: Path | str) -> Iterator[os.DirEntry]:
    """Yields all that is below a folder, and follows no link."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda x: x.name):
            yield entry
            if entry.is_dir(follow_symlinks=False) and entry.name != FOREIGN:
                yield from _walk(entry.path)


def refuse_unwritable(path: Path) -> None:
    """Refuses a directory that could not be made or written, before it is tried."""
    place = path.absolute()
    while not place.exists() and not place.is_symlink():
        place = place.parent
    if not place.is_dir():
        raise ValueError(
            f"--workdir={path}: {place} is no directory; name another place"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(
            f"--workdir={path}: {place} cannot be written; name another place"
        )


def read_object(file: Path, **kinds: type) -> dict[str, Any]:
    """Returns the object in a JSON file, where the entries named have texts."""
    try:
        found = json.loads(file.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("no object")
        for name, kind in kinds.items():
            texts = found.get(name)
            if not isinstance(texts, kind) or not all(
                isinstance(x, str) for x in (texts.values() if kind is dict else texts)
            ):
                raise ValueError(f"{name} is no {kind.__name__} of texts")
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(
            f"{file} is damaged ({error}); remove it to begin again"
        ) from None
    return found
