"""What do metrics, evaluation and checkpoints add to the compiled loop?

A small conv net with BatchNorm on minibatches of 256 of 1,024 digits, one replica, one
device. The loop writes metrics every 50 steps, evaluates every 100 and saves every 500;
then it does one of these alone, at other distances. A run compiles anew, and times
itself without that.
"""

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

import optsde
from benchmarks import fullbatch
from benchmarks.question import Answer, Picture, Row, asked
from benchmarks.timing import race
from optsde import run
from optsde.gradients import minibatch

STEPS, BATCH = 1500, 256
FEWER, DISTANCES = 250, (5, 25, 125)
TINY = dict(STEPS=20, BATCH=64, FEWER=10, DISTANCES=(5,))
ALL = {"rows": 50, "evaluations": 100, "saves": 500}


class Loop:
    """The loops of one task."""

    def __init__(self):
        self.task = fullbatch.task(fullbatch.SIZE)
        self.sampler = minibatch(self.task.losses, self.task.train, group=64, at_once=4)

    def alone(self, steps: int):
        """The compiled loop, with nothing around it."""
        return fullbatch.bare_loop(self.task, self.sampler, BATCH, steps)

    def whole(self, steps: int, every: Mapping[str, int]):
        """With what is asked for, each every so many steps."""
        optimizer = optsde.HeavyBall(lr=0.05, beta=0.9, nesterov=True, l2=5e-4)
        plan = optsde.Plan(optimizer=optimizer, batch_size=BATCH, horizon=steps)
        dynamics = optsde.discrete(plan, self.sampler, self.task.init)
        keys = jax.random.split(jax.random.key(0), 1)

        def timed() -> float:
            with tempfile.TemporaryDirectory() as folder:
                options: dict[str, Any] = {}
                if "evaluations" in every:
                    options["probes"] = [
                        self.task.evaluation(times=every["evaluations"])
                    ]
                if "saves" in every:
                    options["journal"] = Path(folder) / "checkpoints"
                    options["checkpoint_every"] = every["saves"]
                return optsde.fit(
                    dynamics,
                    keys,
                    steps,
                    every=every.get("rows"),
                    writers=[run.JsonLines(Path(folder) / "metrics.jsonl")],
                    progress=optsde.Progress("bench", io.StringIO()),
                    **options,
                ).seconds

        return timed


def ask(seconds: float) -> Answer:
    loop = Loop()
    contenders = {"whole": loop.whole(STEPS, ALL), "alone": loop.alone(STEPS)}
    first = race(contenders, [("whole", "alone")], seconds / 2)
    ratio = first.ratio("whole", "alone")
    rows = [Row("with metrics, evaluation, checkpoints ÷ bare loop", ratio, aim=1.04)]
    growing = {"alone": loop.alone(FEWER)}
    for what in ALL:
        for distance in DISTANCES:
            growing[f"{what} {distance}"] = loop.whole(FEWER, {what: distance})
    pairs = [(f"{what} {DISTANCES[-1]}", "alone") for what in ALL]
    second = race(growing, pairs, seconds / 2)
    curves = {
        what: [second.ratio(f"{what} {distance}", "alone") for distance in DISTANCES]
        for what in ALL
    }
    rows += [
        Row(f"with {what} every {distance} steps ÷ bare loop", found)
        for what, curve in curves.items()
        for distance, found in zip(DISTANCES, curve, strict=True)
    ]
    label = "steps from one to the next"
    picture = Picture(label, "time ÷ bare loop", DISTANCES, curves)
    return Answer(rows, [f"{first.rounds} and {second.rounds} rounds"], picture)


if __name__ == "__main__":
    asked(ask)
