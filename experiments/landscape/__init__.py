"""How does the loss look around a trained point, and between two of them?

Reads the checkpoints of experiments.fullbatch and evaluates training and held-out loss
on a line or a plane through the trained parameters. Random directions are scaled filter
by filter to the norms of the weights (Li et al. 2018). At each point BatchNorm's
statistics are made anew. Training examples are taken without augmentation.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments import tasks
from experiments.fullbatch import recipe
from experiments.landscape.report import (
    DATA,
    draw_line,
    draw_plane,
    is_between,
    summary,
    summary_table,
)
from experiments.launch import UsageError, launch
from experiments.rundir import RunDir
from optsde.types import PyTree

HOW_TO_GET_ONE = (
    "a run directory of experiments.fullbatch; to make one: "
    "python -m experiments.fullbatch --config=configs/fullbatch.py:digits_sgd"
)
COLUMNS = tuple(f"{part}_{what}" for part in DATA for what in ("loss", "accuracy"))
CHUNK = 8  # points between two looks at the device


def main() -> None:
    launch("landscape", __doc__, "configs/landscape.py:line", check, run)


# ---- what the user gave


def check(config: ConfigDict) -> None:
    points = config.points
    _require(points >= 3 and points % 2 == 1, config, "points", "an odd integer ≥ 3")
    _require(config.step >= 0, config, "step", "a step, or 0 for the newest")
    source = _source(config, "run")
    _check_replica(config, "replica", config.run, source)
    if not is_between(config):
        _require(config.directions in (1, 2), config, "directions", "1 or 2")
        _require(config.radius > 0, config, "radius", "a positive number")
        return
    if not config.other and config.replica == config.other_replica:
        raise UsageError(
            "--config.other: names no run to go to; name one, or another replica of "
            "the same run by --config.other_replica"
        )
    other = _source(config, "other") if config.other else source
    _check_replica(config, "other_replica", config.other or config.run, other)
    for name in ("dataset", "model", "options"):
        if source[name] != other[name]:
            raise UsageError(
                f"--config.other={config.other}: needs the same {name} as "
                f"--config.run={config.run}"
            )


def _require(holds: bool, config: ConfigDict, name: str, allowed: str) -> None:
    if not holds:
        raise UsageError(f"--config.{name}={config[name]}: needs {allowed}")


def _check_replica(config: ConfigDict, name: str, run: str, source) -> None:
    allowed = f"0 to {source.seeds - 1}, the replicas of {run}"
    _require(0 <= config[name] < source.seeds, config, name, allowed)


def _source(config: ConfigDict, name: str) -> ConfigDict:
    """The settings of the run that --config.`name` names."""
    given = config[name]
    if not given:
        raise UsageError(f"--config.{name}: names no run; needs {HOW_TO_GET_ONE}")
    try:
        return source_settings(Path(given))
    except UsageError as error:
        raise UsageError(f"--config.{name}={given}: {error}") from None


def source_settings(folder: Path) -> ConfigDict:
    """The settings of a run of one row, or of RUN/rows/NAME; never augmented."""
    in_table = folder.parent.name == "rows"
    file = (folder.parent.parent if in_table else folder) / "config.json"
    if not file.is_file():
        raise UsageError(f"needs {HOW_TO_GET_ONE}")
    try:
        settings = json.loads(file.read_text())
    except ValueError as error:
        raise UsageError(f"{file} is damaged ({error})") from None
    if not {"dataset", "model", "options", "seeds"} <= set(settings):
        raise UsageError(f"holds another study; needs {HOW_TO_GET_ONE}")
    rows = recipe.rows_of(ConfigDict(settings))
    name = folder.name if in_table else "run"
    if name not in rows:
        known = ", ".join(f"rows/{row}" for row in rows)
        raise UsageError(f"is a table; needs one of its rows: {known}")
    if not any((folder / "checkpoints").glob("[0-9]*")):
        raise UsageError("has no checkpoint yet; let it run first")
    return ConfigDict({**rows[name].to_dict(), "augment": "none"})


def load_point(folder: Path, replica: int, step: int = 0) -> tuple[int, PyTree]:
    """(step, parameters of one replica) from the run's checkpoints."""
    import jax

    from optsde import train

    try:
        found, params = run.load_params(folder / "checkpoints", step or None)
    except ValueError as error:
        raise UsageError(" ".join(str(error).split())) from None
    return found, jax.tree.map(lambda x: np.asarray(x[replica]), params)


# ---- directions


def random_direction(key, params: PyTree) -> PyTree:
    """Gaussian, each filter as long as that of the parameters; 0 on 1-D leaves."""
    import jax

    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    drawn = [
        jax.random.normal(k, x.shape, x.dtype)
        for k, x in zip(keys, leaves, strict=True)
    ]
    return filter_normalised(jax.tree.unflatten(tree, drawn), params)


def filter_normalised(direction: PyTree, params: PyTree) -> PyTree:
    """The direction, each filter scaled to the norm of that of the parameters.

    A filter is what makes one output: all axes of a kernel but the last. Leaves of one
    axis (biases, scales of norms) become 0, as they have no filters.
    """
    import jax
    import jax.numpy as jnp

    def scaled(d, x):
        if x.ndim < 2:
            return jnp.zeros_like(d)
        axes = tuple(range(x.ndim - 1))
        length = jnp.sqrt(jnp.sum(d**2, axes, keepdims=True))
        wanted = jnp.sqrt(jnp.sum(x**2, axes, keepdims=True))
        factor = wanted / jnp.where(length > 0, length, 1)
        return d * jnp.broadcast_to(factor, d.shape)

    return jax.tree.map(scaled, direction, params)


# ---- the slice


def run(config: ConfigDict, rundir: RunDir) -> None:
    import jax

    folder = Path(config.run)
    source = source_settings(folder)
    step, params = load_point(folder, config.replica, config.step)
    steps = [step]
    if is_between(config):
        other = Path(config.other or config.run)
        end_step, end = load_point(other, config.other_replica)
        steps.append(end_step)
        directions = [jax.tree.map(np.subtract, end, params)]
        distance = np.linspace(0.0, 1.0, config.points)
    else:
        keys = jax.random.split(jax.random.key(config.seed), 2)[: config.directions]
        directions = [random_direction(key, params) for key in keys]
        distance = np.linspace(-config.radius, config.radius, config.points)
    _keep_to_one_checkpoint(rundir, steps)
    task = tasks.build_task(source, tasks.load(source))
    rundir.begin()
    rundir.add_curves({"steps": np.asarray(steps)})
    values = evaluate_slice(rundir, task, params, directions, distance)

    figure = rundir.figure("slice")
    if len(directions) == 2:
        draw_plane(distance, values, figure)
    else:
        draw_line(config, distance, values, figure)
    found = summary(config, distance, values)
    rundir.finish("done", [], steps=steps, **found)
    print(f"\n{summary_table(found)}\n")
    print(f"figure: {figure}\nsummary: {rundir.path / 'summary.json'}")


def _keep_to_one_checkpoint(rundir: RunDir, steps: list[int]) -> None:
    """Refuse to mix points of an older checkpoint with those of a newer one."""
    held = rundir.curves().get("steps")
    if held is not None and held.tolist() != steps:
        raise UsageError(
            f"{rundir.path} holds a slice at step {held.tolist()}, the newest "
            f"checkpoint is of step {steps}; name another --workdir"
        )


def evaluate_slice(
    rundir: RunDir,
    task,
    params: PyTree,
    directions: Sequence[PyTree],
    distance: np.ndarray,
) -> dict[str, np.ndarray]:
    """Every column of COLUMNS on the grid; points that rundir holds are not run again.

    On a plane axis 0 belongs to the first direction.
    """
    import jax
    import jax.numpy as jnp

    axes = np.meshgrid(*[distance] * len(directions), indexing="ij")
    places = np.stack([axis.reshape(-1) for axis in axes], axis=-1).astype(np.float32)
    held = rundir.curves()
    done = [held[name].reshape(-1) for name in COLUMNS if name in held]
    known = np.stack(done, axis=-1) if done else np.zeros((0, len(COLUMNS)))
    if len(known) == len(places):
        print(f"slice: read from {rundir.path}")
        return {name: held[name] for name in COLUMNS}

    on_device = jax.tree.map(jnp.asarray, (params, list(directions)))
    shared = *on_device, task.plain, task.train, task.test
    of_points = compiled_points(task, shared, len(directions))
    progress = optsde.Progress("points")
    progress.begin(len(known))
    while len(known) < len(places):
        block = places[len(known) : len(known) + CHUNK]
        missing = CHUNK - len(block)
        filled = np.pad(block, ((0, missing), (0, 0)), mode="edge")
        new = np.asarray(of_points(shared, filled), np.float64)[: len(block)]
        known = np.concatenate([known, new])
        rundir.add_curves(dict(zip(COLUMNS, known.T, strict=True)))
        progress.update(len(known), len(places))
    shape = [len(distance)] * len(directions)
    values = {n: v.reshape(shape) for n, v in zip(COLUMNS, known.T, strict=True)}
    rundir.add_curves({"distance": distance, **values})
    return values


def compiled_points(task, shared: tuple, directions: int):
    """(shared, places [CHUNK, directions]) -> [CHUNK, columns], compiled."""
    import jax
    import jax.numpy as jnp

    from optsde import train

    def of_points(shared, places):
        params, directions, plain, *parts = shared

        def of_point(place):
            point = params
            for share, direction in zip(place, directions, strict=True):
                point = jax.tree.map(
                    lambda x, d, share=share: x + share * d, point, direction
                )
            found: list[Any] = []
            for part in parts:
                judged = run.evaluate(
                    task.model, task.loss, point, plain, part, prepare=task.prepare
                )
                found += [judged["loss"], judged["accuracy"]]
            return jnp.stack(found)

        return jax.lax.map(of_point, places)

    places = jax.ShapeDtypeStruct((CHUNK, directions), jnp.float32)
    return jax.jit(of_points).lower(shared, places).compile()
