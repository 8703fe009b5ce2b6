"""Gradient descent and its variants: one picture each.

    python -m experiments.descent --config=configs/descent.py:trajectories \\
        --config.function=rosenbrock

Each preset is one study and names the module that runs it. On two cores none takes
a minute.
"""

from ml_collections import ConfigDict

PRESETS = {
    "trajectories": "paths of nine methods on one function, from several points",
    "animation": "a race of some of them, as a GIF",
    "second_moment": "AdaGrad's memory grows, RMSprop's does not",
    "overshoot": "why momentum runs past the minimum, and from which β on",
    "sensitivity": "final loss over lr × β, for momentum and for Adam",
    "gd_2d": "the flow that descent follows: full batch, shuffled, drawn",
    "l2_vs_weight_decay": "held-out loss on digits over λ × lr, in the two forms",
    "schedules": "every schedule, and what it does on digits at equal budget",
}
DEFAULT = "trajectories"

METHODS = (
    "gd",
    "momentum",
    "nesterov",
    "adagrad",
    "rmsprop",
    "adam",
    "adamw",
    "signsgd",
    "lion",
)
ON_ONE_FUNCTION = dict(
    function="bowl",
    methods=METHODS,
    start=(),  # x, y of each point; none: the function's own
    steps=0,  # 0, here and below: the function's own
    lr=0.0,  # of methods that step along the gradient
    stride=0.0,  # lr of those whose steps have a length of their own
    seeds=64,  # where there is noise; the first is drawn
    seed=0,
)
RACE = dict(
    function="saddle",
    steps=60,
    methods=("gd", "momentum", "nesterov", "adagrad", "rmsprop", "adam"),
    frames=60,
    frames_per_second=12,
)
ON_DIGITS = dict(
    dataset="digits",
    model="mlp",
    options=dict(dtype="float32", hidden=(32,)),
    train_size=256,  # few, and some of them wrong, so that there is something to forget
    subset=0,
    test_size=0,
    imbalance=1.0,
    label_noise=0.2,
    augment="none",
    statistics=1,
    batch_size=32,
    steps=400,
    seeds=16,  # one half chooses the best setting, the other judges it
    seed=0,
)
SETTINGS: dict[str, dict] = {
    "trajectories": ON_ONE_FUNCTION,
    "animation": ON_ONE_FUNCTION | RACE,
    "second_moment": dict(steps=1000, beta=0.9, seeds=64, seed=0),
    "overshoot": dict(lr=0.05, betas=(0.5, 0.9), steps=200, points=100),
    "sensitivity": dict(function="ravine", steps=100, rates=40, betas=30),
    "gd_2d": dict(
        time=3.0,  # of the full batch, steps × lr
        lrs=(0.1, 0.05, 0.025, 0.0125),
        shown=0.15,  # of the paths in the picture
        epoch_lrs=(0.02, 0.01, 0.005, 0.0025),
    ),
    "l2_vs_weight_decay": ON_DIGITS
    | dict(
        optimizers=("sgd", "heavyball", "adam"),
        decays=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0),
        # Loshchilov and Hutter (2019) found it for Adam on CIFAR-10.
        known_false=("heavyball_decoupled_is_better", "adam_decoupled_is_better"),
    ),
    "schedules": ON_DIGITS
    | dict(
        seeds=32,  # and rates close together: what is compared differs by 1%
        lrs=(0.0028, 0.004, 0.0056, 0.008, 0.011, 0.016, 0.022),
        beta=0.9,
        # Not resolved in the run of docs/descent.md.
        known_false=("warm-up_beats_constant",),
    ),
}


def get_config(preset: str = DEFAULT) -> ConfigDict:
    return ConfigDict(dict(study=preset, **SETTINGS[preset])).lock()
