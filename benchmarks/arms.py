"""Does keeping an arm in a run directory cost the same, however many there are?

Each arm is kept by itself: two curves of 64 seeds at 100 times, 51 kB, synced to the
disk, with the stamp of the code that made it.
"""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.question import Answer, Picture, Row, asked
from benchmarks.timing import clocked, race
from optsde.study.rundir import RunDir

ARMS = (10, 40, 160)
SHAPE = 64, 100
TINY = dict(ARMS=(1, 2), SHAPE=(2, 2))
FLAT = 1.2


def kept(arms: int):
    """The call that keeps so many arms in a new directory."""
    curve = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            rundir = RunDir(Path(folder) / "run", "bench", {})
            rundir.begin()
            for number in range(arms):
                rundir.keep(f"arm{number}", {"train_loss": curve, "test_loss": curve})
            rundir.close()

    return run


def ask(seconds: float) -> Answer:
    contenders = {str(arms): clocked(kept(arms)) for arms in ARMS}
    least, most = ARMS[0], ARMS[-1]
    found = race(contenders, [(str(most), str(least))], seconds)
    ratio = found.ratio(str(most), str(least), least / most)
    each = [found.seconds(str(arms), 1e3 / arms) for arms in ARMS]
    rows = [Row(f"an arm of {most} ÷ an arm of {least}", ratio, aim=FLAT)]
    rows += [Row(f"an arm of {n}", x, "ms") for n, x in zip(ARMS, each, strict=True)]
    picture = Picture("arms", "ms to keep an arm", ARMS, {"a run directory": each})
    return Answer(rows, [f"{found.rounds} rounds"], picture)


if __name__ == "__main__":
    asked(ask)
