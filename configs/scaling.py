"""Does the scaling rule hold here?

    python -m experiments.scaling --config=configs/scaling.py:digits
    python -m experiments.scaling --config=configs/scaling.py:lm --dry_run

Published runs, as far as their settings are known (the learning rates for Adam and
RMSprop are not; those here are common ones):

    cifar10_resnet56_adam    Malladi et al. 2022: 500 epochs, batch 256 to 8192, L2
    cifar10_vgg16_rmsprop    1e-4, exponential warm-up of 10 epochs from lr/1000, lr
                             × .1 after 300 (and 400 for RMSprop) epochs, last layer
                             fixed; test accuracy at most 3 points apart
    cifar10_preresnet32_sgd  Li, Malladi and Arora 2021: scale-invariant net, lr .8 at
                             batch 128, 300 epochs, decay at 250; breaks at 1,350
    wikitext_gpt             Malladi et al. 2022: batch 512 to 8192, and 256 to 8192 for
    bert_masked              the masked one; perplexities at most .5 apart. Here on the
                             bytes of TFDS's wiki40b/en
    half_life_wiki           Marek et al. 2025: 600M tokens, a net of 30M parameters,
                             batch 1 to 4096; there on FineWeb-Edu. b2 is .95 at batch
                             512, which is common and not theirs

What is known to be false did not hold, or was not resolved, in the runs that
docs/scaling.md reports.
"""

import dataclasses
from typing import Any

from experiments.scaling import classes, families, half_life, optimum, rows
from experiments.scaling.rule import SIGNAL, WAYS_OUT, Settings
from experiments.schedule import ScheduleSettings
from optsde.models import SCALE_INVARIANT
from optsde.optimizers import (
    LAMB,
    MARS,
    SGD,
    Adafactor,
    AdaGrad,
    Adam,
    AdamMini,
    AdEMAMix,
    CentredAdam,
    InvariantAdam,
    Lion,
    Momentum,
    Muon,
    Optimizer,
    RMSprop,
    ScheduleFreeAdam,
    ScheduleFreeSGD,
    SignSGD,
    Signum,
)
from optsde.study import Preset, presets

# ---- digits

ADAM = dict(lr=1.4e-3, b1=0.998, b2=0.998)
NOISY = dict(label_noise=0.3)
ALL_WAYS = dict(
    rules=("rule", *WAYS_OUT, "linear", "sqrt_lr_only", "fixed"),
    probe_seeds=16,  # for the boost of the signal rule
    draws=256,
)
PLAIN = dict(rules=("rule", "sqrt_lr_only", "fixed"))  # the rule is the linear one
HEAVY = dict(alpha=1.2, tail_size=0.1, seeds=32, kappas=(8, 64), ells=(2,))
HEAVY |= dict(rules=("rule", "sqrt_lr_only"))  # stable numbers take time to draw
NORMALISED = dict(
    model="digitsnet",
    options=dict(dtype="float32", activation="gelu", **SCALE_INVARIANT),
    augment="live",
    group=8,
    batch_size=8,
    horizon=5120.0,
    rules=("rule", "fixed"),
    ells=(),
    seeds=8,
    probe_seeds=8,
)

# ---- data of one's own, of any size

ANY_SIZE = dict(train_size=0, horizon=2560.0, kappas=(2, 4, 8, 16), seeds=16, ells=(2,))

# ---- text

LM = Adam(lr=7e-4, b1=0.975, b2=0.995, weight_decay=0.1)
SMALL_NET = dict(dtype="float32", depth=1, width=64, heads=2, length=32)
SMALL = dict(
    dataset="text",
    model="transformer",
    train_size=45_000,
    test_size=256,
    horizon=3072.0,
    schedule=dict(warmup=160.0),
    controls_until=8.0,
    ells=(2,),
    seeds=6,
    probe_seeds=6,
    draws=128,
)
GPT_ADAM = Adam(lr=6e-4, b1=0.975, b2=0.995, weight_decay=0.1)
GPT = dict(dtype="bfloat16", depth=12, width=768, heads=12, length=128)
LARGE = dict(
    dataset="wiki40b/en",
    model="transformer",
    test_size=4096,
    group=32,
    probe_seeds=1,
    probe_until=0.25,
    draws=64,
    horizon=20_480.0,
    schedule=dict(warmup=1024.0),
    controls_until=4.0,
    seeds=3,
    bound=1.5,
)
MASKED = dict(augment="masked")

ROW_KAPPAS = (4, 8, 16, 32)

# ---- each family of optimizers: its lr on digits and on text, by a pilot of the base
# run alone (docs/scaling.md); a new family is a line

SHORT = dict(b1=0.95, b2=0.995)
FAMILIES: dict[str, tuple[Optimizer, float, float]] = {
    "adagrad": (AdaGrad(s0=1e-3), 0.04, 0.04),
    "adam": (Adam(**SHORT), 1e-3, 1e-3),
    "ademamix": (AdEMAMix(**SHORT, b3=0.995, alpha=2.0), 5e-4, 5e-4),
    "centredadam": (CentredAdam(**SHORT), 1e-3, 1e-3),
    "invariantadam": (InvariantAdam(**SHORT), 1e-3, 1e-3),
    "lamb": (LAMB(**SHORT), 1e-3, 2e-3),
    "lion": (Lion(b1=0.9, b2=0.98), 2.5e-4, 2.5e-4),
    "momentum": (Momentum(beta=0.95), 0.0125, 0.1),
    "muon": (Muon(beta=0.95), 2e-3, 2e-3),
    "rmsprop": (RMSprop(beta=0.995), 1e-3, 1e-3),
    "schedulefreeadam": (ScheduleFreeAdam(beta=0.9, b2=0.995), 4e-3, 0.016),
    "schedulefreesgd": (ScheduleFreeSGD(beta=0.9), 0.1, 1.6),
    "sgd": (SGD(), 0.025, 0.1),
    "signsgd": (SignSGD(), 2e-3, 1e-3),
    "signum": (Signum(beta=0.95), 2.5e-4, 2.5e-4),
}


# those whose v is of rows or blocks, or of gradients that lean ahead
OTHER_V: dict[str, tuple[Optimizer, float, float]] = {
    "adafactor": (Adafactor(), 5e-3, 1e-2),
    "adammini": (AdamMini(**SHORT), 1e-3, 1e-3),
    "mars": (MARS(**SHORT), 2e-3, 1e-3),
}


def of_families(text: bool, families=FAMILIES) -> dict[str, Optimizer]:
    """Returns the optimizer of each family with its lr on digits, or on text."""
    return {
        name: dataclasses.replace(optimizer, lr=lrs[text])
        for name, (optimizer, *lrs) in families.items()
    }


ON_TEXT: Any = dict(
    dataset="text",
    model="transformer",
    options=dict(dtype="float32", depth=1, width=32, heads=2, length=16),
    train_size=45_000,
    test_size=256,
    schedule=ScheduleSettings(warmup=128.0),
    bound=2.0,
    seeds=8,
)


def not_shown(**families: str) -> tuple[str, ...]:
    """Returns names of claims, from what they say to the families of which it is."""
    return tuple(
        f"{name}_{says}" for says, names in families.items() for name in names.split()
    )


# ---- CIFAR-10

EPOCH = 50_000 / 256
CIFAR10 = dict(dataset="cifar10", augment="live", group=128, evaluations=20, seeds=3)
CIFAR10 |= dict(probe_seeds=1, probe_until=0.1, draws=64, svag_until=0.05)
ADAPTIVE = dict(
    batch_size=256,
    horizon=97_280.0,  # 498 epochs, a multiple of every κ
    kappas=(2, 4, 8, 16, 32),
    ells=(2, 4, 8),
    options=dict(dtype="float32", fixed_head=True),
)
WARM = dict(warmup=10 * EPOCH, exponential=True)


def preset(text: str, optimizer, *changes: dict, **more) -> Preset:
    """Returns the preset that differs from the defaults in these, the last counting."""
    settings = {name: value for each in changes for name, value in each.items()}
    return Preset(text, Settings(optimizer=optimizer, **(settings | more)))


PRESETS = {
    "digits": preset(
        "Adam on digits, with 30% of the labels random", Adam(**ADAM), NOISY, ALL_WAYS
    ),
    "digits_rmsprop": preset(
        "RMSprop",
        RMSprop(lr=1.4e-3, beta=0.998),
        NOISY,
        known_false=("nearer_than_sqrt_lr_only_at_2", "nearer_than_sqrt_lr_only_at_8"),
    ),
    "digits_adamw": preset(
        "AdamW",
        Adam(**ADAM, weight_decay=0.5),
        NOISY,
        known_false=("foreseen_at_32", "foreseen_at_64"),
    ),
    "digits_sgd": preset(
        "SGD, whose rule is linear",
        SGD(lr=0.01),
        NOISY,
        PLAIN,
        known_false=("foreseen_at_64",),
    ),
    "digits_momentum": preset(
        "SGD with momentum, 1 − β scaled with κ", Momentum(lr=0.01, beta=0.995), NOISY
    ),
    "digits_adagrad": preset(
        "AdaGrad, whose lr does not follow the batch",
        AdaGrad(lr=2e-2, s0=1e-3),
        NOISY,
        known_false=(
            "nearer_than_fixed_at_2",
            "nearer_than_fixed_at_4",
            "foreseen_at_64",
        ),
    ),
    "digits_clean": preset(
        "Adam where the noise dies out, with the true labels",
        Adam(**ADAM),
        seeds=192,  # of so small a loss
        probe_seeds=48,
        ells=(2,),
        known_false=tuple(f"foreseen_at_{kappa}" for kappa in (8, 16, 32, 64)),
    ),
    "digits_signal": preset(
        "Adam at a large batch, where the signal rules",
        Adam(lr=8e-3, b1=0.9, b2=0.99),
        ALL_WAYS,
        horizon=320.0,
        batch_size=64,
        kappas=(2, 4, 8),
        evaluations=4,
        probe_seeds=64,
        known_false=(
            "svag2_matches_base",
            "svag4_matches_base",
            "rule_holds_at_2",
            "nearer_than_linear_at_2",
            "nearer_than_linear_at_4",
            "nearer_than_sqrt_lr_only_at_2",
            "nearer_than_sqrt_lr_only_at_4",
            "nearer_than_sqrt_lr_only_at_8",
            "foreseen_at_2",
            "foreseen_at_4",
            "foreseen_at_8",
            *(f"{rule}_holds_at_{k}" for rule in SIGNAL for k in (2, 4, 8)),
            *(f"invariant_holds_at_{kappa}" for kappa in (4, 8)),
        ),
    ),
    "digits_descent": preset(
        "Adam on its first descent, with the true labels",
        Adam(lr=2e-4, b1=0.98, b2=0.995),
        ALL_WAYS,
        horizon=3200.0,
        evaluations=5,
        svag_until=0.2,
        seeds=32,
        known_false=(
            *(f"rule_holds_at_{kappa}" for kappa in (4, 8, 16, 32, 64)),
            *(f"signal_holds_at_{kappa}" for kappa in (32, 64)),
            *(f"signal_by_leaf_holds_at_{kappa}" for kappa in (32, 64)),
            *(f"foreseen_at_{kappa}" for kappa in (32, 64)),
            "svag4_matches_base",
        ),
    ),
    "digits_descent_centred": preset(
        "the same with v centred, in which the mean gradient has no share",
        CentredAdam(lr=2e-4, b1=0.98, b2=0.995),
        horizon=3200.0,
        evaluations=5,
        svag_until=0.2,
        seeds=32,
        rules=("rule",),
        ells=(2,),
        probe_seeds=8,
        draws=128,
        known_false=("foreseen_at_64",),
    ),
    "digits_imbalanced": preset(
        "Adam where the rarest class has 2% of the commonest's images",
        Adam(**ADAM),
        NOISY,
        imbalance=0.02,
        known_false=("nearer_than_linear_at_2",),
    ),
    "rare_classes": Preset(
        "rare and common classes, under oversampling, weights and a larger batch",
        classes.Settings(
            known_false=(
                *("none_rare_hold_at_32", "none_common_hold_at_32"),
                *("oversampled_rare_hold_at_32", "oversampled_common_hold_at_8"),
                *("oversampled_common_hold_at_32", "weighted_rare_hold_at_32"),
                *("weighted_common_hold_at_32", "larger_common_hold_at_8"),
                *("larger_common_hold_at_32", "rare_further_off_than_common_at_32"),
                "larger_batch_rare_further_off_at_32",
            )
        ),
    ),
    "rare_rows": Preset(
        "rows of frequent and of rare tokens, in a transformer's untied embedding",
        rows.Settings(
            known_false=(
                *(f"{name}_loss_holds_at_32" for name in rows.GROUPS),
                *(
                    f"{n}_moved_holds_at_{k}"
                    for n in rows.GROUPS[:2]
                    for k in ROW_KAPPAS
                ),
                "rare_moved_holds_at_32",
                "rare_loss_further_off_at_32",
                *(f"rare_moved_further_off_at_{kappa}" for kappa in ROW_KAPPAS),
            )
        ),
    ),
    "digits_heavy_tails": preset(
        "Adam with stable noise (--config.alpha) on every gradient",
        Adam(**ADAM),
        NOISY,
        HEAVY,
        known_false=("svag2_matches_base",),
    ),
    "digits_normalised": preset(
        "SGD with weight decay on a scale-invariant net",
        SGD(lr=0.1, l2=0.01),
        NORMALISED,
    ),
    "images": preset(
        "Adam, a convolutional net; your images by --config.dataset=FOLDER",
        Adam(**ADAM),
        ANY_SIZE,
        model="smallconv",
        options=dict(width=16),
    ),
    "words": preset(
        "AdamW, a causal transformer; your text by --config.dataset=FILE",
        LM,
        SMALL,
        ANY_SIZE,
        options=SMALL_NET,
    ),
    "lm": preset(
        "AdamW, a causal transformer on the standard library's text",
        LM,
        SMALL,
        ALL_WAYS,
        options=SMALL_NET,
        kappas=(2, 4, 8, 16, 32),
        bound=1.5,
        known_false=(
            "svag2_matches_base",
            *(f"foreseen_at_{kappa}" for kappa in (2, 4, 8, 16, 32)),
            *(f"{way}_holds_at_{kappa}" for way in WAYS_OUT for kappa in (8, 16, 32)),
        ),
    ),
    "lm_masked": preset(
        "AdamW, a masked transformer on the same",
        LM,
        SMALL,
        MASKED,
        options=SMALL_NET | dict(causal=False),
        kappas=(4, 8, 16, 32),
        bound=4.0,  # a seventh of the tokens to judge by
    ),
    "half_life": Preset(
        "Adam on text, batch 1 to 128: memories in tokens, for the curve or the loss",
        half_life.Settings(
            known_false=(
                *(f"both_keeps_the_curve_at_{kappa}" for kappa in (32, 64, 128)),
                *(f"v_keeps_the_curve_at_{kappa}" for kappa in (16, 32, 64, 128)),
                *(f"neither_keeps_the_curve_at_{k}" for k in (8, 16, 32, 64, 128)),
                "rule_nearer_than_v_alone_at_32",
                *(f"v_alone_ends_below_both_at_{kappa}" for kappa in (8, 128)),
            )
        ),
    ),
    "families": Preset(
        "each family of optimizers: the rule, lr·√κ and lr·κ",
        families.Settings(
            optimizers=of_families(text=False),
            **NOISY,
            bound=3.0,
            seeds=64,
            known_false=not_shown(
                rule_holds_at_16=(
                    "adagrad adam lion rmsprop schedulefreesgd sgd signsgd"
                ),
                rule_holds_at_4="signsgd",
                nearer_than_linear_at_16="adam lion rmsprop schedulefreeadam",
                nearer_than_linear_at_4="lion",
                nearer_than_root_at_16="schedulefreesgd",
            ),
        ),
    ),
    "families_text": Preset(
        "the same of a causal transformer on the standard library's text",
        families.Settings(
            optimizers=of_families(text=True),
            **ON_TEXT,
            known_false=not_shown(
                rule_holds_at_4=(
                    "adagrad ademamix rmsprop schedulefreeadam schedulefreesgd sgd "
                    "signsgd"
                ),
                rule_holds_at_16=(
                    "adagrad adam ademamix centredadam invariantadam lamb lion "
                    "momentum muon rmsprop schedulefreeadam schedulefreesgd sgd "
                    "signsgd signum"
                ),
                nearer_than_root_at_4="adagrad schedulefreesgd sgd",
                nearer_than_linear_at_4=(
                    "adagrad adam ademamix lion rmsprop schedulefreeadam signsgd"
                ),
                nearer_than_root_at_16="adagrad momentum",
                nearer_than_linear_at_16=(
                    "adam ademamix centredadam lion rmsprop signsgd"
                ),
            ),
        ),
    ),
    "families_other_v": Preset(
        "the same on digits of those that keep another v",
        families.Settings(
            optimizers=of_families(text=False, families=OTHER_V),
            **NOISY,
            bound=3.0,
            seeds=64,
        ),
    ),
    "families_other_v_text": Preset(
        "the same on text",
        families.Settings(
            optimizers=of_families(text=True, families=OTHER_V),
            **ON_TEXT,
            known_false=not_shown(
                rule_holds_at_16="adafactor adammini mars",
                nearer_than_linear_at_4="adafactor adammini mars",
                nearer_than_linear_at_16="adafactor mars",
            ),
        ),
    ),
    "half_life_wiki": Preset(
        "the same from batch 1 to 512, a transformer of 25M parameters",
        half_life.Settings(
            optimizer=Adam(lr=3e-4, b1=0.9, b2=0.9999),
            dataset="wiki40b/en",
            options=dict(dtype="bfloat16", depth=8, width=512, heads=8, length=512),
            train_size=0,
            test_size=4096,
            horizon=1_171_456.0,
            warmup=58_368.0,
            kappas=(8, 64, 512),
            seeds=3,
        ),
    ),
    "optimum_adam": Preset(
        "Adam on text: at κ, which run equals the base run, and which is the best?",
        optimum.Settings(
            known_false=(
                *(f"rule_keeps_the_curve_at_{kappa}" for kappa in (16, 64)),
                *(f"best_loss_is_kept_at_{kappa}" for kappa in (16, 64)),
                "best_lr_falls_at_last",
            )
        ),
    ),
    "optimum_muon": Preset(
        "the same of Muon, with Adam for embeddings and vectors",
        optimum.Settings(
            optimizer=Muon(lr=1e-2, beta=0.8),
            matrices=True,
            known_false=(
                "rule_keeps_the_curve_at_64",
                "best_loss_is_kept_at_64",
                "best_lr_falls_at_last",
            ),
        ),
    ),
    "optimum_lion": Preset(
        "the same of Lion",
        optimum.Settings(
            optimizer=Lion(lr=1e-3, b1=0.5, b2=0.9),
            known_false=(
                *(f"rule_keeps_the_curve_at_{kappa}" for kappa in (16, 64)),
                *(f"best_loss_is_kept_at_{kappa}" for kappa in (16, 64)),
            ),
        ),
    ),
    "optimum_sgd": Preset(
        "the same of SGD with momentum",
        optimum.Settings(
            optimizer=Momentum(lr=0.2, beta=0.65),
            factors=tuple(2.0**n for n in range(-7, 3)),
            known_false=(
                *(f"rule_keeps_the_curve_at_{kappa}" for kappa in (4, 16, 64)),
                *(f"rule_is_the_best_at_{kappa}" for kappa in (4, 16, 64)),
                *(f"best_loss_is_kept_at_{kappa}" for kappa in (16, 64)),
                *(f"samples_end_below_steps_at_{kappa}" for kappa in (4, 16, 64)),
                "best_lr_grows_as_the_rule",
                "best_lr_falls_at_last",
            ),
        ),
    ),
    "cifar10_resnet56_adam": preset(
        "Adam, as published",
        Adam(lr=1e-3, b2=0.999, l2=1e-4),
        CIFAR10,
        ADAPTIVE,
        model="resnet56",
        schedule=WARM | dict(milestones=(300 * EPOCH,)),
    ),
    "cifar10_vgg16_rmsprop": preset(
        "RMSprop, as published",
        RMSprop(lr=1e-3, beta=0.999, l2=1e-4),
        CIFAR10,
        ADAPTIVE,
        model="vgg16",
        schedule=WARM | dict(milestones=(300 * EPOCH, 400 * EPOCH)),
    ),
    "cifar10_preresnet32_sgd": preset(
        "SGD, as published",
        SGD(lr=0.8, l2=5e-4),
        CIFAR10,
        PLAIN,
        model="preresnet32",
        options=dict(dtype="float32", **SCALE_INVARIANT),
        batch_size=128,
        horizon=117_120.0,  # 300 epochs
        schedule=dict(milestones=(250 * 2 * EPOCH,)),
        kappas=(2, 4, 8, 16),
    ),
    "wikitext_gpt": preset(
        "AdamW, a causal transformer of GPT-2's size",
        GPT_ADAM,
        LARGE,
        options=GPT,
        batch_size=512,
        kappas=(2, 4, 8, 16),
    ),
    "bert_masked": preset(
        "AdamW, a masked transformer of BERT's size",
        GPT_ADAM,
        LARGE,
        MASKED,
        options=GPT | dict(causal=False),
        batch_size=256,
        kappas=(2, 4, 8, 16, 32),
    ),
}
DEFAULT = "digits"
get_config = presets(PRESETS, DEFAULT)
