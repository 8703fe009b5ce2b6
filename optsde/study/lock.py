"""The lock of a run directory: one process at a time writes there.

The system takes the lock from a process that ends, however it ends. The file names who
has it, and holds some room for the last words of a run that fills the disk.
"""

import fcntl
import json
import os
import shlex
import socket
import stat
import sys
import time
import weakref
from pathlib import Path
from typing import Any

from optsde.study.shapes import UsageError

NAME = "lock"
ROOM = 2**16  # bytes
OPENING = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Lock:
    """The lock of a folder, taken; refuses a folder that another process has."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._descriptor = _locked(folder)
        self._close = weakref.finalize(self, os.close, self._descriptor)
        mine = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "command": shlex.join(sys.argv)[:500],
        }
        line = json.dumps(mine) + "\n"
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, line.ljust(ROOM).encode(), 0)
        except OSError:
            self.release()
            raise

    def make_room(self) -> None:
        """Gives the room on the disk back."""
        os.ftruncate(self._descriptor, 0)

    def release(self) -> None:
        """Removes the file, wherever the folder is by now, and leaves the lock."""
        (self.folder / NAME).unlink(missing_ok=True)
        self._close()


def _locked(folder: Path) -> int:
    """Returns the descriptor of the file, locked and in its place."""
    while True:
        descriptor = _opened(folder)
        try:
            _take(descriptor, folder)
            if _is(descriptor, folder / NAME):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # of a process that has ended since, and removed it


def _opened(folder: Path) -> int:
    file = folder / NAME
    try:
        descriptor = os.open(file, OPENING, 0o644)
    except OSError as error:
        raise UsageError(
            f"{file} cannot be written ({error.strerror}); remove it"
        ) from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise UsageError(f"{file} is not a file of its own; remove it")
    return descriptor


def _take(descriptor: int, folder: Path) -> None:
    """Locks a file; goes by what it says where the file system has no locks."""
    holder = _holder(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(_in_use(folder, holder)) from None
    except OSError as error:
        print(
            f"note: {folder} has no locks ({error.strerror}), so that {NAME} tells "
            "who is there",
            file=sys.stderr,
        )
        if holder and _may_run(holder):
            hint = f"; remove {folder / NAME} if that one has ended"
            raise UsageError(_in_use(folder, holder) + hint) from None


def _holder(descriptor: int) -> dict[str, Any] | None:
    """Returns who wrote the file last, if it says."""
    try:
        found = json.loads(os.pread(descriptor, ROOM, 0))
        return {**found, "pid": int(found["pid"]), "host": str(found["host"])}
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _in_use(folder: Path, holder: dict[str, Any] | None) -> str:
    who = "another process"
    if holder is not None:
        who = "process {pid} on {host}".format(**holder)
        who += f" since {holder.get('since')} ({holder.get('command')})"
    return f"--workdir={folder} is in use by {who}; wait for it, or name another"


def _may_run(holder: dict[str, Any]) -> bool:
    """Tells whether a process may still be there: here or on another host."""
    if holder["host"] != socket.gethostname():
        return True
    try:
        os.kill(holder["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return holder["pid"] != os.getpid()


def _is(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False
