"""The run directory: what every study leaves behind, written so that it can go on.

config.json, meta.json, metrics.jsonl, curves.npz, figures/, summary.json. A finished
part of a study is in curves.npz, whole; the same command reads it instead of running.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from importlib import metadata
from math import isfinite
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from optsde.analysis import Verdict

PACKAGES = ("optsde", "jax", "jaxlib", "flax", "optax", "diffrax", "numpy")
Arrays = Mapping[str, np.ndarray]


class RunDir:
    """A study's directory, opened for a new run or for going on with the same one."""

    def __init__(self, path: Path, study: str, settings: dict):
        self.path = path
        self.study = study
        self.settings = settings
        self.begun = time.monotonic()

    @classmethod
    def open(cls, path: Path, study: str, config: ConfigDict) -> "RunDir":
        """Opens a new directory, or one that holds the same config; refuses others.

        Nothing is written before `begin`.
        """
        settings = json.loads(json.dumps(config.to_dict()))
        known = path / "config.json"
        if known.exists():
            stored = _readable(known, lambda: json.loads(known.read_text()))
            if stored != settings:
                keys = sorted({*stored, *settings})
                changed = [k for k in keys if stored.get(k) != settings.get(k)]
                raise ValueError(
                    f"--workdir={path} holds a run with other settings "
                    f"({', '.join(changed)}); name another directory or remove it"
                )
        elif path.exists() and any(path.iterdir()):
            raise ValueError(
                f"--workdir={path} holds other files; name a new or empty directory"
            )
        rundir = cls(path, study, settings)
        _readable(path / "curves.npz", rundir.curves)
        return rundir

    def begin(self) -> None:
        """Writes config.json, and meta.json: revision, versions, devices, command."""
        (self.path / "figures").mkdir(parents=True, exist_ok=True)
        self.write("config.json", self.settings)
        self.write(
            "meta.json",
            {
                "revision": _revision(),
                "python": sys.version.split()[0],
                "versions": {name: metadata.version(name) for name in PACKAGES},
                "devices": [str(device) for device in jax.local_devices()],
                "argv": sys.argv,
                "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            },
        )

    def withdraw(self) -> None:
        """Removes what `begin` wrote, where nothing has come of it."""
        figures = self.path / "figures"
        begun = {"config.json", "meta.json", "figures"}
        if not figures.is_dir() or any(figures.iterdir()):
            return
        if {file.name for file in self.path.iterdir()} == begun:
            shutil.rmtree(self.path)

    def once(self, part: str, make: Callable[[], Arrays]) -> dict[str, np.ndarray]:
        """Returns the arrays of a part, made only if they are not kept yet."""
        if (kept := self.part(part)) is not None:
            print(f"{part}: read from {self.path}", flush=True)
            return kept
        self.keep(part, make())
        kept = self.part(part)
        assert kept is not None
        return kept

    def part(self, name: str) -> dict[str, np.ndarray] | None:
        """Returns the arrays that `keep` has kept by this name; None if it has not."""
        arrays = {
            key.removeprefix(f"{name}/"): array
            for key, array in self.curves().items()
            if key.rpartition("/")[0] == name
        }
        return arrays or None

    def keep(self, name: str, arrays: Arrays) -> None:
        """Keeps the arrays of a finished part: all of them, or none if interrupted."""
        self.add_curves({f"{name}/{key}": array for key, array in arrays.items()})

    def curves(self) -> dict[str, np.ndarray]:
        """Returns all arrays of curves.npz."""
        file = self.path / "curves.npz"
        if not file.exists():
            return {}
        with np.load(file) as stored:
            return dict(stored)

    def add_curves(self, arrays: Arrays) -> None:
        """Adds arrays to curves.npz, which is whole at any time."""
        partial = self.path / "curves.partial.npz"
        content: dict[str, Any] = {**self.curves(), **arrays}
        np.savez(partial, **content)
        os.replace(partial, self.path / "curves.npz")

    def log(self, **row) -> None:
        """Writes one line of metrics.jsonl."""
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")

    def figure(self, name: str) -> Path:
        """Returns the file of a figure, a PNG unless its name has a suffix."""
        file = name if "." in name else f"{name}.png"
        return self.path / "figures" / file

    def finish(self, status: str, verdicts: list[Verdict], **extra) -> None:
        """Writes summary.json."""
        summary = {
            "experiment": self.study,
            "status": status,
            "seconds": round(time.monotonic() - self.begun, 1),
            "verdicts": [verdict.to_json() for verdict in verdicts],
        }
        self.write("summary.json", summary | extra)

    def write(self, name: str, content: dict) -> None:
        """Writes one JSON file, which is whole whenever it is there."""
        partial = self.path / f"{name}.partial"
        partial.write_text(json.dumps(_plain(content), indent=2) + "\n")
        os.replace(partial, self.path / name)


def _plain(content):
    """Plain Python numbers, with null for those that JSON has not: NaN, infinities."""
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, np.generic):
        content = content.item()
    return None if isinstance(content, float) and not isfinite(content) else content


def _readable(file: Path, read: Callable):
    """Returns what `read` gives, or raises an error that names the file."""
    try:
        return read()
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{file} is damaged ({error}); remove it to begin again"
        ) from None


def _revision() -> str | None:
    """The git revision, with + where files differ from it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always"]
    command += ["--dirty=+", "--abbrev=12"]
    try:
        out = subprocess.run(command, capture_output=True, text=True, check=True)
        return out.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
