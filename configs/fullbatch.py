"""Stochastic training is not necessary for generalization (Geiping et al., ICLR 2022).

    python -m experiments.fullbatch --config=configs/fullbatch.py:digits_table
    python -m experiments.fullbatch --config=configs/fullbatch.py:fb_strong --dry_run

Full-batch gradient descent on CIFAR-10 can be as good as SGD, with the right clipping,
learning rate and penalty. Published validation accuracy of ResNet-18, with crops and
flips:

    sgd             95.70 ± .11        fb              75.42 ± .13
    fb_longer       87.36 ± 1.23       fb_clipped      93.85 ± .10
    fb_regularized  95.36 ± .07        fb_strong       95.67 ± .08
    fb_practice     95.91 ± .14

and with the same settings, in the same order,

    --config.model=resnet50      95.83  54.32  83.31  94.15  95.51  96.05  96.56
    --config.model=resnet152     95.98  58.62  91.02  91.41  95.82  96.01  96.76
    --config.model=densenet121   95.84  76.87  82.06  93.44  95.47  95.81  95.86
    --config.augment=none        sgd 84.32 ± 1.12 (tuned 90.07 ± .48),
                                 fb_strong 89.17 ± .24
    --config.augment=frozen      sgd 95.20 ± .09, fb 88.44, fb_strong 95.11 (10 copies)

The published numbers were made with an average of total weight .633 over the blocks
(`--config.running_mean`); the exact mean is the default here. The digits rows are the
same recipes with a tenth of the steps and four times the lr, on 256 images; those of
text with half the published lr, on 256 windows of 32 bytes. The rows `images_` and
`words_` are these on all of any data: --config.dataset=PATH.

`digits_plain` and `digits_frozen` are the last two of these lines on digits, and
`digits_replication` has what a public replication found on MNIST and Fashion-MNIST with
a net of two convolutions and two linear layers: the full batch, one step an epoch,
needs 20 and 60 times the epochs of SGD, a tuned clip gains half a point and the penalty
nothing. `cifar10_plain`, `cifar10_frozen`, `mnist_replication` and
`fashion_mnist_replication` make the same claims of the published data; lr and clip of
the last two are those of digits.

`digits_stabilisers` has warm-up and clip each alone. `batches` counts steps to a loss
at each batch from 1 to all (Shallue et al., JMLR 2019), and `batches_sharpness` has the
curvature there (Keskar et al., ICLR 2017). `gd_convex` is no net but a convex
function (Amir, Carmon, Koren and Livni, NeurIPS 2021).

`growth_imagenet` and `growth_lm_1b` run nothing: they price steps on 8 to 4,096
accelerators, by default such as an H100 with a wire of 400 Gbit/s.
"""

from typing import Any

from experiments.fullbatch import (
    batches,
    convex,
    growth,
    orders,
    recipe,
    row,
    sharpness,
    table,
)
from optsde.optimizers import Adam
from optsde.study import Preset, presets

ROWS = {
    "sgd": "stochastic gradient descent, batch 128, 300 epochs",
    "fb": "full batch, 300 steps",
    "fb_longer": "3000 steps, four times the lr",
    "fb_clipped": "and the gradient clipped",
    "fb_regularized": "and the penalty on the gradient of each block, twice the lr",
    "fb_strong": "and smaller blocks, which makes the penalty stronger",
    "fb_practice": "and blocks drawn anew at each step",
}
LONG = dict(steps=3000, warmup=400.0, cosine=4000.0)
CIFAR = {
    "sgd": dict(steps=117_000, warmup=1950.0, cosine=115_050.0, batch_size=128),
    "fb": dict(steps=300, warmup=5.0, cosine=295.0),
    "fb_longer": dict(LONG, lr=0.4),
    "fb_clipped": dict(LONG, lr=0.4, clip=0.25),
    "fb_regularized": dict(LONG, lr=0.8, clip=0.25, penalty=0.5),
    "fb_strong": dict(LONG, lr=0.8, clip=0.25, penalty=0.5, block=32),
    "fb_practice": dict(LONG, lr=0.8, clip=0.25, penalty=0.5, block=32, shuffle=True),
}
SHORT = dict(steps=300, warmup=40.0, cosine=400.0, block=32, at_once=8)
SMALL = dict(clip=0.25, penalty=0.5, block=8, at_once=4)
DIGITS = {
    "sgd": dict(steps=480, warmup=8.0, cosine=472.0, batch_size=32, block=32, lr=0.8),
    "fb": dict(SHORT, steps=30, warmup=0.5, cosine=29.5, lr=0.8),
    "fb_longer": dict(SHORT, lr=1.6),
    "fb_clipped": dict(SHORT, lr=1.6, clip=0.25),
    "fb_regularized": dict(SHORT, lr=3.2, clip=0.25, penalty=0.5),
    "fb_strong": dict(SHORT | SMALL, lr=3.2),
    "fb_practice": dict(SHORT | SMALL, lr=3.2, shuffle=True),
}
TEXT = {name: dict(x, lr=x["lr"] / 8) for name, x in DIGITS.items()}

# Warm-up and clip, each alone, at the largest lr of the rows; its cosine ends at .27 of
# the peak at step 300, with and without warm-up.
PEAK = dict(SHORT, lr=3.2)
AT_ONCE = dict(warmup=0.0, cosine=461.5)
STABILISERS = {
    "neither": PEAK | AT_ONCE,
    "warmup": PEAK,
    "clip": PEAK | AT_ONCE | dict(clip=0.25),
    "both": PEAK | dict(clip=0.25),
}
STABILISED = {
    "warmup_alone_helps": orders.Order(one="warmup", other="neither"),
    "clip_alone_helps": orders.Order(one="clip", other="neither"),
    "clip_above_warmup": orders.Order(one="clip", other="warmup"),
    "both_above_warmup": orders.Order(one="both", other="warmup"),
    "both_as_clip": orders.Order(one="both", other="clip", points=1.0, alike=True),
}

# Without augmentation, and with copies that were augmented once. SGD's tuned lr is the
# best of .1, .2, .4, .8, 1.6 and 3.2 without augmentation, on other training images.
PLAIN = {name: DIGITS[name] for name in ("sgd", "fb", "fb_strong")}
PLAIN_TUNED = PLAIN | {"sgd_tuned": DIGITS["sgd"] | dict(lr=1.6)}
PUBLISHED_PLAIN = {"sgd": 84.32, "sgd_tuned": 90.07, "fb_strong": 89.17}
PUBLISHED_FROZEN = {"sgd": 95.20, "fb": 88.44, "fb_strong": 95.11}
WITHOUT = {
    "strong_above_sgd": orders.Order(one="fb_strong", other="sgd"),
    "strong_above_full_batch": orders.Order(one="fb_strong", other="fb"),
}
TUNED = {
    **WITHOUT,
    "tuned_above_sgd": orders.Order(one="sgd_tuned", other="sgd"),
    "strong_as_tuned": orders.Order(
        one="fb_strong", other="sgd_tuned", points=1.0, alike=True
    ),
}
COPIED = {
    "sgd_above_full_batch": orders.Order(one="sgd", other="fb"),
    "strong_above_full_batch": orders.Order(one="fb_strong", other="fb"),
    "strong_as_sgd": orders.Order(one="fb_strong", other="sgd", points=1.0, alike=True),
}

# A replication on small nets: SGD for 5 epochs, the full batch one step an epoch. Each
# lr, that with a clip and the clip are the best of those tried on other digits.
STEP = dict(warmup=0.0, lr=0.025, block=128, at_once=4)
TWENTY = dict(STEP, steps=100, cosine=100.0)
FIVE = {
    "sgd_5": dict(
        warmup=0.0, lr=0.025, batch_size=16, block=16, steps=160, cosine=160.0
    ),
    "fb_5": dict(STEP, steps=5, cosine=5.0),
    "fb_100": TWENTY,
    "fb_100_clip": TWENTY | dict(lr=0.2, clip=0.5),
    "fb_100_penalty": TWENTY | dict(penalty=0.5),
}
SIXTY = {"fb_300": dict(STEP, steps=300, cosine=300.0)}
FIVE_OF_60000 = FIVE | {
    "sgd_5": dict(FIVE["sgd_5"], batch_size=64, block=64, steps=4685, cosine=4685.0)
}
BY_BLOCK = dict(at_once=1)  # JAX has no convolution over both seeds and blocks
REPLICATED = {
    "5_steps_are_too_few": orders.Order(one="sgd_5", other="fb_5"),
    "clip_helps": orders.Order(one="fb_100_clip", other="fb_100"),
    "penalty_does_nothing": orders.Order(
        one="fb_100_penalty", other="fb_100", points=0.5, alike=True
    ),
}
AFTER_20 = {
    "20_times_as_sgd": orders.Order(one="fb_100", other="sgd_5", points=1.0, alike=True)
}
AFTER_60 = {
    "60_times_as_sgd": orders.Order(one="fb_300", other="sgd_5", points=1.0, alike=True)
}
NOT_AFTER_20 = {"20_times_are_too_few": orders.Order(one="sgd_5", other="fb_100")}

CONTROLS = {  # row it is taken from, what is changed
    "clipped_at_that_lr": ("fb_regularized", dict(penalty=0.0)),
    "practice_without_penalty": ("fb_practice", dict(penalty=0.0)),
}

# Claims that the tables in docs/fullbatch.md do not show. On the digits chosen here the
# penalty's own effect is smaller than on others; on text there is no BatchNorm.
KNOWN_FALSE = {
    "digits": ("penalty_lowers_loss_at_that_lr",),
    "text": (
        "longer_above_full_batch",
        "penalty_lowers_loss_at_that_lr",
        "new_blocks_lower_loss",
        "strong_is_as_good_as_sgd",
    ),
}
ON_DIGITS = dict(
    dataset="digits",
    model="digitsnet",
    options=dict(dtype="float32", activation="relu"),
    train_size=256,
    subset=1,  # the settings were chosen on 0
    evaluate_every=20,
)
ON_TEXT = dict(
    dataset="text",
    model="transformer",
    options=dict(dtype="float32", depth=1, width=32, heads=2, length=32),
    train_size=256,
    test_size=1024,
    augment="none",
)

# Data of one's own, of any size: --config.dataset=PATH.
ON_IMAGES = {**ON_DIGITS, "train_size": 0, "subset": 0}
ON_WORDS = {**ON_TEXT, "train_size": 0, "test_size": 0}
PLAIN_DIGITS: dict[str, Any] = dict(ON_DIGITS, augment="none")
FROZEN_DIGITS: dict[str, Any] = dict(ON_DIGITS, augment="frozen", train_size=128)
SMALL_NETS: dict[str, Any] = dict(
    PLAIN_DIGITS, model="twoconv", train_size=512, log_every=5
)
MNIST: dict[str, Any] = dict(SMALL_NETS, dataset="mnist", train_size=0, subset=0)
FASHION: dict[str, Any] = dict(MNIST, dataset="fashion_mnist")

LM_1B = dict(
    model="transformer",
    options=dict(dtype="bfloat16", depth=18, width=2048, heads=16, length=2048),
    shape=(2048,),
    classes=50_257,
    train_size=9_765_625,
    optimizer=Adam(lr=2e-4, b1=0.9, b2=0.95, weight_decay=0.1),
    batch_size=512,
    horizon=19_074.0,  # once through the data
    group=1,
)


def with_controls(rows: dict[str, dict]) -> dict[str, recipe.Row]:
    table = dict(rows)
    for name, (base, change) in CONTROLS.items():
        table[name] = rows[base] | change
    return as_rows(table)


def as_rows(table: dict[str, dict], **changes) -> dict[str, recipe.Row]:
    return {name: recipe.Row(**settings | changes) for name, settings in table.items()}


def rows_of(family: str, rows: dict[str, dict], **shared) -> dict[str, Preset]:
    prefix, words = (f"{family}_", f"{family}: ") if family else ("", "")
    return {
        prefix + name: Preset(words + ROWS[name], row.Settings(**shared, **settings))
        for name, settings in rows.items()
    }


PRESETS = {
    **rows_of("", CIFAR),
    **rows_of("digits", DIGITS, **ON_DIGITS),
    "digits_table": Preset(
        "digits: all rows and two controls, 12 seeds each, verdicts",
        table.Settings(
            **ON_DIGITS, rows=with_controls(DIGITS), known_false=KNOWN_FALSE["digits"]
        ),
    ),
    **rows_of("text", TEXT, **ON_TEXT),
    "growth_imagenet": Preset(
        "on paper: ResNet-50 on ImageNet, base, SVAG, full batch, 8 to 4,096 devices",
        growth.Settings(train_size=1_281_167),
    ),
    "growth_lm_1b": Preset(
        "on paper: a transformer of 10⁹ parameters on 2·10¹⁰ tokens, likewise",
        growth.Settings(**LM_1B),
    ),
    "digits_stabilisers": Preset(
        "digits: warm-up and clip at a large lr, neither, each alone, both, verdicts",
        orders.Settings(**ON_DIGITS, rows=as_rows(STABILISERS), orders=STABILISED),
    ),
    "batches": Preset(
        "digits: steps to a training loss at each batch, SGD, momentum, Adam, verdicts",
        batches.Settings(),
    ),
    "batches_sharpness": Preset(
        "digits: λ_max at one training loss, over batch and lr, verdicts",
        sharpness.Settings(known_false=("batch_16_lr_0.4_is_better",)),
    ),
    "digits_plain": Preset(
        "digits: SGD, with lr tuned, and the full batch without augmentation, verdicts",
        orders.Settings(
            **PLAIN_DIGITS,
            rows=as_rows(PLAIN_TUNED),
            orders=TUNED,
            published=PUBLISHED_PLAIN,
            known_false=("strong_above_sgd", "strong_as_tuned"),
        ),
    ),
    "digits_frozen": Preset(
        "digits: SGD and the full batch on four copies, augmented once, verdicts",
        orders.Settings(
            **FROZEN_DIGITS,
            copies=4,
            rows=as_rows(PLAIN),
            orders=COPIED,
            published=PUBLISHED_FROZEN,
            known_false=("strong_as_sgd",),
            seeds=5,
        ),
    ),
    "digits_replication": Preset(
        "digits: 5 epochs of SGD against 5 to 300 steps of the full batch, verdicts",
        orders.Settings(
            **SMALL_NETS,
            rows=as_rows(FIVE | SIXTY),
            orders=REPLICATED | AFTER_20 | AFTER_60,
        ),
    ),
    "mnist_replication": Preset(
        "MNIST: the same without the longest",
        orders.Settings(
            **MNIST,
            rows=as_rows(FIVE_OF_60000, **BY_BLOCK),
            orders=REPLICATED | AFTER_20,
            seeds=5,
        ),
    ),
    "fashion_mnist_replication": Preset(
        "Fashion-MNIST: the same, where 20 times the epochs should not do",
        orders.Settings(
            **FASHION,
            rows=as_rows(FIVE_OF_60000 | SIXTY, **BY_BLOCK),
            orders=REPLICATED | NOT_AFTER_20 | AFTER_60,
            seeds=5,
        ),
    ),
    "cifar10_plain": Preset(
        "CIFAR-10: SGD and the full batch without augmentation, verdicts",
        orders.Settings(
            augment="none",
            rows=as_rows({name: CIFAR[name] for name in PLAIN}),
            orders=WITHOUT,
            published={name: PUBLISHED_PLAIN[name] for name in ("sgd", "fb_strong")},
            seeds=5,
        ),
    ),
    "cifar10_frozen": Preset(
        "CIFAR-10: the same on ten copies, augmented once, verdicts",
        orders.Settings(
            augment="frozen",
            rows=as_rows({name: CIFAR[name] for name in PLAIN}),
            orders=COPIED,
            published=PUBLISHED_FROZEN,
            seeds=5,
        ),
    ),
    "gd_convex": Preset(
        "exact: a convex function on which GD needs ε⁻⁴ steps, and SGD ε⁻², verdicts",
        convex.Settings(),
    ),
    **rows_of("images", DIGITS, **ON_IMAGES),
    **rows_of("words", TEXT, **ON_WORDS),
    "text_table": Preset(
        "text: all rows and two controls on a small transformer",
        table.Settings(
            **ON_TEXT,
            rows=with_controls(TEXT),
            seeds=4,  # a row takes half a minute
            known_false=KNOWN_FALSE["text"],
        ),
    ),
}
DEFAULT = "digits_table"
get_config = presets(PRESETS, DEFAULT)
