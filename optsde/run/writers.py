"""Writers of metrics: metrics.jsonl, and TensorBoard and wandb where chosen.

A writer takes rows, dictionaries of names and numbers that begin with `step`. `begin`
says at which step a run goes on, and which rows it has until there, so that none is
lost and none comes twice: a file is written anew from them.
"""

import hashlib
import importlib.util
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from optsde.analysis.spikes import SpikeDetector
from optsde.run import files

Row = Mapping[str, Any]
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}  # of each by its name


class Writer(Protocol):
    """A place for the rows of a run: a file, TensorBoard, or any with these three."""

    def begin(self, step: int, rows: Sequence[Row]) -> None:
        """Opens it for a run that goes on from `step`, and has these rows by then."""

    def write(self, row: Row) -> None:
        """Takes the next row."""

    def close(self) -> None:
        """Closes it; nothing is written after that."""


class JsonLines:
    """A file of one JSON object to a line, with null for what is not finite."""

    def __init__(self, path: Path):
        self.path = path
        self._file: Any = None

    def begin(self, step: int, rows: Sequence[Row]) -> None:
        write_lines(self.path, rows)
        self._file = open(self.path, "a", buffering=1)  # noqa: SIM115

    def write(self, row: Row) -> None:
        self._file.write(files.json_of(row))

    def close(self) -> None:
        self._file.close()


class MarkSpikes:
    """Rows of a JsonLines with `spike`: 1 where the loss is part of one, else 0.

    `options` are those of `analysis.SpikeDetector`, whose window counts rows.
    """

    def __init__(self, rows: JsonLines, **options):
        self._rows = rows
        self._options = options
        self._detectors: list[SpikeDetector] = []

    def begin(self, step: int, rows: Sequence[Row]) -> None:
        self._detectors = []
        self._rows.begin(step, [self._marked(row) for row in rows])

    def write(self, row: Row) -> None:
        self._rows.write(self._marked(row))

    def close(self) -> None:
        self._rows.close()

    def _marked(self, row: Row) -> Row:
        if "loss" not in row:  # before the first step
            return row
        given = row["loss"] if isinstance(row["loss"], list) else [row["loss"]]
        self._detectors = self._detectors or [
            SpikeDetector(**self._options) for _ in given
        ]
        pairs = zip(self._detectors, given, strict=True)
        marks = [int(detector.update(row["step"], loss)) for detector, loss in pairs]
        return {**row, "spike": marks if len(marks) > 1 else marks[0]}


class TensorBoard:
    """Scalars by tensorboardX (extra [tensorboard]); means where there are replicas.

    Args:
      directory: of the event files.
      names: of blocks of replicas of equal size, each of which has its own mean.
    """

    def __init__(self, directory: Path, names: Sequence[str] = ()):
        refuse_missing(["tensorboard"])
        from tensorboardX import SummaryWriter

        # What earlier files of the directory have is written anew.
        self._make = lambda: SummaryWriter(str(directory), purge_step=0)
        self._names = names
        self._writer: Any = None

    def begin(self, step: int, rows: Sequence[Row]) -> None:
        self._writer = self._make()
        for row in rows:
            self.write(row)

    def write(self, row: Row) -> None:
        for name, value in means(row, self._names).items():
            self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """Weights & Biases (extra [wandb]); a run that goes on keeps its identity.

    Args:
      directory: of wandb's own files; its name is that of the group of runs.
      config: settings that wandb shows.
      label: the run's name in its group; the directory's name where there is none.
      names: of blocks of replicas of equal size, each of which has its own mean.
    """

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any],
        label: str = "",
        names: Sequence[str] = (),
    ):
        refuse_missing(["wandb"])
        import wandb

        self._wandb, self._names = wandb, names
        place = str(directory.resolve())
        whole = f"{place}/{label}" if label else place
        self._options = dict(
            project="optsde",
            dir=place,
            id=hashlib.sha256(whole.encode()).hexdigest()[:12],
            name=label or directory.name,
            group=directory.name,
            config=dict(config),
        )
        self._run: Any = None

    def begin(self, step: int, rows: Sequence[Row]) -> None:
        self._run = self._wandb.init(**self._options, resume="allow")

    def write(self, row: Row) -> None:
        self._run.log(means(row, self._names), step=row["step"])

    def close(self) -> None:
        self._run.finish()


def refuse_missing(names: Sequence[str]) -> None:
    """Refuses writers that there are not, or whose package is not installed."""
    for name in names:
        if name not in PACKAGES:
            raise ValueError(f"writer {name!r}: needs one of {', '.join(PACKAGES)}")
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise ValueError(
                f"writer {name!r} needs {PACKAGES[name]}: pip install optsde[{name}]"
            )


def means(row: Row, names: Sequence[str] = ()) -> dict[str, float]:
    """Returns the numbers of a row, each the mean of its replicas.

    >>> means({"step": 3, "loss": [1.0, 2.0, 5.0, 6.0]})
    {'mean_of_4/loss': 3.5}
    >>> means({"step": 3, "loss": [1.0, 2.0, 5.0, 6.0]}, ["adam", "sgd"])
    {'adam/loss': 1.5, 'sgd/loss': 5.5}
    """
    found = {}
    for name, value in row.items():
        values = value if isinstance(value, list) else [value]
        parts = names or ([f"mean_of_{len(values)}"] if len(values) > 1 else [""])
        size = len(values) // len(parts)
        for number, part in enumerate(parts if name != "step" else ()):
            block = values[number * size : (number + 1) * size]
            found[f"{part}/{name}".lstrip("/")] = sum(block) / size
    return found


def read(path: Path) -> dict[str, list]:
    """Returns the columns of a metrics.jsonl.

    A number that was not finite is NaN; None stands where a row lacks the number.
    """
    rows = [row for _, row in _lines(path)]
    names = dict.fromkeys(name for row in rows for name in row)

    def number(row: dict, name: str):
        return math.nan if name in row and row[name] is None else row.get(name)

    return {name: [number(row, name) for row in rows] for name in names}


def write_lines(path: Path, rows: Iterable[Row]) -> None:
    """Writes a metrics.jsonl of these rows, which is whole whenever it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, "".join(map(files.json_of, rows)))


def _lines(path: Path) -> list[tuple[str, dict]]:
    """Whole lines with what they say; a last line that was cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [(line, json.loads(line)) for line in lines if line.endswith("\n")]
