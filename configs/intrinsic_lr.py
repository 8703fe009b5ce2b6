"""The intrinsic learning rate λ_e = lr·decay of normalized nets.

    python -m experiments.intrinsic_lr --config=configs/intrinsic_lr.py:PRESET

Each preset names the module that runs it. Settings and bounds come from earlier runs on
digits (Li, Lyu and Arora 2020 used CIFAR-10): images shifted by up to a pixel, without
which a small net fits them all and nothing is stationary, and GELU, since at a high λ_e
units of a ReLU net die for good.
"""

from ml_collections import ConfigDict

from optsde.models import SCALE_INVARIANT

PRESETS = {
    "sphere": "known noise on a sphere: run, SDE and closed forms",
    "equilibrium": "effective lr against the prediction from the noise on the sphere",
    "same_product": "equal lr·decay: equal effective lr and loss, whatever else",
    "decay": "a drop of lr: the loss falls, then rises again as the norm follows",
    "only_the_last": "many drops of lr, or the last lr from the start",
    "swa": "averages of weights and of predictions: what has mixed at equilibrium",
    "full_batch": "gradient descent with weight decay: no flow, but spikes",
    "momentum": "the heavy ball: λ_e = lr·l2/(1−β)",
    "batchnorm": "equilibrium for a net with BatchNorm, whose channels are invariant",
    "conv": "equilibrium for a small convolutional net with BatchNorm",
    "cifar10_resnet_bn": "equilibrium for a ResNet on CIFAR-10, if it is prepared",
}
DEFAULT = "equilibrium"

DIGITS = dict(
    dataset="digits",
    train_size=0,  # 0: all
    test_size=0,
    subset=0,
    judged=1500,  # training images on which losses are evaluated
    statistics=1500,  # and from which BatchNorm's are made
    centred=True,  # without the mean image
    augment="edges",  # shifts by up to a pixel; live: the set's own; none
    model="normalised_mlp",
    options=dict(hidden=(64, 64)),
    batch_size=16,
    steps=8000,
    every=100,  # steps between two looks
    seeds=12,
    seed=0,
)
AVERAGED = dict(window=0.5)  # share of the run from which on averages are taken
WEIGHED = dict(
    draws=16,  # gradients of one measurement of the noise
    weigh_every=20,  # steps between two of them
)
EQUILIBRIUM = DIGITS | AVERAGED | WEIGHED | dict(study="equilibrium", bound=2.0)
THREE = dict(lrs=(0.1, 0.1, 0.1), decays=(0.01, 0.03, 0.1))
SETTINGS: dict[str, dict] = {
    "sphere": dict(
        study="sphere",
        dimension=20,
        curvature=1.0,  # the largest; the noise has variance 1 in each direction
        lrs=(0.1, 0.1, 0.01, 0.4),
        decays=(0.1, 0.01, 0.1, 0.025),
        starts=(2.0, 0.7, 2.0, 0.7),  # ‖w‖ at the start, of that at equilibrium
        seeds=2048,
        seed=0,
        looks=40,
        length=3.0,  # of a run, in 1/λ_e
        substeps=1,  # of the SDE in a step of the run
        bound=1.0,
    ),
    "equilibrium": EQUILIBRIUM | THREE,
    "same_product": DIGITS
    | AVERAGED
    | dict(
        study="same_product",
        lrs=(0.1, 0.4, 0.4, 0.025, 0.1, 0.1, 0.1, 1.0, 0.1),
        decays=(0.03, 0.0075, 0.0075, 0.12, 0.03, 0.03, 0.01, 0.001, 0.1),
        scales=(1.0, 2.0, 1.0, 1.0, 4.0, 0.25, 1.0, 1.0, 1.0),
        lr_bound=2.0,  # percent, between arms of one product
        loss_bound=8.0,
        apart=75.0,  # percent of train loss, between products
        known_false=(
            "other_product_0.001_differs_7",
            "other_product_0.001_differs_8",
            "other_product_0.01_differs_9",
        ),
    ),
    "decay": DIGITS
    | WEIGHED
    | dict(
        study="decay",
        lr=0.1,
        decay=0.01,
        factor=0.1,
        drop_at=6000,
        steps=36_000,
        seeds=16,
    ),
    "only_the_last": DIGITS
    | dict(
        study="only_the_last",
        lr=0.1,
        middle_lr=0.3,
        large_lr=1.0,
        decay=0.01,
        first_drop=2000,
        second_drop=4000,
        steps=20_000,
        window=0.7,
        seeds=8,
        known_false=("one_drop_same_effective_lr", "two_drops_same_effective_lr"),
    ),
    "swa": DIGITS
    | dict(
        study="swa",
        lrs=(0.1, 0.1),
        decays=(0.01, 0.03),
        memories=10.0,  # length of the averages, in 1/λ_e
        steps=15_000,
        seeds=8,
    ),
    "full_batch": {k: v for k, v in DIGITS.items() if k != "batch_size"}
    | dict(
        study="full_batch",
        lr=0.1,
        decay=0.01,
        train_size=256,
        judged=256,
        statistics=256,
        augment="none",
        steps=7500,
        every=25,
        seeds=4,
    ),
    "momentum": DIGITS
    | AVERAGED
    | WEIGHED
    | dict(
        study="momentum",
        betas=(0.0, 0.9, 0.9, 0.9),
        lrs=(0.1, 0.01, 0.04, 0.1),
        l2s=(0.03, 0.03, 0.0075, 0.03),
        bound=2.0,
        lr_bound=6.0,
        loss_bound=8.0,
    ),
    "batchnorm": EQUILIBRIUM
    | THREE
    | dict(options=dict(hidden=(64, 64), norm="batch")),
    "conv": EQUILIBRIUM
    | dict(
        lrs=(0.5, 0.5),
        decays=(6e-4, 2e-3),
        model="digitsnet",
        options=dict(activation="gelu", **SCALE_INVARIANT),
        seeds=6,
    ),
    "cifar10_resnet_bn": EQUILIBRIUM
    | dict(
        lrs=(0.8,),
        decays=(5e-4,),
        bound=5.0,
        dataset="cifar10",
        judged=2000,
        statistics=2000,
        augment="live",
        model="resnet32",
        options=dict(SCALE_INVARIANT),
        batch_size=128,
        steps=60_000,
        every=1000,
        weigh_every=100,
        centred=False,
        seeds=2,
    ),
}


def get_config(preset: str = DEFAULT) -> ConfigDict:
    return ConfigDict(SETTINGS[preset]).lock()
