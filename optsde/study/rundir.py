"""The run directory: what every study leaves behind, written so that it can go on.

config.json, meta.json, made.jsonl, metrics.jsonl, curves/, figures/, summary.json and
report.html. A finished part of a study has its file in curves/, whole; the same command
reads it instead of running. The runs of a part that is not have their journals in
unfinished/, and go on from there. What each part was made with is in made.jsonl, and
what judged them in summary.json; meta.json is of the command that began the directory.
"""

import functools
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from traceback import format_exception
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from optsde import hosts
from optsde.analysis import Verdict
from optsde.run import files
from optsde.run.journal import MANIFEST, journals_in
from optsde.run.rows import DivergedError
from optsde.study import lock, provenance
from optsde.study.failure import overheard, reason, where
from optsde.study.integrity import read_object, refuse_foreign, refuse_unwritable
from optsde.study.lock import Lock
from optsde.study.parts import Arrays, Parts, file_of
from optsde.study.shapes import UsageError

CRASH = "crash.log"
NOTES = {"config.json", "meta.json", provenance.FILE, "summary.json", CRASH, lock.NAME}
MARKS = {"summary.json": {"experiment", "status"}, "meta.json": {"argv", "sources"}}
UNFINISHED = "unfinished"  # the folder of journals
JUDGING = {"known_false"}  # settings that make no number: runs may be judged again


class RunDir:
    """A study's directory, opened for a new run or for going on with the same one."""

    def __init__(
        self,
        path: Path,
        study: str,
        settings: dict,
        sources: Mapping[str, str] | None = None,
        fresh: bool = False,
    ):
        self.path = path
        self.study = study
        self.settings = settings
        self.sources = dict(sources or {})
        self.begun = time.monotonic()
        self._recorded: set[str] = set()  # parts that this process has made
        self._fresh = fresh
        self._moved: Path | None = None
        self._parents: list[Path] = []  # that `begin` made, the lowest first
        self._lock: Lock | None = None
        self._before: bytes | None = None  # the summary that was there

    @classmethod
    def open(
        cls,
        path: Path,
        study: str,
        config: ConfigDict,
        sources: Mapping[str, str] | None = None,
        fresh: bool = False,
    ) -> "RunDir":
        """Opens a new directory, or one that holds the same config; refuses others.

        Nothing is written before `begin`.

        Args:
          sources: files that the numbers come from besides the code, such as one that
            defines task(config), each with its digest. They must be the same too.
          fresh: begin anew, whatever run is there; `begin` moves it aside.
        """
        settings = json.loads(json.dumps(config.to_dict()))
        rundir = cls(path, study, settings, sources, fresh)
        hosts.broadcast(rundir._check)
        return rundir

    def _check(self) -> None:
        """Refuses what is at the path already, where this run cannot go on from it."""
        known = self.path / "config.json"
        if self.path.exists() and not known.exists() and _others(self.path):
            raise ValueError(
                f"--workdir={self.path} holds other files; name a new or empty "
                "directory"
            )
        if known.exists() and not self._fresh:
            refuse_foreign(self.path)
            if not _came_to_nothing(self.path):
                self._refuse_another(known)
                _ = self._parts, self.made()  # those that are damaged
        refuse_unwritable(self.path)

    def _refuse_another(self, known: Path) -> None:
        """Refuses a run with other settings, or of files that have changed since."""
        hint = "name another directory, or begin anew with --fresh"
        if (self.path / "curves.npz").exists():
            raise ValueError(
                f"--workdir={self.path} holds curves.npz, of an older optsde; {hint}"
            )
        stored = read_object(known)
        keys = sorted({*stored, *self.settings} - JUDGING)
        changed = [k for k in keys if stored.get(k) != self.settings.get(k)]
        if changed:
            raise ValueError(
                f"--workdir={self.path} holds a run with other settings "
                f"({', '.join(changed)}); {hint}"
            )
        meta = self.path / "meta.json"
        if not meta.exists():
            return
        found = read_object(meta, sources=dict, argv=list)["sources"]
        names = sorted({*found, *self.sources})
        changed = [x for x in names if found.get(x) != self.sources.get(x)]
        if changed:
            raise ValueError(
                f"--workdir={self.path} holds a run made with another "
                f"{', '.join(changed)}; {hint}"
            )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Begins, and leaves in summary.json how it ended, with the reason if badly."""
        with overheard() as others, self._ending(others):
            self.begin()
            yield
            if others and self._lock is None:
                print(*others, sep="", file=sys.stderr)
            elif others:
                place = self.path / CRASH
                files.write(place, "".join(others))
                print(f"note: errors in other threads; see {place}", file=sys.stderr)

    @contextmanager
    def _ending(self, others: list[str]) -> Iterator[None]:
        try:
            yield
        except UsageError:
            self.withdraw()
            raise
        except DivergedError as error:
            self._end("diverged", reason=str(error))
            raise
        except KeyboardInterrupt:
            self._end("interrupted")
            raise
        except BaseException as error:
            self._fail(error, others)
            raise
        finally:
            self.close()

    def begin(self) -> None:
        """Locks the directory; writes config.json, meta.json and a summary, "running".

        meta.json has revision, versions, devices and command. Where parts are there
        already, it stays that of their beginning.
        """
        hosts.broadcast(self._begin)
        sees = (self.path / "config.json").exists()
        if blind := np.flatnonzero(~hosts.all_gather(sees)).tolist():
            raise UsageError(
                f"--workdir={self.path}: process {blind[0]} does not see what process "
                "0 wrote there; name a directory that all of them share"
            )

    def _begin(self) -> None:
        self.close()
        if self._fresh and self.path.exists():
            self._move_aside()
        self._parents = [x for x in self.path.parents if not x.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self.path)
        except OSError as error:
            self._remove_folders()
            raise UsageError(
                f"--workdir={self.path} cannot be written ({error.strerror}); name "
                "another place"
            ) from None
        self._check_again()
        if _came_to_nothing(self.path):
            _clear(self.path)
        (self.path / CRASH).unlink(missing_ok=True)
        self.write("config.json", self.settings)
        (self.path / "figures").mkdir(exist_ok=True)
        self.finish("running", [])
        if not (self.path / "meta.json").exists() or not self.made():
            meta = {**provenance.present(), "argv": sys.argv, "sources": self.sources}
            self.write("meta.json", meta)

    def _move_aside(self) -> None:
        """Moves what is at the path to PATH.1, or the next number."""
        old, moved = Lock(self.path), _unused(self.path)
        try:
            self.path.rename(moved)
            self._moved = old.folder = moved
        except OSError as error:
            raise UsageError(
                f"--workdir={self.path} cannot be moved aside ({error.strerror}); name "
                "another directory"
            ) from None
        finally:
            old.release()
        print(f"the run that was here is moved to {moved}", flush=True)

    def _check_again(self) -> None:
        """Checks within the lock, since another process may have been here."""
        summary = self.path / "summary.json"
        self._before = summary.read_bytes() if summary.is_file() else None
        self.__dict__.pop("_parts", None)
        try:
            self._check()
        except ValueError as error:
            raise UsageError(str(error)) from None

    def withdraw(self) -> None:
        """Takes back what `begin` wrote; all of it, where nothing else has come."""
        if self._lock is None:
            return
        if _came_to_nothing(self.path):
            _clear(self.path)
            self._lock.release()
            self._lock = None
            self._remove_folders()
        elif self._before is None:
            (self.path / "summary.json").unlink(missing_ok=True)
        else:
            files.write(self.path / "summary.json", self._before)

    def _remove_folders(self) -> None:
        """Removes the directory and those that `begin` made for it, if they are empty.

        Puts in its place what was moved aside.
        """
        with suppress(OSError):
            for folder in self.path, *self._parents:
                folder.rmdir()
        if self._moved is not None:
            self._moved.rename(self.path)

    def close(self) -> None:
        """Leaves the directory to other processes."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _end(self, status: str, **extra) -> None:
        if self._lock is not None:
            self.finish(status, [], **extra)

    def _fail(self, error: BaseException, others: list[str]) -> None:
        """Writes what happened here and in other threads, if the disk takes it."""
        if self._lock is None:
            return
        if not (self.path / "config.json").exists():  # it had not begun
            self.withdraw()
            return
        self._lock.make_room()
        words = dict(reason=reason(error, self.path), where=where(error))
        with suppress(OSError):
            files.write(self.path / CRASH, "".join([*format_exception(error), *others]))
        with suppress(OSError):
            self._end("failed", **words)

    def made(self) -> dict[str, list[provenance.Stamp]]:
        """Returns what each finished part was made with, the oldest first."""
        return provenance.recorded(self.path)

    def notes(self) -> list[str]:
        """Returns what must be said where parts differ in origin from the code of now.

        >>> RunDir(Path("nowhere"), "svag", {}).notes()
        []
        """
        made, now = self.made(), provenance.present()
        words = provenance.differing(made, now)
        if unknown := len(set(self._parts.names()) - made.keys()):
            words["made at a revision that is not recorded"] = unknown
        return [
            f"{count} part{'s' * (count > 1)} {origin}, judged at "
            f"{provenance.name_of(now)}; --fresh makes all anew"
            for origin, count in words.items()
        ]

    def once(self, part: str, make: Callable[[], Arrays]) -> dict[str, np.ndarray]:
        """Returns the arrays of a part, made only if they are not kept yet."""
        return self.once_all([part], lambda: {part: make()})[part]

    def once_all(
        self, parts: Sequence[str], make: Callable[[], Mapping[str, Arrays]]
    ) -> dict[str, dict[str, np.ndarray]]:
        """Returns the arrays of parts that are made together, if any is missing."""
        kept = hosts.broadcast(lambda: self._kept(parts))
        for name in kept:
            print(f"{name}: read from {self.path}", flush=True)
        if missing := [name for name in parts if name not in kept]:
            with self.unfinished(parts[0]):
                made = make()
                self.keep_all({name: made[name] for name in missing})
            kept |= hosts.broadcast(lambda: self._parts.read(missing))
        return {name: kept[name] for name in parts}

    @contextmanager
    def unfinished(self, part: str) -> Iterator[None]:
        """Within it every run has a journal, in unfinished/; left without an error, it
        removes that folder: what comes of the runs must be kept by then.
        """
        folder = self._unfinished(part)

        def begin():
            for place in (folder.parent, folder):
                if place.is_symlink() or (place.exists() and not place.is_dir()):
                    place.unlink()
            folder.mkdir(parents=True, exist_ok=True)
            provenance.record(folder, part)

        hosts.broadcast(begin)
        with journals_in(folder):
            yield
        hosts.broadcast(lambda: self._finished(part))

    def _unfinished(self, part: str) -> Path:
        return self.path / UNFINISHED / Path(file_of(part)).stem

    def _finished(self, part: str) -> None:
        """Removes the journals of a part, but for what code it was begun with."""
        folder = self._unfinished(part)
        provenance.copy_earlier(folder, self.path)
        shutil.rmtree(folder)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()

    def _kept(self, parts: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
        """Returns the parts that are kept.

        Where all are, so that nothing runs, their journals go: a kill may have come
        after the parts were kept and before that.
        """
        kept = self._parts.read(parts)
        if len(kept) == len(parts) and self._unfinished(parts[0]).is_dir():
            self._finished(parts[0])
        return kept

    def part(self, name: str) -> dict[str, np.ndarray] | None:
        """Returns the arrays that `keep` has kept by this name; None if it has not."""
        return hosts.broadcast(lambda: self._parts.read([name])).get(name)

    def keep(self, name: str, arrays: Arrays) -> None:
        """Keeps the arrays of a part: all of them, or none if interrupted."""
        self.keep_all({name: arrays})

    def keep_all(self, parts: Mapping[str, Arrays]) -> None:
        """Keeps parts that were made together: all of them, or none if interrupted."""

        def write():
            self._parts.write(parts)
            for name in parts.keys() - self._recorded:
                provenance.record(self.path, name)
            self._recorded |= parts.keys()

        hosts.broadcast(write)

    def curves(self) -> dict[str, np.ndarray]:
        """Returns the arrays of all parts by PART/NAME."""
        return self._parts.flat()

    @functools.cached_property
    def _parts(self) -> Parts:
        judging = {key: [] for key in JUDGING & self.settings.keys()}  # as if unset
        made_with = [self.study, self.settings | judging, self.sources]
        identity = json.dumps(made_with, sort_keys=True)
        digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
        return Parts(self.path / "curves", digest)

    def write_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes metrics.jsonl anew, of what is kept: a line for each row."""
        if hosts.first():
            lines = "".join(map(files.json_of, rows))
            files.write(self.path / "metrics.jsonl", lines)

    def figure(self, name: str) -> Path:
        """Returns the file of a figure, a PNG unless its name has a suffix."""
        file = name if "." in name else f"{name}.png"
        return self.path / "figures" / file

    def finish(self, status: str, verdicts: list[Verdict], **extra) -> None:
        """Writes summary.json, with the stamp of the code that judged."""
        summary = {
            "experiment": self.study,
            "status": status,
            "judged": provenance.present(),
            "seconds": round(time.monotonic() - self.begun, 1),
            "verdicts": [verdict.to_json() for verdict in verdicts],
        }
        self.write("summary.json", summary | extra)

    def write(self, name: str, content: dict) -> None:
        """Writes one JSON file, which is whole whenever it is there."""
        if not hosts.first():
            return
        files.write(self.path / name, files.json_of(content, indent=2))


def _others(path: Path) -> list[Path]:
    """Returns what is in a directory that no run began; refuses a file in its place."""
    if not path.is_dir():
        raise ValueError(f"--workdir={path} is a file; name a directory")
    started = {lock.NAME, f"config.json{files.PARTIAL}"}
    return [x for x in path.iterdir() if x.name not in started]


def _came_to_nothing(path: Path) -> bool:
    """Tells whether a run left no more than notes: no part, no row and no save."""
    return _began(path) and not any(
        file.name == MANIFEST
        if file.relative_to(path).parts[0] == UNFINISHED
        else not _is_note(file)
        for file in path.rglob("*")
        if not file.is_dir()
    )


def _began(path: Path) -> bool:
    """Tells whether a run has written here, and not another program a config.json."""
    return any(_has(path / name, keys) for name, keys in MARKS.items())


def _has(file: Path, keys: set[str]) -> bool:
    try:
        return keys <= read_object(file).keys()
    except ValueError:
        return False


def _is_note(file: Path) -> bool:
    empty = file.name == "metrics.jsonl" and not file.stat().st_size
    return file.name in NOTES or file.suffix == files.PARTIAL or empty


def _clear(path: Path) -> None:
    """Removes all but the lock."""
    for entry in path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != lock.NAME:
            entry.unlink()


def _unused(path: Path) -> Path:
    """Returns the first of PATH.1, PATH.2, … that is not there."""
    number = 1
    while (moved := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return moved
