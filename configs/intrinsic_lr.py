"""The intrinsic learning rate λ_e = lr·decay of normalized nets.

    python -m experiments.intrinsic_lr --config=configs/intrinsic_lr.py:PRESET

Settings and bounds come from earlier runs on digits (Li, Lyu and Arora 2020 used
CIFAR-10): images shifted by up to a pixel, without which a small net fits them all and
nothing is stationary, and GELU, since at a high λ_e units of a ReLU net die for good.

cifar10_…    on CIFAR-10 as published, if it is prepared: a scale-invariant ResNet-32,
             batch 128, crops and mirroring, lr .8 with decay 5e-4. Lengths are ours, so
             that runs come to 1/λ_e and beyond; rotation's AdamW has the λ_e of SGD
"""

from experiments.intrinsic_lr import (
    decay,
    early,
    equilibrium,
    full_batch,
    mixing,
    momentum,
    only_the_last,
    rotation,
    same_product,
    sphere,
    swa,
)
from optsde.models import SCALE_INVARIANT
from optsde.study import Preset, presets

CIFAR10 = dict(
    dataset="cifar10",
    judged=2000,
    statistics=2000,
    augment="live",
    model="resnet32",
    options=dict(SCALE_INVARIANT),
    batch_size=128,
    centred=False,
)

PRESETS = {
    "sphere": Preset(
        "known noise on a sphere: run, SDE and closed forms", sphere.Settings()
    ),
    "equilibrium": Preset(
        "effective lr against the prediction from the noise on the sphere",
        equilibrium.Settings(),
    ),
    "same_product": Preset(
        "equal lr·decay: equal effective lr and loss, whatever else",
        same_product.Settings(
            lrs=(0.1, 0.4, 0.4, 0.025, 0.1, 0.1, 0.1, 1.0, 0.1),
            decays=(0.03, 0.0075, 0.0075, 0.12, 0.03, 0.03, 0.01, 0.001, 0.1),
            scales=(1.0, 2.0, 1.0, 1.0, 4.0, 0.25, 1.0, 1.0, 1.0),
            known_false=(
                "other_product_0.001_differs_7",
                "other_product_0.001_differs_8",
            ),
        ),
    ),
    "decay": Preset(
        "a drop of lr: the loss falls, then rises again as the norm follows",
        decay.Settings(),
    ),
    "only_the_last": Preset(
        "many drops of lr, or the last lr from the start",
        only_the_last.Settings(
            known_false=("one_drop_same_effective_lr", "two_drops_same_effective_lr")
        ),
    ),
    "early": Preset(
        "a small lr alone, or a hundred times as large first: same error, how soon",
        early.Settings(),
    ),
    "hundredth": Preset(
        "a hundredth of the lr at the same lr·decay: the same loss and error",
        same_product.Settings(
            lrs=(0.1, 0.001, 0.001),
            decays=(0.03, 3.0, 1.0),
            scales=(1.0, 1.0, 1.0),
            apart=50.0,
        ),
    ),
    "swa": Preset(
        "averages of weights and of predictions: what has mixed at equilibrium",
        swa.Settings(),
    ),
    "mixing": Preset(
        "two starts: when, and whether, their functions come to one distribution",
        mixing.Settings(
            seed=1,  # what is claimed was settled on runs of seed 0
            known_false=(
                "functions_forgets_in_time_1_over_intrinsic_lr",
                "functions_halves_in_time_1_over_intrinsic_lr",
            ),
        ),
    ),
    "full_batch": Preset(
        "gradient descent with weight decay: no flow, but spikes",
        full_batch.Settings(),
    ),
    "momentum": Preset("the heavy ball: λ_e = lr·l2/(1−β)", momentum.Settings()),
    "rotation": Preset(
        "angles of a step: SGD, heavy ball and AdamW against their closed forms",
        rotation.Settings(
            seed=1,  # turn_every and known_false, but for 7's, were settled on seed 0
            known_false=(
                "adamw_3_layer_1_turns_as_foreseen",
                "adamw_4_layer_1_turns_as_foreseen",
                "adamw_5_layer_1_turns_as_foreseen",
                "adamw_7_layer_1_turns_as_foreseen",
            ),
        ),
    ),
    "batchnorm": Preset(
        "equilibrium for a net with BatchNorm, whose channels are invariant",
        equilibrium.Settings(options=dict(hidden=(64, 64), norm="batch")),
    ),
    "conv": Preset(
        "equilibrium for a small convolutional net with BatchNorm",
        equilibrium.Settings(
            lrs=(0.5, 0.5),
            decays=(6e-4, 2e-3),
            model="digitsnet",
            options=dict(activation="gelu", **SCALE_INVARIANT),
            seeds=6,
        ),
    ),
    "cifar10_resnet_bn": Preset(
        "equilibrium for a ResNet on CIFAR-10, if it is prepared",
        equilibrium.Settings(
            lrs=(0.8,),
            decays=(5e-4,),
            bound=5.0,
            steps=60_000,
            every=1000,
            weigh_every=100,
            seeds=2,
            **CIFAR10,
        ),
    ),
    "cifar10_early": Preset(
        "lr .08 alone, or .8 first: same error, how soon",
        early.Settings(
            lr=0.08,
            large_lr=0.8,
            decay=5e-4,
            drop_at=10_000,
            scales=(1.0,),
            steps=150_000,  # six times 1/λ_e at the end
            every=1000,
            seeds=2,
            **CIFAR10,
        ),
    ),
    "cifar10_hundredth": Preset(
        "a hundredth of lr .8 at the same lr·decay",
        same_product.Settings(
            lrs=(0.8, 0.008, 0.008),
            decays=(5e-4, 0.05, 0.0125),
            steps=40_000,
            every=1000,
            seeds=2,
            **CIFAR10,
        ),
    ),
    "cifar10_mixing": Preset(
        "two starts of a ResNet: when their functions come to one distribution",
        mixing.Settings(
            intrinsic=(4e-4, 1.2e-3, 4e-3),
            ratio=1600.0,
            images=1000,
            seeds=6,
            **CIFAR10,
        ),
    ),
    "cifar10_rotation": Preset(
        "angles of a step of each layer of a ResNet",
        rotation.Settings(
            families=("sgd", "heavy_ball", "adamw", "adamw"),
            lrs=(0.8, 0.1, 0.008, 0.032),
            decays=(5e-4, 5e-4, 0.05, 0.0125),
            betas=(0.0, 0.9, 0.9, 0.9),
            scales=(1.0,) * 4,
            steps=40_000,
            every=1000,
            turn_every=100,
            seeds=2,
            **CIFAR10,
        ),
    ),
}
DEFAULT = "equilibrium"
get_config = presets(PRESETS, DEFAULT)
