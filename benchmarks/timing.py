"""Interleaved medians: contenders take turns, so a busy machine hits them alike."""

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(
    contenders: Mapping[str, Callable[[], float]], rounds: int = 7
) -> dict[str, float]:
    """Median of what each returns, after one call of each that is not counted."""
    for run in contenders.values():
        run()
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            found[name].append(run())
    return {name: statistics.median(values) for name, values in found.items()}


def clocked(run: Callable[[], object]) -> Callable[[], float]:
    """The seconds that a call takes."""

    def timed() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return timed


def report(question: str, rows: Mapping[str, tuple[float, float | None]]) -> None:
    """Print name, value and bound of ratios; a missed bound is marked."""
    print(question)
    for name, (value, bound) in rows.items():
        limit = "" if bound is None else f"  (at most {bound:g})"
        missed = "  MISSED" if bound is not None and value > bound else ""
        print(f"  {name:52} {value:9.3g}{limit}{missed}")
