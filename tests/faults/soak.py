"""Does a long run keep to its memory and its open files?

    python -m tests.faults.soak MINUTES

trains a small net with evaluation, rows and saves by the clock, and about every 10 s
reads its resident memory and open descriptors. After the first third, in which caches
fill, memory must grow by less than 1 MB in ten minutes, and descriptors not at all.
A run keeps its rows, and orbax 24 kB of each save, of which there are two a minute.
"""

import ctypes
import gc
import os
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

import optsde
from optsde import data, gradients, models
from optsde.run import JsonLines, Task

SECONDS = 10.0  # between two readings
MOST = 1.0  # MB in ten minutes
STEPS = 50_000  # from one row to the next, with an evaluation


class EnoughError(Exception):
    """The time is over."""


class Readings:
    """A writer that reads memory and descriptors whenever there is a row."""

    def __init__(self, minutes: float):
        self.end = time.monotonic() + 60 * minutes
        self.found: list[tuple[float, float, int]] = []  # seconds, MB, descriptors

    def begin(self, step, rows):
        pass

    def write(self, row):
        now = time.monotonic()
        if not self.found or now > self.found[-1][0] + SECONDS:
            reading = now, resident(), len(os.listdir("/proc/self/fd"))
            self.found.append(reading)
            print(f"step {row['step']}: {reading[1]:.1f} MB, {reading[2]} descriptors")
        if now > self.end:
            raise EnoughError

    def close(self):
        pass


def resident() -> float:
    """Returns the resident memory of this process in MB, but for what is free in it."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def soak(minutes: float, folder: Path) -> list[tuple[float, float, int]]:
    """Trains for that long, with all that a study's run has; returns the readings."""
    digits = data.load("digits", train_size=512)
    net = models.build("mlp", 10, hidden=(32,))
    task = Task(net, models.cross_entropy, digits.train, digits.test)
    optimizer = optsde.Momentum(lr=0.01, beta=0.9)
    plan = optsde.Plan(optimizer=optimizer, batch_size=64, horizon=1e8)
    sampler, readings = gradients.minibatch(task.losses, task.train), Readings(minutes)
    try:
        optsde.fit(
            optsde.discrete(plan, sampler, task.init),
            jax.random.split(jax.random.key(0), 2),
            plan.horizon,
            every=STEPS,
            probes=[task.evaluation(times=STEPS)],
            writers=[JsonLines(folder / "metrics.jsonl"), readings],
            journal=folder / "journal",
        )
    except EnoughError:
        return readings.found
    raise AssertionError("the run ended before the time was over")


def main(minutes: float) -> int:
    """Prints the slopes; returns whether they are too steep."""
    with tempfile.TemporaryDirectory() as folder:
        found = np.array(soak(minutes, Path(folder)))
    settled = found[len(found) // 3 :]
    at = (settled[:, 0] - settled[0, 0]) / 600
    memory, files = (np.polyfit(at, settled[:, i], 1)[0] for i in (1, 2))
    print(
        f"{len(found)} readings: {memory:+.2f} MB and {files:+.2f} descriptors in ten "
        f"minutes; allowed {MOST:g} and 0"
    )
    return int(memory > MOST or np.ptp(settled[:, 2]) > 0)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
