"""The table: do catapults make networks generalize better, on real images?

SGD, AdaGrad and Adam, with and without a learning rate that cycles above the critical
one, on a two-layer net and minibatches. Each seed has its own split into training and
test images. All of it twice: from random initial functions, and from the zero function,
since lazy training leaves in the test predictions what a random one began with. Errors
are over seeds, which differ in start, batches and split of the same images.
"""

import numpy as np
from ml_collections import ConfigDict

from experiments.catapults import nets, table_report
from experiments.catapults.table_numbers import columns_of
from experiments.catapults.table_runs import INITS, ROWS, Trainer
from experiments.launch import UsageError, require
from experiments.rundir import RunDir
from optsde import data
from optsde.analysis import Verdict


def check(config: ConfigDict) -> None:
    for name in ("width", "batch_size", "train_size", "log_every", "period"):
        require(config[name] >= 1, config, name, "an integer ≥ 1")
    require(config.width % 2 == 0, config, "width", "an even number, for the zero init")
    require(config.seeds >= 2, config, "seeds", "at least 2, for intervals")
    require(config.images >= 0, config, "images", "0 (all) or more")
    for name in ("adagrad_lr", "adagrad_unit", "adam_lr", "matched_loss", "bound"):
        require(config[name] > 0, config, name, "a positive number")
    for name in ("ratio", "large_ratio", "cycle_low", "cycle_peak", "growth"):
        require(config[name] > 0, config, name, "a positive number")
    every = config.evaluate_every
    fine = every >= 1 and every % config.log_every == 0
    require(fine, config, "evaluate_every", f"a multiple of {config.log_every} steps")
    fine = config.steps >= every and config.steps % every == 0
    require(fine, config, "steps", f"a multiple of evaluate_every={every}")
    fine = 1 <= config.kernel_size <= config.train_size
    require(fine, config, "kernel_size", f"at most train_size={config.train_size}")
    try:
        nets.two_layer(config.width, 1, config.activation)
    except ValueError as error:
        raise UsageError(f"--config.activation: {error}") from None
    load(config)


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    held = rundir.curves()
    missing = {n: row for n, row in ROWS.items() if f"{n}/accuracy" not in held}
    if len(missing) < len(ROWS):
        done = ", ".join(ROWS[n].title(config) for n in ROWS if n not in missing)
        print(f"read from {rundir.path}: {done}", flush=True)
    if missing:
        trainer = Trainer(config, load(config))
        for name, row in missing.items():
            found = trainer.run(row)
            rundir.add_curves({f"{name}/{key}": x for key, x in found.items()})
    columns = columns_of(rundir.curves())
    for init in INITS:
        print("", table_report.results(config, columns, init), sep="\n")
    table_report.draw(config, columns, rundir.figure("table"))
    return table_report.judge(config, columns)


def load(config: ConfigDict) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and one-hot targets of all images that are used."""
    try:
        inputs, targets = nets.centred(data.load(config.dataset), config.images or None)
    except ValueError as error:
        raise UsageError(f"--config.dataset={config.dataset}: {error}") from None
    fine = config.train_size < len(inputs)
    require(fine, config, "train_size", f"fewer than all {len(inputs)} images")
    return inputs, targets
