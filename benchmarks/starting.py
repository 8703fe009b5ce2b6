"""How long does it take until anything is seen: import, --help, a study's first words?

Each in a fresh interpreter with files in the cache. `import optsde` is timed beyond
`import jax`. First words are the first line that a study's default preset writes; it is
ended there. Programs that are compiled by then are kept, as between a user's runs.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable

from benchmarks.question import Answer, Row, asked
from benchmarks.timing import clocked, race

CODE = """
import time, jax
start = time.perf_counter()
import optsde
print(time.perf_counter() - start)
"""
STUDIES = (
    "svag",
    "scaling",
    "fullbatch",
    "catapults",
    "intrinsic_lr",
    "descent",
    "sweep",
)
TINY = dict(STUDIES=("descent",))
AIMS = {"import": 0.5, "help": 0.6, "words": 2.0}  # seconds


def imported() -> float:
    """Returns the seconds of `import optsde` beyond `import jax`."""
    run = [sys.executable, "-c", CODE]
    return float(subprocess.run(run, capture_output=True, check=True).stdout)


def helped(study: str) -> Callable[[], object]:
    """Returns the call of a study's --help."""
    run = [sys.executable, "-m", f"experiments.{study}", "--help"]
    return lambda: subprocess.run(run, capture_output=True, check=True)


def spoken(study: str) -> Callable[[], object]:
    """Returns the call of a study up to its first line."""

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", f"experiments.{study}"]
            process = subprocess.Popen(
                [*command, f"--workdir={folder}/run"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},  # as a terminal has it
            )
            assert process.stdout is not None
            line = process.stdout.readline()
            process.kill()
            process.communicate()
            if not line:
                raise RuntimeError(f"experiments.{study} ended without a word")

    return run


def ask(seconds: float) -> Answer:
    contenders = {"import": imported}
    contenders |= {f"help {x}": clocked(helped(x)) for x in STUDIES}
    contenders |= {f"words {x}": clocked(spoken(x)) for x in STUDIES}
    found = race(contenders, [("import", "import")], seconds)
    words = {
        "import": "import optsde, beyond import jax",
        **{f"help {x}": f"experiments.{x} --help" for x in STUDIES},
        **{f"words {x}": f"first words of experiments.{x}" for x in STUDIES},
    }
    rows = [
        Row(words[name], found.seconds(name), "s", AIMS[name.partition(" ")[0]])
        for name in contenders
    ]
    return Answer(rows, [f"{found.rounds} rounds"])


if __name__ == "__main__":
    asked(ask)
