"""experiments.fullbatch.batches: closed forms of arrivals, the curve, the command."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from configs.fullbatch import PRESETS
from experiments.fullbatch import batches
from optsde import SGD, HeavyBall, models
from optsde.run import Task
from optsde.study import RunDir, UsageError
from optsde.study.study import run

SMALL = dict(
    options={"hidden": (8,)},
    train_size=64,
    seeds=4,
    factors=(1.0, 4.0),
    batches=(4, 64),
    target=1.8,
    samples=256,
    least=20,
)


def settings(**changes):
    s = PRESETS["batches"].settings
    return dataclasses.replace(s, **SMALL | changes).checked()


def test_arrivals_of_powers():
    """a·step^−p is at the target at (a/target)^(1/p), whatever the measurements."""
    steps = np.array([1.0, 3.0, 4.0, 10.0, 30.0])
    losses = np.stack([6 * steps**-0.5, 5 * steps**-1.2, 0.5 + 0 * steps])
    found = batches.arrival(steps, losses, 2.0)
    np.testing.assert_allclose(2 ** found[:2], [9, 2.5 ** (1 / 1.2)], rtol=1e-12)
    assert found[2] == 0  # from the first measurement on
    assert batches.arrival(steps, losses, 0.05).tolist() == [np.inf] * 3


def test_the_batch_of_twice_the_samples():
    """Steps ∝ 1 + c/B take twice the first batch's samples at B = c + 2."""
    sizes = np.array([1, 4, 16, 64, 256])
    log_steps = np.log2(100 * (1 + 14 / sizes))[None] + [[0.0], [0.3]]
    np.testing.assert_allclose(batches.leaves(sizes, log_steps), 4, rtol=1e-12)
    perfect = -np.log2(sizes)[None]
    assert batches.leaves(sizes, perfect) == np.inf
    further = batches.further_by(sizes, log_steps, np.log2(1 + 2 / sizes)[None])
    np.testing.assert_allclose(further, 2, rtol=1e-12)


def test_steps_without_noise(tmp_path):
    """On equal examples w falls by 1 − lr a step at any batch, by the rule 1 − κ lr."""
    ones, zeros = jnp.ones((8, 1)), jnp.zeros((8, 1))
    task = Task(
        model=nn.Dense(1, use_bias=False, kernel_init=nn.initializers.ones),
        loss=models.squared_error,
        train=(ones, zeros),
        test=(ones, zeros),
    )
    s = settings(optimizers={"sgd": SGD(lr=0.02)}, factors=(1.0,), batches=(1, 8))
    s = dataclasses.replace(s, target=1e-3, samples=8, least=200)
    found = batches.simulate(s, RunDir.open(tmp_path, "fullbatch", s.config()), task)

    def expected(lr):
        return np.log2(np.log(2 * 1e-3) / (2 * np.log(1 - lr)))  # from a loss of ½

    np.testing.assert_allclose(found["sgd"]["tuned"], expected(0.02), atol=0.02)
    np.testing.assert_allclose(found["sgd"]["ruled"], expected(0.16), atol=0.02)


@pytest.mark.full
def test_the_study_runs_and_is_read_again(tmp_path, capsys):
    s = settings(optimizers={"sgd": SGD(lr=0.1), "momentum": HeavyBall(lr=0.01)})
    verdicts = run(batches.study, s, RunDir.open(tmp_path, "fullbatch", s.config()))
    assert len(verdicts) == 6 * 2 + 2
    assert all(np.isfinite(v.value) for v in verdicts[:-1])
    assert (tmp_path / "figures" / "batches.png").stat().st_size > 10_000
    again = run(batches.study, s, RunDir.open(tmp_path, "fullbatch", s.config()))
    assert again == verdicts
    assert "read from" in capsys.readouterr().out


def test_a_target_that_no_lr_reaches_is_one_line(tmp_path):
    s = settings(target=1e-6, optimizers={"sgd": SGD(lr=0.1)})
    place = RunDir.open(tmp_path, "fullbatch", s.config())
    with pytest.raises(UsageError, match=r"target=1e-06: no lr of sgd at batch 4 arr"):
        batches.simulate(s, place, batches.build_task(s))
    with pytest.raises(UsageError, match="batches=4,99: needs at most the 64"):
        batches.build_task(settings(batches=(4, 99)))
