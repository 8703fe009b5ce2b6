"""python -m benchmarks.accelerator: the questions that a GPU or TPU answers otherwise.

Full-batch steps of ResNets against the device's matmul peak and against torch, then
ensembles, SVAG and SDE steps, full batches, eigenvalues and kernels as on a CPU. It
writes benchmarks/ACCELERATOR.md, accelerator.json and figures. `--tiny` runs all of its
code in small on whatever jax sees, and writes nothing.

Nothing of this project has been run on an accelerator yet.
"""

import argparse
import os
import sys
from collections.abc import Sequence

import jax

from benchmarks import results

QUESTIONS = ("images", "seeds", "steps", "fullbatch", "eigenvalues", "kernel")
PLACE = results.Place(
    results.HERE / "accelerator.json",
    results.HERE / "ACCELERATOR.md",
    "docs/figures/bench_accelerator_{}.png",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 2 without an accelerator, 3 where a question failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator")
    parser.add_argument("--seconds", type=float, default=60, help="for each question")
    parser.add_argument("--tiny", action="store_true", help="all the code in small")
    options = parser.parse_args(argv)
    if not options.seconds > 0:
        parser.error(f"--seconds={options.seconds:g}: needs a positive number")
    # Questions share the device with torch, and with this process.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if options.tiny:
        small = ["--tiny", "--seconds=0.1"]
        return 3 if results.ask_each(QUESTIONS, small, lambda *_: None) else 0
    if jax.default_backend() == "cpu":
        print(
            "benchmarks.accelerator: jax sees no GPU or TPU, only the CPU; install "
            "'.[cuda]' or '.[tpu]' where there is one, or try the code by --tiny",
            file=sys.stderr,
        )
        return 2
    return results.renew(PLACE, QUESTIONS, QUESTIONS, options.seconds)


if __name__ == "__main__":
    sys.exit(main())
