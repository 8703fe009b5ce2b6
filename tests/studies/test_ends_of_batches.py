"""experiments.fullbatch.sharpness: curvature in closed form, pairs, the study."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from configs.fullbatch import PRESETS
from experiments.fullbatch import sharpness
from optsde import models
from optsde.run import Task
from optsde.study import RunDir, UsageError
from optsde.study.study import run

SMALL = dict(options={"hidden": (8,)}, train_size=64, test_size=64, seeds=2)
SMALL |= dict(batches=(16, 64), target=1.8, steps=200, per_octave=1)


def settings(**changes):
    s = PRESETS["batches_sharpness"].settings
    return dataclasses.replace(s, **SMALL | changes).checked()


@pytest.mark.full
def test_the_curvature_of_a_product(tmp_path):
    """Loss ½(abx)²: at a = b its Hessian has λ_max = 3a²; there the loss is ½a⁴."""

    class Product(nn.Module):
        @nn.compact
        def __call__(self, x):
            ones = nn.initializers.ones
            return self.param("a", ones, ()) * self.param("b", ones, ()) * x

    examples = jnp.ones((4, 1)), jnp.zeros((4, 1))
    task = Task(Product(), models.squared_error, train=examples, test=examples)
    s = settings(batches=(1, 4), lrs=(0.01,), target=0.01, steps=2000, per_octave=16)
    found = sharpness.simulate(s, RunDir.open(tmp_path, "fullbatch", s.config()), task)
    for name in ("batch 1, lr 0.01", "batch 4, lr 0.01"):
        values = found[name]
        np.testing.assert_allclose(values["test_loss"], 0.01, rtol=1e-6)
        # ½a⁴ = .01; between measurements both are powers of the step, nearly.
        np.testing.assert_allclose(values["sharpness"], 3 * 0.02**0.5, rtol=5e-3)


def test_pairs_of_equal_lr_over_batch():
    s = settings(batches=(4, 16, 64), lrs=(0.05, 0.2))
    pairs = list(sharpness.pairs_of_equal_ratio(s))
    assert pairs == [((4, 0.05), (16, 0.2)), ((16, 0.05), (64, 0.2))]


@pytest.mark.full
def test_the_study_runs_and_is_read_again(tmp_path, capsys):
    s = settings(lrs=(0.05, 0.2))
    verdicts = run(sharpness.study, s, RunDir.open(tmp_path, "fullbatch", s.config()))
    assert [v.claim for v in verdicts] == [
        "batch_16_lr_0.05_is_flatter",
        "batch_16_lr_0.2_is_flatter",
        "batch_16_lr_0.05_is_better",
        "batch_16_lr_0.2_is_better",
        "full_batch_lr_0.2_flatter_than_0.05",
        "batch_64_lr_0.2_as_batch_16_lr_0.05",
    ]
    assert (tmp_path / "figures" / "sharpness.png").stat().st_size > 10_000
    again = run(sharpness.study, s, RunDir.open(tmp_path, "fullbatch", s.config()))
    assert again == verdicts
    assert "read from" in capsys.readouterr().out


@pytest.mark.full
def test_a_target_that_is_not_reached_is_one_line(tmp_path):
    s = settings(target=1e-6, steps=8)
    place = RunDir.open(tmp_path, "fullbatch", s.config())
    with pytest.raises(UsageError, match=r"target=1e-06: batch 16, lr 0\.1 does not"):
        sharpness.simulate(s, place, sharpness.build_task(s))
