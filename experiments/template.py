"""My run: a net and data, which every study trains.

    python -m experiments.svag --config=THIS_FILE:adamw       does the SDE describe it?
    python -m experiments.scaling --config=THIS_FILE:adamw    what at κ times the batch?
    python -m experiments.fullbatch --config=THIS_FILE:adamw  can the full batch do it?

`python -m experiments` lists the studies, `--help` of each its settings. As it stands,
on made data and with few seeds, what is printed is an example and no result.
"""

import flax.linen as nn
import numpy as np

import optsde
from optsde import data
from optsde.study import Preset, task_of


class Net(nn.Module):
    """Replace it by yours: from inputs to a number for each class."""

    @nn.compact
    def __call__(self, x, mask=None):
        x = x.reshape(len(x), -1)
        x = nn.relu(nn.Dense(32)(x))
        return nn.Dense(3)(x)


def dataset():
    """Replace it by yours: data.load("photos/"), data.load("table.csv") or arrays."""
    random = np.random.RandomState(0)
    inputs = random.randn(600, 8).astype(np.float32)
    labels = np.argmax(inputs[:, :3] + random.randn(600, 3), axis=1)
    return data.from_arrays(inputs, labels)


def task(config):
    """Returns net and data. `config` has the settings of the study that asks."""
    return task_of(dataset(), Net())


# Settings of every study that has them, and those of single studies.
SMALL = dict(
    batch_size=8,
    seeds=4,
    svag=dict(ells=(1, 2), small_batches=(), times=(50, 100), sde_seeds=4),
    scaling=dict(
        horizon=256.0,
        kappas=(2, 4),
        ells=(),
        evaluations=4,
        probe_seeds=4,
        draws=64,
    ),
    fullbatch=dict(batch_size=0, steps=100, warmup=10.0, cosine=90.0, augment="none"),
)
ADAMW = optsde.Adam(lr=3e-3, b1=0.9, b2=0.99, weight_decay=0.01)
MOMENTUM = optsde.Momentum(lr=0.05, beta=0.9)
PRESETS = {
    "adamw": Preset("AdamW, as I tuned it", SMALL | dict(optimizer=ADAMW)),
    "momentum": Preset("SGD with momentum", SMALL | dict(optimizer=MOMENTUM)),
}
