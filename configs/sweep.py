"""Sweeps: a grid over settings of an optimizer, its points and seeds as one ensemble.

    python -m experiments.sweep --config.over.lr=3e-4,1e-3,3e-3 --config.over.b2=.9,.99

A preset of your own is a name and what differs, or a file with task(config).
"""

from experiments.sweep import grid, timescale
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
NOISY = dict(seed=1, label_noise=0.3)  # timescale's settings are from runs of seed 0
NORMALISED = dict(model="normalised_mlp", cosine=False, batch_size=4, epochs=32)

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
    "timescale": Preset(
        "AdamW: the best weight decay for an eighth of the examples to all",
        timescale.Settings(**NOISY),
    ),
    "timescale_lr": Preset(
        "AdamW: the best weight decay at four learning rates",
        timescale.Settings(
            lrs=(0.0025, 0.005, 0.01, 0.02),
            sizes=(640,) * 4,
            timescales=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0),
            known_false=(
                "best_decay_falls_as_1_over_lr_times_examples",
                "first_timescale_is_as_good_as_the_best",
                "first_decay_is_worse_than_first_timescale",
            ),
            **NOISY,
        ),
    ),
    "timescale_normalised": Preset(
        "the first for a net that sees directions alone, at constant lr",
        timescale.Settings(**NORMALISED, **NOISY),
    ),
    "timescale_normalised_lr": Preset(
        "the second for that net",
        timescale.Settings(
            lrs=(0.0025, 0.005, 0.01, 0.02), sizes=(640,) * 4, **NORMALISED, **NOISY
        ),
    ),
}
DEFAULT = "adam"
get_config = presets(PRESETS, DEFAULT)
