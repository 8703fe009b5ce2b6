"""The outcomes of malformed inputs: a clear line, a traceback, silence or a hang."""

import contextlib
import io
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

LINE, TRACEBACK, SILENT, HANG = "clear line", "traceback", "silent", "hang"
KINDS = LINE, TRACEBACK, SILENT, HANG


class Outcome(NamedTuple):
    """What an input met with, and the words that it was told."""

    kind: str
    text: str


class _HungError(BaseException):
    """The time was up."""


def outcome(
    act: Callable[[], object], words: Iterable[str], seconds: int = 0
) -> Outcome:
    """Returns what `act()` meets with.

    A clear line is a ValueError, TypeError or UsageError whose message is one line with
    all the words in it, which name what was given and what is allowed. With `seconds`,
    what takes longer is a hang.
    """
    from optsde.study.shapes import UsageError

    try:
        with _at_most(seconds), contextlib.redirect_stderr(io.StringIO()):
            act()
    except (ValueError, TypeError, UsageError) as error:
        text = str(error)
        clear = "\n" not in text and all(word in text for word in words)
        return Outcome(LINE if clear else TRACEBACK, f"{type(error).__name__}: {text}")
    except _HungError:
        return Outcome(HANG, f"no end in {seconds} s")
    except (Exception, SystemExit) as error:
        return Outcome(TRACEBACK, f"{type(error).__name__}: {error}")
    return Outcome(SILENT, "was taken")


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def stop(number, frame):
        raise _HungError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
