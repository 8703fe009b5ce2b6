"""How long does `import optsde` take, beyond `import jax`?

Each import in a fresh interpreter, with files in the cache; medians of seven.

    make bench
"""

import statistics
import subprocess
import sys

from benchmarks.timing import report

CODE = """
import time, jax
start = time.perf_counter()
import optsde
print(time.perf_counter() - start)
"""


def main() -> None:
    def once() -> float:
        run = [sys.executable, "-c", CODE]
        return float(subprocess.run(run, capture_output=True, check=True).stdout)

    seconds = statistics.median(once() for _ in range(7))
    report(
        "How long does `import optsde` take, beyond `import jax`?",
        {"seconds": (seconds, 0.5)},
    )


if __name__ == "__main__":
    main()
