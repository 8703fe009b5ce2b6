"""python -m benchmarks [QUESTION …]: measures, and renews RESULTS.md and its figures.

Each question runs by itself, `python -m benchmarks.QUESTION`, for about a minute. What
got slower than at the last time, beyond both intervals, is printed. `--pages` renews
the pages and figures from results.json without measuring, and the README's table where
it has the marks <!-- bench --> and <!-- /bench -->.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import results

QUESTIONS = (
    "ensemble",
    "seeds",
    "steps",
    "fullbatch",
    "eigenvalues",
    "kernel",
    "loop",
    "starting",
    "arms",
    "devices",
)
ROOT = results.HERE.parent


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("question", nargs="*", help=", ".join(QUESTIONS))
    parser.add_argument("--seconds", type=float, default=60, help="for each question")
    parser.add_argument("--pages", action="store_true", help="measure nothing")
    options = parser.parse_args(argv)
    if unknown := sorted(set(options.question) - set(QUESTIONS)):
        parser.error(f"{unknown[0]!r} is none of {', '.join(QUESTIONS)}")
    if not options.seconds > 0:
        parser.error(f"--seconds={options.seconds:g}: needs a positive number")
    before = results.load()
    failed = []
    if not options.pages:
        for name in options.question or QUESTIONS:
            if not measure(name, options.seconds):
                failed.append(name)
    write_pages()
    worse = list(results.slower(before, results.load()))
    print(*(f"slower than the last time: {line}" for line in worse), sep="\n")
    if failed:
        print(f"failed: {', '.join(failed)}; the last figures stay", file=sys.stderr)
    return 3 if failed else 0


def measure(name: str, seconds: float) -> bool:
    """Asks a question in a process of its own, and keeps the answer if there is one."""
    stamp, start = results.stamp(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answer.json"
        options = [f"--seconds={seconds}", f"--json={file}"]
        command = [sys.executable, "-m", f"benchmarks.{name}", *options]
        if subprocess.run(command, cwd=ROOT).returncode:
            return False
        answer = json.loads(file.read_text())
    print(flush=True)
    records = results.load()
    records[name] = {**answer, "stamp": stamp, "seconds": time.monotonic() - start}
    ordered = {known: records[known] for known in QUESTIONS if known in records}
    text = json.dumps(ordered, indent=1, ensure_ascii=False)
    results.FILE.write_text(f"{text}\n")
    return True


def write_pages() -> None:
    """Writes RESULTS.md, the figures, and the README's table where it has marks."""
    records = results.load()
    (results.HERE / "RESULTS.md").write_text(results.markdown(records))
    for name, record in records.items():
        results.draw(name, record)
    readme = ROOT / "README.md"
    readme.write_text(results.inserted(readme.read_text(), records))


if __name__ == "__main__":
    sys.exit(main())
