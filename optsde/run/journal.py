"""The journal of a run: all that an unfinished run needs to go on, in one folder.

    FOLDER/STEP/state/         the state of the run at a step, by orbax
    FOLDER/STEP/manifest.json  written last: the files that a save needs, with checksums
    FOLDER/rows/STEP.npz       the rows that were measured since the save before

A save is whole or none. One that is damaged or cut off is skipped, the one before it is
taken, and a line says so; where none is whole, the run begins again. What is restored
is what was saved, bit for bit. Nothing in a journal is unpickled or executed.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding

from optsde.hosts import broadcast, first, gathered, key_numbers, with_keys
from optsde.run import files
from optsde.run.rows import Row
from optsde.types import PyTree

KEPT = 2  # saves, the newest
SECONDS = 30.0  # between two saves
SHARE = 0.03  # of a run's time that its saves may take
GUESS = 0.03  # seconds of a save, before there is one
ROUNDING = 1e-5  # by which values of schedules may differ between machines
ROWS, STATE, MANIFEST = "rows", "state", "manifest.json"

_journals: ContextVar[Iterator["Journal"] | None] = ContextVar("journals", default=None)


class Saved(NamedTuple):
    """A whole save: the step, what else the run noted there, and all rows until it."""

    step: int
    notes: dict[str, Any]
    rows: list[Row]


class _DamagedError(Exception):
    """What is wrong with a save, in a few words."""


@contextlib.contextmanager
def journals_in(folder: Path) -> Iterator[None]:
    """Within it, every `Run` has a journal in a folder, where it names none itself.

    They are folder/1, folder/2, … in the order in which the runs are made, so the same
    program finds each run's own again. Whoever opened the folder removes it.
    """
    numbered = (Journal(folder / str(n), lasting=False) for n in itertools.count(1))
    token = _journals.set(numbered)
    try:
        yield
    finally:
        _journals.reset(token)


def next_journal() -> "Journal | None":
    """Returns the journal of the next run within `journals_in`; None outside of it."""
    journals = _journals.get()
    return None if journals is None else next(journals)


class Journal:
    """A folder with the last saves of one run, and its rows.

    It is due by the clock: 30 s after the last save, or later where 3% of the time that
    has passed is less than a save takes. So a kill loses at most a minute of work where
    a save takes less than 1.8 s.

    Args:
      folder: of this run alone.
      lasting: whether it belongs to whoever named it, and so has the end of the run,
        and is never made anew; else it is of use only until the run's numbers are kept.
    """

    def __init__(self, folder: Path, *, lasting: bool = True):
        self.folder, self.lasting = folder, lasting
        self._identity: dict[str, Any] = {}
        self._files: dict[str, list] = {}  # of rows, by name: size and checksum
        self._rows = 0  # that are saved
        self._last: int | None = None  # the step of the last save
        self._seconds = GUESS  # that the last save took
        self._tick = time.monotonic()

    # ---- saving

    def start(self) -> None:
        """Counts the time since the last save from here, after compiling."""
        self._tick = time.monotonic()

    def is_due(self) -> bool:
        """Tells whether it is time for a save in the midst of a run."""
        return time.monotonic() - self._tick > max(SECONDS, self._seconds / SHARE)

    def is_worth_it(self) -> bool:
        """Tells whether a save takes little of the time of what it saves."""
        return time.monotonic() - self._tick > self._seconds / SHARE

    def save(
        self, step: int, state: PyTree, rows: Sequence[Row], notes: Mapping[str, Any]
    ) -> None:
        """Saves the state, the rows that are new, and notes; none of it if it fails.

        What fails once the manifest is there, such as another host, leaves the save.
        Raises OSError where it cannot be written. Collective.
        """
        if step == self._last:
            return
        begun, place = time.monotonic(), self.folder / str(step)
        try:
            broadcast(lambda: _make_anew(place))
            with _orbax() as (ocp, checkpointer):
                args = ocp.args.StandardSave(jax.tree.map(_plain, state))
                checkpointer.save((place / STATE).absolute(), args=args)
            broadcast(lambda: self._finish(step, rows[self._rows :], notes))
        except (OSError, ValueError) as error:
            if first() and not (place / MANIFEST).exists():
                shutil.rmtree(place, ignore_errors=True)
            if (code := _code_of(error)) is None:
                raise
            raise _unwritten(self.folder, code) from None
        self._last, self._rows = step, len(rows)
        self._tick = time.monotonic()
        self._seconds = self._tick - begun

    def _finish(self, step: int, rows: Sequence[Row], notes: Mapping[str, Any]) -> None:
        """Writes the rows, and then the manifest; removes saves that are too old."""
        place, name = self.folder / str(step), f"{ROWS}/{step}.npz"
        if rows:
            (self.folder / ROWS).mkdir(exist_ok=True)
            files.write_arrays(self.folder / name, _packed(rows))
            self._files[name] = _checked(self.folder / name)
        inside = {x: _checked(self.folder / x) for x in _inside(self.folder, place)}
        content = {
            "identity": self._identity,
            "step": step,
            "notes": dict(notes),
            "rows": [*self._files],
            "files": inside | self._files,
        }
        text = json.dumps({"checksum": _checksum(content), "content": content})
        files.write(place / MANIFEST, text)
        for old in self._steps()[:-KEPT]:
            _remove(self.folder / str(old))

    # ---- going on

    def open(
        self, identity: Mapping[str, Any], metrics: Mapping[str, PyTree]
    ) -> Saved | None:
        """Returns the newest whole save, and removes what lies beyond it: collective.

        Args:
          identity: what makes the run this run, in JSON.
          metrics: shapes of the metrics of a row, by name.
        """
        self._identity = json.loads(json.dumps(identity))
        found = broadcast(lambda: self._newest(metrics))
        if found is not None:
            self._rows, self._last = len(found.rows), found.step
        return found

    def _newest(self, metrics: Mapping[str, PyTree]) -> Saved | None:
        if self.folder.is_symlink() or (
            self.folder.exists() and not self.folder.is_dir()
        ):
            self._refuse("is no folder")
        if self.lasting and (foreign := self._foreign()):
            self._refuse(f"holds {foreign[0]}, which is of no journal")
        found = None
        for step in reversed(self._steps()):
            try:
                content = _content(self.folder, step)
                if differ := self._differing(content["identity"]):
                    self._refuse(f"is of another run: {differ} differ")
                    break  # as it is made anew
                rows = [
                    row
                    for name in content["rows"]
                    for row in _unpacked(self.folder / name, metrics)
                ]
            except _DamagedError as damage:
                _say(f"{self.folder / str(step)} {damage}, and is skipped")
                continue
            found = Saved(step, content["notes"], rows)
            self._files = {x: content["files"][x] for x in content["rows"]}
            break
        if found is None and self._steps():
            _say(f"{self.folder} has no whole save: the run begins again")
        self._forget_beyond(found)
        return found

    def restore(self, step: int, like: PyTree, rows: int, other: Sharding) -> PyTree:
        """Returns the state of a save, with the structure and the devices of `like`.

        Args:
          step: of the save.
          like: a state of the same run.
          rows: how many replicas were saved, with those that filled up the devices.
          other: where the state goes that has not as many as `like`.
        """

        def shape(x):
            same = len(x) == rows
            sizes, place = (rows, *x.shape[1:]), x.sharding if same else other
            return jax.ShapeDtypeStruct(sizes, x.dtype, sharding=place)

        with _orbax() as (ocp, checkpointer):
            shapes = jax.tree.map(shape, jax.tree.map(_plain, like))
            place = (self.folder / str(step) / STATE).absolute()
            plain = checkpointer.restore(place, args=ocp.args.StandardRestore(shapes))
        return jax.tree.map(_like, plain, like)

    def _steps(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        names = [x.name for x in self.folder.iterdir()]
        return sorted(int(x) for x in names if re.fullmatch(r"0|[1-9]\d{0,18}", x))

    def _foreign(self) -> list[str]:
        """Returns what somebody else has put into the folder, who may need it."""
        steps = [str(step) for step in self._steps()]
        folders = [x for x in steps if (self.folder / x).is_dir()]
        entries = (
            [x.name for x in self.folder.iterdir()] if self.folder.is_dir() else []
        )
        inside = [x for name in folders for x in (self.folder / name).iterdir()]
        found = [x for x in entries if x not in (*folders, ROWS)]
        ours = STATE, MANIFEST
        more = [x for x in inside if not x.name.startswith(ours)]
        return sorted(found + [f"{x.parent.name}/{x.name}" for x in more])

    def _differing(self, identity: Mapping[str, Any]) -> str:
        keys = [*dict.fromkeys([*self._identity, *identity])]
        return ", ".join(
            key for key in keys if not _same(self._identity.get(key), identity.get(key))
        )

    def _refuse(self, why: str) -> None:
        """Refuses somebody's folder; one of our own is made anew, and that is said."""
        if self.lasting:
            raise ValueError(
                f"the journal {self.folder} {why}; name another folder, or remove it"
            )
        _say(f"{self.folder} {why}: the run begins again")
        _remove(self.folder)

    def _forget_beyond(self, found: Saved | None) -> None:
        """Removes saves and rows after the one that is found, whole or not."""
        for step in self._steps():
            if found is None or step > found.step:
                _remove(self.folder / str(step))
        rows = self.folder / ROWS
        if rows.is_symlink() or (rows.exists() and not rows.is_dir()):
            _remove(rows)
        for file in rows.iterdir() if rows.is_dir() else ():
            if f"{ROWS}/{file.name}" not in self._files:
                _remove(file)


def load_params(folder: Path, step: int | None = None) -> tuple[int, PyTree]:
    """Returns (step, parameters [replicas, …]) from a run's journal, in numpy.

    Args:
      folder: the journal's.
      step: of a save; the newest whole one where none is given.
    """
    steps = Journal(folder)._steps()
    if not steps:
        raise ValueError(f"{folder}: no checkpoints here")
    if step is not None and step not in steps:
        known = ", ".join(map(str, steps))
        raise ValueError(f"{folder}: no checkpoint of step {step}; {known}")
    damaged: dict[int, str] = {}
    found, replicas = steps[-1], None
    for found in [step] if step is not None else steps[::-1]:
        try:
            replicas = _content(folder, found)["identity"]["replicas"]
            break
        except _DamagedError as damage:
            damaged[found] = f"{folder / str(found)} {damage}"
    if replicas is None:
        left = [x for x in steps if x not in damaged and _is_whole(folder, x)]
        advice = f"take step {left[-1]}" if left else "no other save is whole"
        raise ValueError(f"{'; '.join(damaged.values())}; {advice}")
    for damage in damaged.values():
        _say(f"{damage}, and is skipped")
    with _orbax() as (ocp, checkpointer):
        place = (folder / str(found) / STATE).absolute()
        saved: Any = checkpointer.metadata(place).item_metadata
        # Not on the devices that saved it: others may be there now.
        here = SingleDeviceSharding(jax.local_devices()[0])
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
            saved.tree if hasattr(saved, "tree") else saved,
        )
        tree = checkpointer.restore(place, args=ocp.args.StandardRestore(shapes))
    params = tree["state"]["params"]
    return found, jax.tree.map(lambda x: np.asarray(x)[:replicas], params)


def digest(tree: PyTree) -> str:
    """Returns a checksum of the arrays of a tree, shapes and types too: collective.

    Each is read by itself, so that no device has more than one of them whole.
    """
    total = files.hashed()
    for leaf in jax.tree.leaves(tree):
        numbers = key_numbers(leaf) if isinstance(leaf, jax.Array) else leaf
        array = np.asarray(gathered(numbers))
        total.update(f"{array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


# ---- rows as arrays


def _packed(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Returns rows as arrays: each metric's leaves, stacked over the rows it is in."""
    names = [*dict.fromkeys(name for row in rows for name in row.values)]
    index = [[row.step, [names.index(name) for name in row.values]] for row in rows]
    text = json.dumps({"names": names, "rows": index}).encode()
    arrays = {"index": np.frombuffer(text, np.uint8)}
    for number, name in enumerate(names):
        trees = [row.values[name] for row in rows if name in row.values]
        for place, leaves in enumerate(zip(*map(jax.tree.leaves, trees), strict=True)):
            stack = np.stack(leaves)
            if stack.dtype.kind == "V":  # bfloat16 and others that numpy lacks
                stack = stack.view(f"u{stack.dtype.itemsize}")
            arrays[f"{number}.{place}"] = stack
    return arrays


def _unpacked(file: Path, metrics: Mapping[str, PyTree]) -> list[Row]:
    """Returns the rows of a file, whose metrics have the structure of `metrics`."""
    try:
        stored = files.read_arrays(file)
    except ValueError:
        raise _DamagedError(f"is damaged ({file.name} of its rows)") from None
    index = json.loads(stored["index"].tobytes())
    columns = []
    for number, name in enumerate(index["names"]):
        shapes, structure = jax.tree.flatten(metrics[name])
        leaves = [
            stored[f"{number}.{place}"].view(shape.dtype)
            for place, shape in enumerate(shapes)
        ]
        columns.append((structure, leaves, itertools.count()))

    def next_of(number: int) -> PyTree:
        structure, leaves, row = columns[number]
        at = next(row)
        return structure.unflatten([x[at] for x in leaves])

    return [
        Row(step, {index["names"][number]: next_of(number) for number in numbers})
        for step, numbers in index["rows"]
    ]


# ---- files


def _content(folder: Path, step: int) -> dict[str, Any]:
    """Returns what the manifest of a save says, after all its files are checked."""
    file = folder / str(step) / MANIFEST
    if file.parent.is_symlink() or not file.is_file() or file.is_symlink():
        raise _DamagedError("is not whole (it has no manifest)")
    try:
        found = json.loads(file.read_text())
        content, checksum = found["content"], found["checksum"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise _DamagedError("is damaged (its manifest)") from None
    if checksum != _checksum(content):
        raise _DamagedError("is damaged (its manifest)")
    for name, checked in content["files"].items():
        path = folder / name
        links = [x for x in (path, *path.parents) if x != folder and x.is_symlink()]
        if folder not in path.parents or set(links) - set(folder.parents):
            raise _DamagedError(f"is damaged ({name} is a link)")
        if not path.is_file() or checked != _checked(path):
            raise _DamagedError(f"is damaged ({name})")
    if set(_inside(folder, folder / str(step))) - {*content["files"]}:
        raise _DamagedError("is damaged (it has other files)")
    return content


def _same(a: Any, b: Any) -> bool:
    """Tells whether JSON is the same, but for how machines round numbers in lists."""
    if not (isinstance(a, list) and isinstance(b, list)):
        return a == b
    if len(a) != len(b) or not all(isinstance(x, float) for x in a + b):
        return len(a) == len(b) and all(map(_same, a, b))
    return np.allclose(a, b, rtol=ROUNDING, atol=ROUNDING, equal_nan=True)


def _is_whole(folder: Path, step: int) -> bool:
    try:
        _content(folder, step)
    except _DamagedError:
        return False
    return True


def _inside(folder: Path, place: Path) -> list[str]:
    """Returns the names of the files of a save, but for its manifest."""
    files = [x for x in sorted(place.rglob("*")) if not x.is_dir()]
    return [x.relative_to(folder).as_posix() for x in files if x.name != MANIFEST]


def _checked(file: Path) -> list:
    """Returns the size and the checksum of a file."""
    with open(file, "rb") as content:
        checksum = hashlib.file_digest(content, files.hashed).hexdigest()
    return [file.stat().st_size, checksum]


def _checksum(content: Any) -> str:
    return files.hashed(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _make_anew(folder: Path) -> None:
    _remove(folder)
    folder.mkdir(parents=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # A kill in the midst of it leaves no manifest, and so no save.
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _code_of(error: Exception) -> int | None:
    """Returns the system's number of an error, which orbax has in its text."""
    if (code := getattr(error, "errno", None)) is not None:
        return code
    found = re.search(r"os_error_code='(\d+)'", str(error))
    return int(found[1]) if found else None


def _unwritten(folder: Path, code: int) -> OSError:
    """Returns one clear error for those of the system and of orbax."""
    words = os.strerror(code)
    return OSError(
        code, f"{words}: {folder} cannot be written; what was saved before is whole"
    )


def _say(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)


# ---- orbax


@contextlib.contextmanager
def _orbax() -> Iterator[tuple[Any, Any]]:
    """Yields orbax and a checkpointer; what it logs is in what it raises."""
    import orbax.checkpoint as ocp

    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            yield ocp, checkpointer
    finally:
        log.setLevel(level)


def _plain(x: jax.Array) -> jax.Array:
    """Returns what orbax can store: keys as numbers, and no array without any."""
    x = key_numbers(x)
    return x if x.size else jnp.zeros((len(x), 1), x.dtype)


def _like(x: jax.Array, wanted: jax.Array) -> jax.Array:
    if not wanted.size:
        return jnp.zeros((len(x), *wanted.shape[1:]), wanted.dtype)
    return with_keys(x, wanted)
