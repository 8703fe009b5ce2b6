"""Gradient descent and its variants: one picture each.

    python -m experiments.descent --config=configs/descent.py:trajectories \\
        --config.function=rosenbrock

Each preset is one study and names the module that runs it. On two cores none takes
a minute.
"""

from experiments.descent import (
    animation,
    full_gradient,
    gd_2d,
    l2_vs_weight_decay,
    label_noise,
    lengths,
    modified_sde,
    overshoot,
    perceptron,
    schedules,
    second_moment,
    sensitivity,
    starts,
    trajectories,
)
from optsde.optimizers import Adam
from optsde.study import Preset, presets

PRESETS = {
    "trajectories": Preset(
        "paths of nine methods on one function, from several points",
        trajectories.Settings(),
    ),
    "animation": Preset("a race of some of them, as a GIF", animation.Settings()),
    "second_moment": Preset(
        "AdaGrad's memory grows, RMSprop's does not", second_moment.Settings()
    ),
    "overshoot": Preset(
        "why momentum runs past the minimum, and from which β on", overshoot.Settings()
    ),
    "sensitivity": Preset(
        "final loss over lr × β, for momentum and for Adam", sensitivity.Settings()
    ),
    "gd_2d": Preset(
        "the flow that descent follows: full batch, shuffled, drawn", gd_2d.Settings()
    ),
    "modified_sde": Preset(
        "SGD against the SDE of f and of f + (η/4)|∇f|²: orders, and the long run",
        modified_sde.Settings(known_false=("modified_is_nearer_in_the_long_run",)),
    ),
    "label_noise": Preset(
        "the minima that SGD and Adam drift to under noise on the labels",
        label_noise.Settings(),
    ),
    "full_gradient": Preset(
        "examples to a given loss, by full gradients and by batches, exact",
        full_gradient.Settings(),
    ),
    "perceptron": Preset(
        "weight decay of a linear perceptron with noisy labels, against theory",
        perceptron.Settings(),
    ),
    "l2_vs_weight_decay": Preset(
        "held-out loss on digits over λ × lr, in the two forms",
        l2_vs_weight_decay.Settings(
            # Loshchilov and Hutter (2019) found it for Adam on CIFAR-10.
            known_false=("heavyball_decoupled_is_better", "adam_decoupled_is_better"),
        ),
    ),
    "schedules": Preset(
        "every schedule, and what it does on digits at equal budget",
        schedules.Settings(
            # Not resolved in the run of docs/descent.md.
            known_false=("warm-up_beats_constant",),
        ),
    ),
    "lengths": Preset(
        "cosines longer than the run, once through the digits",
        lengths.Settings(),
    ),
    "lengths_text": Preset(
        "cosines longer than the run, once through some text, a small transformer",
        lengths.Settings(
            dataset="text",
            model="transformer",
            options=dict(dtype="float32", depth=1, width=16, heads=2, length=32),
            optimizer=Adam(lr=0.008),
            factors=(1.0, 2.0),
            train_size=2048,
            test_size=256,
            batch_size=8,
            steps=256,
            seeds=12,
            # So short a run gains by a rate that stays up, see docs/descent.md.
            known_false=("1.5_is_worse", "2_is_worse"),
        ),
    ),
    "starts": Preset(
        "spread of the losses at the end over starts, as a net on digits gets wider",
        starts.Settings(),
    ),
}
DEFAULT = "trajectories"
get_config = presets(PRESETS, DEFAULT)
