"""Does the scaling rule hold here?

python -m experiments.scaling --config=configs/scaling.py:digits
python -m experiments.scaling --config=configs/scaling.py:lm --dry_run
"""

import dataclasses

from ml_collections import ConfigDict

import optsde

OPTIMIZERS = {
    "digits": optsde.Adam(lr=1.4e-3, b1=0.998, b2=0.998),
    "digits_rmsprop": optsde.RMSprop(lr=1.4e-3, beta=0.998),
    "digits_adamw": optsde.Adam(lr=1.4e-3, b1=0.998, b2=0.998, weight_decay=0.5),
    "digits_sgd": optsde.SGD(lr=0.01),
    "digits_momentum": optsde.Momentum(lr=0.01, beta=0.995),
    "digits_adagrad": optsde.AdaGrad(lr=2e-2, s0=1e-3),
    "lm": optsde.Adam(lr=7e-4, b1=0.975, b2=0.995, weight_decay=0.1),
}
PRESETS = {
    "digits": "Adam on digits",
    "digits_rmsprop": "RMSprop",
    "digits_adamw": "AdamW",
    "digits_sgd": "SGD, whose rule is linear",
    "digits_momentum": "SGD with momentum, 1 − β scaled with κ",
    "digits_adagrad": "AdaGrad, whose lr does not follow the batch",
    "lm": "AdamW, a causal transformer on the standard library's text",
}
DEFAULT = "digits"


def get_config(preset: str = DEFAULT) -> ConfigDict:
    config = _digits() if preset.startswith("digits") else _text()
    optimizer = OPTIMIZERS[preset]
    name = type(optimizer).__name__.lower()
    config.optimizer = ConfigDict({"name": name, **dataclasses.asdict(optimizer)})
    return config.lock()


def _digits() -> ConfigDict:
    config = _shared()
    config.update(
        dict(
            dataset="digits",
            model="mlp",
            options=dict(hidden=(64,)),
            batch_size=2,
            horizon=5120.0,
            label_noise=0.3,
            kappas=(2, 4, 8, 16, 32, 64),
            ells=(2, 4),
            svag_until=0.25,
            seeds=64,
        )
    )
    return config


def _text() -> ConfigDict:
    config = _shared()
    config.update(
        dict(
            dataset="text",
            model="transformer",
            options=dict(dtype="float32", depth=1, width=64, heads=2, length=32),
            train_size=45_000,
            test_size=256,
            batch_size=2,
            horizon=3072.0,
            kappas=(2, 4, 8, 16, 32),
            controls_until=8.0,
            ells=(2,),
            svag_until=0.25,
            seeds=6,
            bound=1.5,
        )
    )
    config.schedule.warmup = 160.0
    return config


def _shared() -> ConfigDict:
    config = ConfigDict()
    config.dataset = "digits"
    config.model = "mlp"
    config.options = ConfigDict()  # of the model, see optsde.models.build
    config.train_size = 0  # 0: all that there are
    config.subset = 0
    config.test_size = 0
    config.imbalance = 1.0  # the rarest class's share of what the commonest has
    config.label_noise = 0.0  # share of training labels that are random
    config.augment = "none"  # live, none, or masked (text)
    config.group = 1  # examples that share BatchNorm's statistics; 1: no BatchNorm
    config.statistics = 10_000
    config.stream = False
    config.alpha = 0.0  # index of stable noise added to gradients; 0: none
    config.tail_size = 0.0  # its scale at the base batch
    config.batch_size = 2
    config.horizon = 5120.0  # steps of the base run
    config.schedule = ConfigDict(
        dict(warmup=0.0, exponential=False, milestones=(), cosine=0.0)
    )
    config.clip = 0.0
    config.kappas = (2, 4, 8, 16, 32)
    config.rules = ("rule", "linear", "sqrt_lr_only", "fixed")
    config.memory = "power"  # decays become β**κ; linear: 1 − κ(1 − β)
    config.controls_until = 64.0  # largest κ at which the other rules run too
    config.ells = (2,)
    config.svag_until = 0.25  # share of the run that SVAG takes part in
    config.evaluations = 8
    config.probe_seeds = 4  # for the prediction
    config.probe_until = 1.0
    config.draws = 64  # gradients of one measurement
    config.close = 1.2  # factor of noise-driven loss and of speed, for the prediction
    config.tail_group = 16  # batches in a term, of which sums are formed
    config.seeds = 16
    config.seed = 0
    config.bound = 5.0  # percent of loss, for "the same as the base run"
    config.known_false = ()
    return config
