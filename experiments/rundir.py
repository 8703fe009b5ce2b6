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

import numpy as np
from ml_collections import ConfigDict

from optsde.analysis import Verdict

PACKAGES = ("optsde", "jax", "jaxlib", "flax", "optax", "diffrax", "numpy")


class RunDir:
    """A study's directory, opened for a new run or for going on with the same one."""

    def __init__(self, path: Path, study: str, settings: dict):
        self.path = path
        self.study = study
        self.settings = settings
        self.begun = time.monotonic()

    @classmethod
    def open(cls, path: Path, study: str, config: ConfigDict) -> "RunDir":
        """Accept a new place, or one that holds the same config; else refuse.

        Nothing is written before `begin`.
        """
        settings = json.loads(json.dumps(config.to_dict()))
        known = path / "config.json"
        if known.exists():
            held = _readable(known, lambda: json.loads(known.read_text()))
            if held != settings:
                keys = sorted({*held, *settings})
                changed = [k for k in keys if held.get(k) != settings.get(k)]
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
        """config.json, and meta.json: revision, versions, devices, command line."""
        import jax

        (self.path / "figures").mkdir(parents=True, exist_ok=True)
        self.write("config.json", self.settings)
        devices = [str(device) for device in jax.local_devices()]
        versions = {name: metadata.version(name) for name in PACKAGES}
        self.write(
            "meta.json",
            {
                "revision": _revision(),
                "python": sys.version.split()[0],
                "versions": versions,
                "devices": devices,
                "argv": sys.argv,
                "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            },
        )

    def withdraw(self) -> None:
        """Take back what `begin` wrote, where nothing has come of it."""
        figures = self.path / "figures"
        begun = {"config.json", "meta.json", "figures"}
        if not figures.is_dir() or any(figures.iterdir()):
            return
        if {file.name for file in self.path.iterdir()} == begun:
            shutil.rmtree(self.path)

    def curves(self) -> dict[str, np.ndarray]:
        """All that is finished."""
        file = self.path / "curves.npz"
        if not file.exists():
            return {}
        with np.load(file) as stored:
            return dict(stored)

    def add_curves(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Add finished curves; the file on disk is always whole."""
        partial = self.path / "curves.partial.npz"
        content: dict[str, Any] = {**self.curves(), **arrays}
        np.savez(partial, **content)
        os.replace(partial, self.path / "curves.npz")

    def once(self, make: Callable[[], Mapping[str, np.ndarray]]):
        """All curves of a study that makes them at once; made only if not yet there."""
        if not (found := self.curves()):
            self.add_curves(make())
            found = self.curves()
        return found

    def log(self, **row) -> None:
        """One line of metrics.jsonl."""
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")

    def figure(self, name: str) -> Path:
        return self.path / "figures" / f"{name}.png"

    def finish(self, status: str, verdicts: list[Verdict], **extra) -> None:
        """summary.json."""
        summary = {
            "experiment": self.study,
            "status": status,
            "seconds": round(time.monotonic() - self.begun, 1),
            "verdicts": [verdict.to_json() for verdict in verdicts],
        }
        self.write("summary.json", summary | extra)

    def write(self, name: str, content: dict) -> None:
        """One JSON file, which is whole whenever it is there."""
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
    """What `read` gives, or an error that names the file."""
    try:
        return read()
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{file} is damaged ({error}); remove it to begin again"
        ) from None


def _revision() -> str | None:
    """The git revision, with + where files differ from it."""
    here = Path(__file__).parent
    try:
        run = [
            "git",
            "-C",
            str(here),
            "describe",
            "--always",
            "--dirty=+",
            "--abbrev=12",
        ]
        return subprocess.run(
            run, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
