"""May the batch change in mid-run, and how large may it be at each time?

python -m experiments.batches --config=configs/batches.py:adam
python -m experiments.batches --config=configs/batches.py:lm --config.growth=2

cifar10_momentum    Smith, Kindermans, Ying and Le 2018, their first experiment: 200
                    epochs at batch 128, lr .1 with Nesterov momentum .9 (here as an
                    average, lr 1), × .2 after 60, 120 and 160 epochs, or batch × 5
                    in its place; L2 5e-4, ghost BatchNorm of 128. Their net is a
                    16-4 wide ResNet; here a PreResNet-32. They leave momentum as it
                    is, which is the arm "β alone"
"""

from experiments.batches import critical, growing, regression
from optsde.optimizers import SGD, Adam, Momentum, RMSprop
from optsde.study import Preset, presets

NOISY = dict(label_noise=0.3)
BY_TWO = dict(growth=2, others=(4,))

PRESETS = {
    "regression": Preset(
        "SGD on a noisy linear regression, where both are known exactly",
        regression.Settings(),
    ),
    "sgd": Preset(
        "SGD on digits: lr halves, or the batch doubles",
        growing.Settings(optimizer=SGD(lr=0.04), **NOISY, **BY_TWO),
    ),
    "adam": Preset(
        "Adam on digits: lr halves, or the batch grows by 4",
        growing.Settings(optimizer=Adam(lr=5.6e-3, b1=0.998, b2=0.998), **NOISY),
    ),
    "rmsprop": Preset(
        "RMSprop on digits",
        growing.Settings(optimizer=RMSprop(lr=5.6e-3, beta=0.998), **NOISY),
    ),
    "lm": Preset(
        "Adam on a small causal transformer: lr halves, or the batch grows by 4",
        growing.Settings(
            optimizer=Adam(lr=1.4e-3, b1=0.975, b2=0.995),
            dataset="text",
            model="transformer",
            options=dict(dtype="float32", depth=1, width=64, heads=2, length=32),
            train_size=45_000,
            test_size=256,
            horizon=3072.0,
            warmup=160.0,
            drops=(1536.0, 2304.0),
            evaluations=16,
            seeds=6,
            bound=1.5,
            known_false=("drops_lower_the_loss",),
        ),
    ),
    "critical": Preset(
        "Adam on its first descent on digits: the largest batch at each time",
        critical.Settings(
            optimizer=Adam(lr=2e-4, b1=0.98, b2=0.995),
            known_false=("schedule_keeps_the_loss", "fixed_batch_ends_higher"),
        ),
    ),
    "cifar10_momentum": Preset(
        "Nesterov momentum, as published",
        growing.Settings(
            optimizer=Momentum(lr=1.0, beta=0.9, nesterov=True, l2=5e-4),
            dataset="cifar10",
            model="preresnet32",
            augment="live",
            batch_size=128,
            group=128,
            growth=5,
            others=(),
            horizon=78_125.0,  # 200 epochs
            drops=(23_750.0, 46_875.0, 62_500.0),  # 60.8, 120 and 160 epochs
            evaluations=125,
            seeds=3,
        ),
    ),
}
DEFAULT = "adam"
get_config = presets(PRESETS, DEFAULT)
