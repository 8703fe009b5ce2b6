"""Catapults: learning rates above the critical one.

    python -m experiments.catapults --config=configs/catapults.py:PRESET

Each preset is one study. Learning rates are given in units of η_crit, the critical one
of the loss (1/n)Σ|f − y|², which is n/‖K‖.
"""

import dataclasses

import optsde
from experiments.catapults import (
    adagrad,
    batch,
    cyclic,
    ntk,
    pulses,
    threshold,
    toy,
)
from optsde.study import Preset, presets

PRESETS = {
    "cyclic": Preset("cyclic rates: none, one or several catapults", cyclic.Settings()),
    "threshold": Preset(
        "rates around 2/λ_max: who spikes, who ends flatter", threshold.Settings()
    ),
    "batch": Preset(
        "SGD at one rate: does a smaller batch give more catapults?",
        batch.Settings(
            known_false=(
                "smaller_batch_gives_more_catapults_at_0.5",
                "smaller_batch_gives_more_catapults_at_0.9",
            )
        ),
    ),
    "ntk": Preset(
        "norm and condition number of the kernel, with the catapults as red bands",
        ntk.Settings(),
    ),
    "adagrad": Preset(
        "AdaGrad's critical rate, its bound, and what cycles do to both",
        adagrad.Settings(known_false=("critical_rate_grows_as_it_does",)),
    ),
    "features": Preset(
        "pulses above critical: does the net learn better features?",
        pulses.Settings(),
    ),
    "control": Preset(
        "the same on digits: what is the gain in accuracy, and whence?",
        pulses.Settings(
            target="digits",
            train_size=256,
            pulses=(0, 3, 8),
            base=0.9,
            ratio=1.6,
            capped=False,
            known_false=("8_pulses_raise_accuracy_from_zero",),
        ),
    ),
    "toy": Preset("f = u·v/√m on one example: the window 2 < ηλ < 4", toy.Settings()),
}
DEFAULT = "cyclic"
get_config = presets(PRESETS, DEFAULT)


# ---- studies that do not declare their settings yet

TEXTS = {
    "edge": "full-batch GD, momentum, RMSprop, Adam: sharpness rises to its threshold",
    "digits": "SGD, AdaGrad, Adam with and without catapults: the table, two inits",
    "mnist": "the same on 12,000 images of MNIST, for who has prepared it",
}


def _settings(optimizer: optsde.Optimizer) -> dict:
    name = type(optimizer).__name__.lower()
    return {"name": name, **dataclasses.asdict(optimizer)}


TABLE = dict(
    study="table",
    dataset="digits",
    images=0,  # how many of the set are used; 0: all
    train_size=1500,  # of them; the others are held out
    kernel_size=1500,  # of the training images: on these ‖K‖ is measured
    width=256,
    activation="relu",
    batch_size=32,
    steps=3000,
    ratio=0.9,  # SGD's learning rates are in units of η_crit at the start
    large_ratio=2.0,
    period=500,
    cycle_low=0.2,
    cycle_peak=1.5,
    growth=1.4,
    adagrad_lr=0.15,
    adagrad_unit=0.1,  # the unit of its cycle
    adam_lr=0.01,
    log_every=10,
    evaluate_every=50,
    matched_loss=0.1,
    bound=0.34,  # points of accuracy: one held-out digit
    seeds=48,
    seed=0,
    known_false=(),
)
SETTINGS: dict[str, dict] = {
    "edge": dict(
        study="edge",
        train_size=512,
        hidden=(48, 48),
        init=0.5,  # of He's initial weights, so that the run begins flat
        optimizers={
            "gd": _settings(optsde.SGD(lr=0.12)),
            "momentum": _settings(optsde.HeavyBall(lr=0.2, beta=0.9)),
            "rmsprop": _settings(optsde.RMSprop(lr=3e-4, beta=0.999, eps=1e-7)),
            "adam": _settings(optsde.Adam(lr=1e-3, b1=0.9, b2=0.999, eps=1e-7)),
        },
        steps=2400,
        every=20,  # steps from one measurement to the next
        lanczos=12,  # products before a restart
        bound=5.0,  # % of the threshold, over the last third
        rise=30.0,  # % of the threshold, from the first measurement on
        seeds=6,
        seed=0,
    ),
    "digits": dict(
        TABLE,
        known_false=(
            "catapults_worsen_adagrad_random",
            "catapults_worsen_adagrad_zero",
            "adam_best_random",
            "adam_best_zero",
            "no_separation_at_equal_loss_random",
            "sgd_gains_more_from_random_than_from_zero",
        ),
    ),
    "mnist": dict(
        TABLE,
        dataset="mnist",
        images=12_000,
        train_size=8000,
        evaluate_every=250,
        seeds=8,
    ),
}
