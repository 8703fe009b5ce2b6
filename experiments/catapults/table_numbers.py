"""What the table is made of: of each row's curves the numbers that are compared."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments.catapults.table_runs import INITS, ROWS
from optsde.analysis.spikes import find_spikes

Columns = dict[str, dict[str, np.ndarray]]
"""Of each row what its training gave, with leading axes [inits, seeds]."""


def columns_of(curves: Mapping[str, np.ndarray]) -> Columns:
    columns: Columns = {}
    for key, value in curves.items():
        row, _, name = key.partition("/")
        columns.setdefault(row, {})[name] = value
    return columns


def accuracy(columns: Columns, row: str, init: str) -> np.ndarray:
    """[seeds], in percent, after the last step. A diverged net is as good as guessing,
    and counts as that."""
    return 100 * columns[row]["accuracy"][INITS.index(init), :, -1]


def matched_accuracy(columns: Columns, row: str, init: str, loss: float) -> np.ndarray:
    """[seeds], in percent, where the training loss first falls to `loss`.

    Between two evaluations the accuracy is linear in the logarithm of the loss. NaN
    where it does not get there.
    """
    held, which = columns[row], INITS.index(init)
    pairs = zip(held["train_loss"][which], held["accuracy"][which], strict=True)
    return np.array([100 * _at(loss, *pair) for pair in pairs])


def _at(loss: float, losses: np.ndarray, values: np.ndarray) -> float:
    there = losses <= loss
    if not there.any():
        return np.nan
    after = int(there.argmax())
    if after == 0:
        return float(values[0])
    before, behind = np.log(losses[after - 1 : after + 1])
    share = (before - np.log(loss)) / (before - behind)
    return float(values[after - 1] + share * (values[after] - values[after - 1]))


def diverged(columns: Columns, row: str, init: str) -> int:
    """How many seeds left the finite numbers."""
    losses = columns[row]["batch_loss"][INITS.index(init)]
    return int((~np.isfinite(losses).all(axis=1)).sum())


def spikes(columns: Columns, row: str, init: str) -> np.ndarray:
    """[seeds]: spikes of the mean losses of `log_every` batches."""
    losses = columns[row]["batch_loss"][INITS.index(init)]
    return np.array([len(find_spikes(series)) for series in losses])


class Gains(NamedTuple):
    """Accuracy beyond SGD's of the same seed, in points of percent: [seeds] by row."""

    final: dict[str, np.ndarray]
    matched: dict[str, np.ndarray]


def gains_of(config: ConfigDict, columns: Columns, init: str) -> Gains:
    final = {row: accuracy(columns, row, init) for row in ROWS}
    matched = {
        row: matched_accuracy(columns, row, init, config.matched_loss) for row in ROWS
    }
    return Gains(
        {row: x - final["sgd"] for row, x in final.items()},
        {row: x - matched["sgd"] for row, x in matched.items()},
    )


def norm_ratio(columns: Columns, row: str, init: str) -> np.ndarray:
    return columns[row]["norm_ratio"][INITS.index(init)]
