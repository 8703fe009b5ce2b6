"""Sweeps: a grid over settings of an optimizer, its points and seeds as one ensemble.

    python -m experiments.sweep --config.over.lr=3e-4,1e-3,3e-3 --config.over.b2=.9,.99

A preset of your own is a name and what differs, or a file with task(config).
"""

from experiments.sweep import grid
from optsde import Adam, HeavyBall
from optsde.study import Preset, presets

DECAY = dict(
    optimizer=HeavyBall(lr=0.01, beta=0.9),
    over={"l2": (0.0, 0.001, 0.003, 0.01, 0.03, 0.1), "lr": (0.005, 0.01, 0.02)},
    train_size=256,
    options={"hidden": (32,), "dtype": "float32"},
    batch_size=32,
    steps=1200,
)

PRESETS = {
    "adam": Preset(
        "Adam's lr and b2, on digits",
        grid.Settings(
            over={"lr": (3e-4, 1e-3, 3e-3, 1e-2), "b2": (0.9, 0.99, 0.999)},
        ),
    ),
    "adamw": Preset(
        "AdamW's lr and weight decay",
        grid.Settings(
            optimizer=Adam(lr=1e-3, weight_decay=0.1),
            over={"lr": (1e-3, 3e-3, 1e-2), "weight_decay": (0.0, 0.1, 1.0)},
        ),
    ),
    "momentum": Preset(
        "lr at three batch sizes and equal samples, for the heavy ball",
        grid.Settings(
            optimizer=HeavyBall(lr=0.01, beta=0.9),
            batch_size=128,
            steps=150,  # of batch 128, and 2400 of batch 8
            over={"lr": (0.003, 0.01, 0.03, 0.1), "batch_size": (8, 32, 128)},
        ),
    ),
    "decay": Preset(
        "L2 and lr of the heavy ball, on few digits of which a fifth is labelled wrong",
        grid.Settings(**DECAY, label_noise=0.2),
    ),
    "decay_clean": Preset(
        "the same on right labels",
        grid.Settings(**DECAY),
    ),
}
DEFAULT = "adam"
get_config = presets(PRESETS, DEFAULT)
