"""Finished parts of a study on disk: arrays by name, one file for each part.

Parts that are stored together, such as arms that ran as one ensemble, are in one file,
so that they are there together or not at all. A file is called by the name of its
first part, or by what file systems take of that and a digest.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from optsde.run import files

Arrays = Mapping[str, np.ndarray]
RUN = "run"  # the array that tells which run a file is of
PLAIN = re.compile(r"[a-z0-9_][a-z0-9_.=-]{0,63}")  # the same on any file system


class Parts:
    """The parts in a folder; all files were read, and are whole.

    Args:
      folder: of the files.
      run: what tells the run that they are of from any other. Parts that are copied
        here from another are refused; an empty text reads those of any run.
    """

    def __init__(self, folder: Path, run: str = ""):
        self.folder = folder
        self._run = run
        self._files: dict[str, Path] = {}
        for file in sorted(folder.glob("*.npz")):
            self._files |= dict.fromkeys(self._read(file), file)

    def names(self) -> list[str]:
        """Returns the names of the parts."""
        return list(self._files)

    def read(self, names: Iterable[str]) -> dict[str, dict[str, np.ndarray]]:
        """Returns the arrays of those of the named parts that are there."""
        wanted = [name for name in names if name in self._files]
        stored = {file: self._read(file) for file in {self._files[x] for x in wanted}}
        return {name: stored[self._files[name]][name] for name in wanted}

    def flat(self) -> dict[str, np.ndarray]:
        """Returns the arrays of all parts by PART/NAME."""
        return {
            f"{part}/{key}": array
            for part, arrays in self.read(self._files).items()
            for key, array in arrays.items()
        }

    def write(self, parts: Mapping[str, Arrays]) -> None:
        """Stores parts in one file, in place of the one that they may be in."""
        first = next(iter(parts))
        file = self.folder / file_of(first)
        inside = {name for name, where in self._files.items() if where == file}
        if elsewhere := sorted((parts.keys() & self._files.keys()) - inside):
            raise ValueError(f"part {elsewhere[0]!r} is stored with others already")
        if lost := sorted(inside - parts.keys()):
            raise ValueError(f"part {lost[0]!r} is stored together with {first!r}")
        content: dict[str, np.ndarray] = {RUN: np.array(self._run)}
        for name, arrays in parts.items():
            if not arrays or any("/" in key for key in arrays):
                raise ValueError(
                    f"part {name!r} has arrays {sorted(arrays)}: needs one or more, "
                    "whose names have no /"
                )
            content |= {f"{name}/{key}": array for key, array in arrays.items()}
        self.folder.mkdir(exist_ok=True)
        files.write_arrays(file, content)
        self._files |= dict.fromkeys(parts, file)

    def _read(self, file: Path) -> dict[str, dict[str, np.ndarray]]:
        """Returns the arrays of each part in a file, which must be of this run."""
        try:
            stored = files.read_arrays(file)
            run = str(stored.pop(RUN, ""))
            if self._run not in ("", run):
                raise ValueError("it is of another run")
            parts: dict[str, dict[str, np.ndarray]] = {}
            for key, array in stored.items():
                name, _, last = key.rpartition("/")
                parts.setdefault(name, {})[last] = array
            if file.name != file_of(next(iter(parts), "")):
                raise ValueError("it has the name of another part")
        except (ValueError, OSError) as error:
            raise ValueError(
                f"{file} is damaged ({error}); remove it, and its parts are made again"
            ) from None
        return parts


def file_of(part: str) -> str:
    """Returns the name of a part's file; two parts never have the same.

    >>> file_of("sde"), file_of("../SVAG(2)"), file_of("../svag(2)")
    ('sde.npz', 'svag_2~ffc420d16f423407.npz', 'svag_2~21b61176a2922145.npz')
    """
    if PLAIN.fullmatch(part):
        return f"{part}.npz"
    words = re.sub(r"[^a-z0-9]+", "_", part.lower()).strip("_")[:40]
    return f"{words}~{hashlib.sha256(part.encode()).hexdigest()[:16]}.npz"
