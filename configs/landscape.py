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

from experiments.landscape import around, between
from optsde.study import Preset, presets

PRESETS = {
    "line": Preset("along one random direction, 51 points", around.Settings()),
    "around": Preset(
        "on the plane of two random directions, 25 × 25 points",
        around.Settings(directions=2, points=25),
    ),
    "between": Preset(
        "on the line from one trained point to another, and its barrier",
        between.Settings(),
    ),
}
DEFAULT = "line"
get_config = presets(PRESETS, DEFAULT)
