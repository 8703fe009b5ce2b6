"""A slice of the loss: its evaluation on a grid, kept as it goes, and its numbers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.landscape.trained import task_of
from optsde.analysis import number, table
from optsde.run import Progress, Task, evaluate
from optsde.study import RunDir, Settings, Study, UsageError
from optsde.types import PyTree

DATA = {"train": "training", "held_out": "held out"}
COLUMNS = tuple(f"{part}_{what}" for part in DATA for what in ("loss", "accuracy"))
PART = "slice"  # of the run directory
CHUNK = 8  # points between two reads of the device


class Slice(NamedTuple):
    """Losses and accuracies of a grid through trained points."""

    steps: list[int]  # of the checkpoints at its points
    distance: np.ndarray  # along each axis
    values: dict[str, np.ndarray]  # those of COLUMNS, axis 0 is the first direction

    @property
    def is_plane(self) -> bool:
        return self.values["train_loss"].ndim == 2


def slice_study(
    name: str,
    settings: type[Settings],
    simulate: Callable[..., Slice],
    numbers: Callable[[np.ndarray], dict[str, float]],
    draw: Callable[[Any, Slice, Path], None],
) -> Study:
    """Returns the study of a slice, of which `numbers(loss)` are in the summary."""

    def losses(cut: Slice) -> dict[str, dict[str, float]]:
        return {f"{part}_loss": numbers(cut.values[f"{part}_loss"]) for part in DATA}

    def tables(s, cut: Slice):
        columns = list(losses(cut)["train_loss"])
        rows = []
        for words, each in zip(DATA.values(), losses(cut).values(), strict=True):
            cells = [
                number(x, significant=4, missing="not finite") for x in each.values()
            ]
            rows.append([f"{words} loss", *cells])
        yield ""
        yield table(["", *columns], rows, "l" + "r" * len(columns))
        yield ""

    return Study(
        name,
        settings,
        simulate,
        tables=tables,
        figures={"slice": draw},
        task=task_of,
        by_accuracy=True,
        summary=lambda s, cut: {"steps": cut.steps, **losses(cut)},
        precision=None,
    )


def evaluate_slice(
    rundir: RunDir,
    task: Task,
    steps: list[int],
    params: PyTree,
    directions: Sequence[PyTree],
    distance: np.ndarray,
) -> Slice:
    """Evaluates every point of the grid that `rundir` does not have yet."""
    keep_to_one_checkpoint(rundir, steps)
    shape = [len(distance)] * len(directions)
    axes = np.meshgrid(*[distance] * len(directions), indexing="ij")
    places = np.stack([axis.reshape(-1) for axis in axes], axis=-1).astype(np.float32)
    stored = rundir.part(PART) or dict.fromkeys(COLUMNS, np.zeros(0))
    known = np.stack([stored[name].reshape(-1) for name in COLUMNS], axis=-1)
    if len(known) == len(places):
        print(f"slice: read from {rundir.path}")
        return Slice(steps, distance, _columns(known, shape))

    on_device = jax.tree.map(jnp.asarray, (params, list(directions)))
    shared = *on_device, task.plain, task.train, task.test
    progress = Progress("points")
    progress.compiling()
    of_points = compiled_points(task, shared, len(directions))
    progress.begin(len(known))
    where = {"steps": np.asarray(steps), "distance": distance}
    while len(known) < len(places):
        block = places[len(known) : len(known) + CHUNK]
        missing = CHUNK - len(block)
        filled = np.pad(block, ((0, missing), (0, 0)), mode="edge")
        new = np.asarray(of_points(shared, filled), np.float64)[: len(block)]
        known = np.concatenate([known, new])
        rundir.keep(PART, where | _columns(known))
        progress.update(len(known), len(places))
    values = _columns(known, shape)
    rundir.keep(PART, where | values)
    return Slice(steps, distance, values)


def _columns(known: np.ndarray, shape: Sequence[int] = (-1,)) -> dict[str, np.ndarray]:
    """Returns the columns of points [points, columns], each in the shape of a grid."""
    return {n: v.reshape(shape) for n, v in zip(COLUMNS, known.T, strict=True)}


def keep_to_one_checkpoint(rundir: RunDir, steps: list[int]) -> None:
    """Refuses to mix points of an older checkpoint with those of a newer one."""
    stored = (rundir.part(PART) or {"steps": np.asarray(steps)})["steps"].tolist()
    if stored != steps:
        raise UsageError(
            f"{rundir.path} holds a slice at step {stored}, the newest "
            f"checkpoint is of step {steps}; name another --workdir"
        )


def compiled_points(task: Task, shared: tuple, directions: int) -> Callable:
    """Compiles (shared, places [CHUNK, directions]) -> [CHUNK, columns]."""

    def of_points(shared, places):
        params, directions, plain, *parts = shared

        def of_point(place):
            point = params
            for share, direction in zip(place, directions, strict=True):
                point = jax.tree.map(
                    lambda x, d, share=share: x + share * d, point, direction
                )
            columns = []
            for part in parts:
                metrics = evaluate(
                    task.model, task.loss, point, plain, part, prepare=task.prepare
                )
                columns += [metrics["loss"], metrics["accuracy"]]
            return jnp.stack(columns)

        return jax.lax.map(of_point, places)

    places = jax.ShapeDtypeStruct((CHUNK, directions), jnp.float32)
    return jax.jit(of_points).lower(shared, places).compile()
