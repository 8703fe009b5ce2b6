"""Slices of the loss around trained points, and on the line between two of them.

    python -m experiments.fullbatch --config=configs/fullbatch.py:digits_sgd
    python -m experiments.landscape --config=configs/landscape.py:around \\
        --config.run=runs/fullbatch/digits_sgd-xxxxxx

A quarter of a minute on two cores.
Of a table the run is one of its rows, runs/fullbatch/digits_table-xxxxxx/rows/NAME.

Directions are random and scaled filter by filter to the norms of the weights (Li et
al., NeurIPS 2018), so that nets that differ only by the scale of their filters give the
same picture. Published slices have 51 × 51 points: --config.points=51.
"""

from ml_collections import ConfigDict

PRESETS = {
    "line": "along one random direction, 51 points",
    "around": "on the plane of two random directions, 25 × 25 points",
    "between": "on the line from one trained point to another, and its barrier",
}
DEFAULT = "line"


def get_config(preset: str = DEFAULT) -> ConfigDict:
    config = ConfigDict()
    config.run = ""  # a run directory of experiments.fullbatch, or a table's rows/NAME
    config.step = 0  # of the checkpoint; 0: the newest
    config.replica = 0  # which of the run's seeds
    config.points = 25 if preset == "around" else 51  # on each axis
    if preset == "between":
        config.other = ""  # the run at the other end; none: another replica of `run`
        config.other_replica = 0
    elif preset in PRESETS:
        config.directions = {"line": 1, "around": 2}[preset]
        config.radius = 1.0  # in units of the filters' norms
        config.seed = 0  # of the directions
    else:
        raise KeyError(preset)
    return config.lock()
