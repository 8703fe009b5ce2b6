"""Provenance: the code and packages that numbers were made with, kept beside them.

made.jsonl has a line for each finished part of a run, with the stamp of that time. Code
that is edited later judges and draws the same numbers, and says that it is another.
"""

import functools
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from optsde.run import files

PACKAGES = ("optsde", "jax", "jaxlib", "flax", "optax", "diffrax", "numpy")
CODE = ("optsde", "experiments")  # whose files a stamp has the digest of
FILE = "made.jsonl"
SMALL = 2**30  # bytes of a folder whose files are read for its digest
Stamp = Mapping[str, Any]
KINDS = {
    **dict.fromkeys(("part", "code", "python", "time"), str),
    "revision": str | None,
    "versions": dict,
    "x64": bool,
    "devices": list,
}
HINT = "remove it, and the origin of what is there is not known"


@functools.cache
def _code() -> dict[str, Any]:
    return {"revision": _revision(), "code": _digest_of_code(), "versions": _versions()}


def present() -> dict[str, Any]:
    """Returns the stamp of now: revision, digest of the code, versions, devices.

    The devices are those of all processes.
    """
    return {
        **_code(),
        "python": sys.version.split()[0],
        "x64": bool(jax.config.read("jax_enable_x64")),
        "devices": [str(device) for device in jax.devices()],
        "processes": jax.process_count(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def record(folder: Path, part: str) -> None:
    """Notes that a part was made, or gone on with, by the code of now."""
    file = folder / FILE
    line = json.dumps({"part": part, **present()}) + "\n"
    files.write(file, "".join([*_whole_lines(file), line]))


def copy_earlier(source: Path, target: Path) -> None:
    """Notes in one folder what another one has, but for its last line."""
    file, earlier = target / FILE, _whole_lines(source / FILE)[:-1]
    files.write(file, "".join([*_whole_lines(file), *earlier]))


def recorded(folder: Path) -> dict[str, list[Stamp]]:
    """Returns the stamps of each part below a folder, the oldest first."""
    found: dict[str, list[Stamp]] = {}
    for file in sorted(folder.rglob(FILE)):
        for line in _whole_lines(file):
            stamp = _stamp(line, file)
            part = file.parent.relative_to(folder) / stamp.pop("part")
            found.setdefault(str(part), []).append(stamp)
    return found


def _whole_lines(file: Path) -> list[str]:
    """Returns the lines of a file, if it is there, but for one that was cut off."""
    if not file.exists():
        return []
    try:
        lines = file.read_text().splitlines(keepends=True)
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}); {HINT}") from None
    return [line for line in lines if line.endswith("\n")]


def _stamp(line: str, file: Path) -> dict[str, Any]:
    """Returns the stamp that a line holds, all of it as `record` writes it."""
    try:
        stamp = json.loads(line)
        for name, kind in KINDS.items():
            if not isinstance(stamp[name], kind):
                raise ValueError(f"{name} is {stamp[name]!r}")
        if not all(isinstance(x, str) for x in stamp["devices"]):
            raise ValueError(f"devices is {stamp['devices']!r}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({error}); {HINT}") from None
    return stamp


def differing(made: Mapping[str, Iterable[Stamp]], judge: Stamp) -> dict[str, int]:
    """Returns how parts differ in origin from `judge`: in words, with their number.

    >>> old = {"revision": "a1", "code": "x", "versions": {"jax": "0.9"}, "x64": False}
    >>> differing({"sde": [old], "svag": [old]}, {**old, "revision": "b2", "code": "y"})
    {'made at a1': 2}
    """
    words: dict[str, int] = {}
    for stamps in made.values():
        origins = [_difference(stamp, judge) for stamp in stamps]
        if origin := "; then ".join(dict.fromkeys(filter(None, origins))):
            words[origin] = words.get(origin, 0) + 1
    return words


def name_of(stamp: Stamp) -> str:
    """Returns the revision, or the version where the code is no checkout of git."""
    return stamp["revision"] or f"version {stamp['versions']['optsde']}"


def digest(path: Path) -> str:
    """Returns a digest of a file, or of all files of a folder.

    Of more than a gigabyte it is of their names, sizes and times.
    """
    if path.is_dir():
        files = {x: x.stat() for x in sorted(path.rglob("*")) if x.is_file()}
        small = sum(stat.st_size for stat in files.values()) <= SMALL
        listing = [
            (
                str(x.relative_to(path)),
                digest(x) if small else (stat.st_size, stat.st_mtime_ns),
            )
            for x, stat in files.items()
        ]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:12]
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _difference(stamp: Stamp, judge: Stamp) -> str:
    words = []
    if stamp["code"] != judge["code"]:
        same = stamp["revision"] == judge["revision"]
        words.append(f"at {name_of(stamp)}" + (", then edited" if same else ""))
    others = {
        name: version
        for name, version in stamp["versions"].items()
        if name != "optsde" and version != judge["versions"].get(name)
    }
    if others:
        words.append("with " + ", ".join(f"{n} {v}" for n, v in others.items()))
    if stamp["x64"] != judge["x64"]:
        words.append(f"in float{64 if stamp['x64'] else 32}")
    return f"made {' '.join(words)}" if words else ""


def version(package: str) -> str:
    """Returns the version of a package, or that it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


def _digest_of_code() -> str:
    """Returns a digest of the sources, which tells edits that are in no revision."""
    total = hashlib.sha256()
    for name in CODE:
        for folder in getattr(sys.modules.get(name), "__path__", ()):
            for file in sorted(Path(folder).rglob("*.py")):
                total.update(file.relative_to(folder).as_posix().encode())
                total.update(file.read_bytes())
    return total.hexdigest()[:12]


def _revision() -> str | None:
    """Returns the git revision, with + where files differ from it.

    None where git does not track this file: the repository around an installed package
    is somebody else's.
    """
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty=+", "--abbrev=12")
    except (OSError, subprocess.CalledProcessError):
        return None
