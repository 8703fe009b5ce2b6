"""Interleaved medians: contenders take turns, so a busy machine hits them alike."""

import statistics
import time
from collections.abc import Callable, Mapping


def medians(
    contenders: Mapping[str, Callable[[], object]], rounds: int = 7
) -> dict[str, float]:
    """Median seconds of each, after one call of each that is not counted."""
    for run in contenders.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def report(question: str, rows: Mapping[str, tuple[float, float | None]]) -> None:
    """Print name, value and bound of ratios; a missed bound is marked."""
    print(question)
    for name, (value, bound) in rows.items():
        limit = "" if bound is None else f"  (at most {bound:g})"
        missed = "  MISSED" if bound is not None and value > bound else ""
        print(f"  {name:52} {value:9.3g}{limit}{missed}")
