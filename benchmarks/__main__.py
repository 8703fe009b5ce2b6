"""python -m benchmarks [QUESTION …]: measures, and renews RESULTS.md and its figures.

Each question runs by itself, `python -m benchmarks.QUESTION`, for about a minute. What
got slower than at the last time, beyond both intervals, is printed. `--pages` measures
nothing and renews pages and figures from results.json, and the README's table where it
has the marks <!-- bench --> and <!-- /bench -->.
"""

import argparse
import sys
from collections.abc import Sequence

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


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 3 where a question failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures speed against peers, and renews RESULTS.md.",
    )
    parser.add_argument("question", nargs="*", help=", ".join(QUESTIONS))
    parser.add_argument("--seconds", type=float, default=60, help="for each question")
    parser.add_argument("--pages", action="store_true", help="measure nothing")
    options = parser.parse_args(argv)
    if unknown := [x for x in options.question if x not in QUESTIONS]:
        parser.error(f"{unknown[0]!r} is none of {', '.join(QUESTIONS)}")
    if not options.seconds > 0:
        parser.error(f"--seconds={options.seconds:g}: needs a positive number")
    place, names = results.PLACE, options.question or QUESTIONS
    if options.pages:
        place.write_pages()
        code = 0
    else:
        code = results.renew(place, names, QUESTIONS, options.seconds)
    readme = results.ROOT / "README.md"
    readme.write_text(results.inserted(readme.read_text(), place.load()))
    return code


if __name__ == "__main__":
    sys.exit(main())
