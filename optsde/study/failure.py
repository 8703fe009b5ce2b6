"""A run that fails, in one line: what happened, where, and what to do."""

import errno
import logging
import os
import shutil
import sys
import sysconfig
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from jax.errors import JaxRuntimeError

from optsde import hosts

TRACEBACK = "OPTSDE_TRACEBACK"  # a variable that shows tracebacks on the screen
TASKS = logging.getLogger("asyncio")  # which is told of tasks whose error nobody took
OURS = ("optsde", "experiments")
LIBRARIES = tuple(sysconfig.get_path(x) for x in ("stdlib", "purelib", "platlib"))
LONGEST = 300  # characters of a message; the traceback has all
FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
BROKEN = (errno.EIO, errno.EROFS, errno.EFBIG, errno.ESTALE)
GOES_ON = "and the same command goes on from what is finished"
ALL_GO_ON = "the same command, in every process, goes on from what is saved"


def reason(error: BaseException, folder: Path) -> str:
    """Returns in one line why a run with this directory has failed."""
    for each in _chain(error):
        number = _number(each)
        place = getattr(each, "filename", None) or folder
        if number in FULL:
            return f"{FULL[number]}{_free(folder)}; free some, {GOES_ON}"
        if number in BROKEN:
            words = os.strerror(number)
            return f"{place} cannot be written ({words}); mend that, {GOES_ON}"
        if hosts.several() and isinstance(each, JaxRuntimeError):
            words = str(each).strip().partition("\n")[0][:LONGEST]
            return f"another process is lost, or the way to it ({words}); {ALL_GO_ON}"
    text = " ".join(str(error).split())
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return f"{type(error).__name__}: {text}".removesuffix(": ")


def where(error: BaseException) -> str:
    """Returns FILE:LINE of an error, the innermost that is ours or the user's."""
    frames = [*traceback.walk_tb(error.__traceback__)]
    own = [(frame, line) for frame, line in frames if not _is_of_library(frame)]
    frame, line = (own or frames)[-1]
    return f"{frame.f_code.co_filename}:{line}"


def _is_of_library(frame: FrameType) -> bool:
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    inside = frame.f_code.co_filename.startswith((*LIBRARIES, "<"))
    return package not in OURS and inside


@contextmanager
def overheard() -> Iterator[list[str]]:
    """Keeps tracebacks of other threads and tasks off the screen; yields their texts.

    Not with OPTSDE_TRACEBACK=1.
    """
    texts: list[str] = []
    hooks = threading.excepthook, sys.unraisablehook

    def hear(found) -> None:
        error = found.exc_type, found.exc_value, found.exc_traceback
        texts.append("".join(traceback.format_exception(*error)))

    def hear_of_task(record: logging.LogRecord) -> bool:
        texts.append(logging.Formatter().format(record) + "\n")
        return False

    if not os.environ.get(TRACEBACK):
        threading.excepthook = hear
        sys.unraisablehook = hear  # of threads that Python did not begin
        TASKS.addFilter(hear_of_task)
    try:
        yield texts
    finally:
        threading.excepthook, sys.unraisablehook = hooks
        TASKS.removeFilter(hear_of_task)


def silence_threads() -> None:
    """Keeps tracebacks of other threads and tasks off the screen until the end.

    A library that writes in threads may fail there of the same once more.
    """
    if not os.environ.get(TRACEBACK):
        threading.excepthook = sys.unraisablehook = lambda found: None
        TASKS.addFilter(lambda record: False)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and those that it comes from, also of other threads."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _chain(each)
    before = error.__cause__
    if before is None and not error.__suppress_context__:
        before = error.__context__
    if before is not None:
        yield from _chain(before)


def _number(error: BaseException) -> int | None:
    """Returns the errno of an error, which libraries in C++ have in words alone."""
    if isinstance(error, OSError):
        return error.errno
    words = {os.strerror(number): number for number in (*FULL, *BROKEN)}
    return next((words[word] for word in words if word in str(error)), None)


def _free(folder: Path) -> str:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    with suppress(OSError):
        return f": {shutil.disk_usage(folder).free / 1e6:.3g} MB are free at {folder}"
    return ""
