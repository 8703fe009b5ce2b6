"""Trained points: runs of experiments.fullbatch and the parameters they ended with."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.fullbatch import PACKAGE
from experiments.fullbatch.recipe import Shared
from optsde.run import Task, load_params
from optsde.study import Settings, UsageError, setting
from optsde.study.integrity import read_object
from optsde.study.settings import Demand
from optsde.study.study import choose
from optsde.study.tasks import build_task
from optsde.types import PyTree

HOW_TO_GET_ONE = (
    "a run directory of experiments.fullbatch; to make one: "
    "python -m experiments.fullbatch --config=configs/fullbatch.py:digits_sgd"
)


class Trained(Settings):
    """Settings that name a trained point, and the grid through it."""

    run: str = setting("", "directory of a fullbatch run, or rows/NAME of its table")
    step: int = setting(
        0,
        "of the checkpoint; 0: the newest",
        at_least=0,
        needs="a step, or 0 for the newest",
    )
    replica: int = setting(0, "which of the run's seeds", at_least=0)
    points: int = setting(51, "on each axis", needs="an odd integer ≥ 3", at_least=3)

    def demands(self) -> Iterator[Demand]:
        yield from super().demands()
        yield self.points % 2 == 1, "points", "an odd integer ≥ 3"
        yield demand_of_replica(self, "run", "replica")


def demand_of_replica(s: Settings, run: str, replica: str) -> Demand:
    """Returns the demand that a run exists and has the replica."""
    place, number = getattr(s, run), getattr(s, replica)
    if not place:
        raise UsageError(f"--config.{run}: names no run; needs {HOW_TO_GET_ONE}")
    try:
        seeds = settings_of(Path(place)).seeds
    except UsageError as error:
        raise UsageError(f"--config.{run}={place}: {error}") from None
    allowed = f"0 to {seeds - 1}, the replicas of {place}"
    return 0 <= number < seeds, replica, allowed


def settings_of(folder: Path) -> Shared:
    """Returns the settings of a run of one row, or of RUN/rows/NAME."""
    in_table = folder.parent.name == "rows"
    file = _home(folder) / "config.json"
    if not file.is_file():
        raise UsageError(f"needs {HOW_TO_GET_ONE}")
    config = _stored(file)
    try:
        study = choose(PACKAGE.studies, config.get("study"))
        settings: Shared = study.settings.of(config)  # type: ignore
    except UsageError:
        raise UsageError(
            f"holds another study, or the run of an older version; needs "
            f"{HOW_TO_GET_ONE}"
        ) from None
    rows = [f"rows/{name}" for name in settings.table()]
    if study.key == "table" and (not in_table or f"rows/{folder.name}" not in rows):
        raise UsageError(f"is a table; needs one of its rows: {', '.join(rows)}")
    if not any((folder / "checkpoints").glob("[0-9]*")):
        raise UsageError("has no checkpoint yet; let it run first")
    return settings


def _stored(file: Path, **kinds: type) -> dict[str, Any]:
    try:
        return read_object(file, **kinds)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _home(folder: Path) -> Path:
    """Returns the run directory of a run, or of RUN/rows/NAME."""
    return folder.parent.parent if folder.parent.name == "rows" else folder


def task_of(s: Trained) -> Task:
    """Returns the task of the run, never augmented; refuses a task of one's own."""
    meta = _home(Path(s.run)) / "meta.json"
    sources = _stored(meta, sources=dict)["sources"] if meta.exists() else {}
    for file in sources:
        if file.endswith(".py"):
            raise UsageError(
                f"--config.run={s.run}: has trained the net of {file}; give that too, "
                f"as --config={file}:PRESET"
            )
    source = settings_of(Path(s.run))
    return build_task(dataclasses.replace(source, augment="none"))


def point(run: str, replica: int, step: int = 0) -> tuple[int, PyTree]:
    """Returns (step, parameters of one replica) from the run's checkpoints."""
    try:
        step, params = load_params(Path(run) / "checkpoints", step or None)
    except ValueError as error:
        raise UsageError(" ".join(str(error).split())) from None
    return step, jax.tree.map(lambda x: np.asarray(x[replica]), params)
