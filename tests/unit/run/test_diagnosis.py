"""A run that leaves the finite numbers says where, and what is to blame."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optsde
from optsde import data, gradients, models, run
from optsde.gradients import FunctionOracle
from optsde.study import arms

X = np.linspace(-1, 1, 48, dtype=np.float32).reshape(16, 3)
Y = np.arange(16, dtype=np.int32) % 3
KEYS = jax.random.split(jax.random.key(0), 4)
PLAN = optsde.Plan(optimizer=optsde.SGD(lr=0.1), batch_size=16, horizon=8)


def losses(params, examples):
    inputs, targets = examples
    return (inputs @ params - targets) ** 2


def reason(dynamics, keys=KEYS, **options):
    with pytest.raises(run.DivergedError) as caught:
        optsde.fit(dynamics, keys, 8.0, every=2, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def on(examples, plan=PLAN, params=None):
    sampler = gradients.minibatch(losses, examples)
    params = jnp.ones(3) if params is None else params
    return optsde.discrete(plan, sampler, params)


def spoilt(array, *rows):
    array = np.array(array, np.float32)
    array[list(rows)] = np.nan
    return array


def test_data_are_to_blame():
    error = reason(on((spoilt(X, 3, 9), Y)))
    assert "between step 0 and 2: all 4 replicas: " in str(error)
    assert "6 values of the inputs are not finite, in rows 3 and 9" in str(error)
    assert error.replicas == (0, 1, 2, 3)


def test_labels_are_to_blame():
    error = reason(on((X, spoilt(Y, 5))))
    assert "1 value of the targets is not finite, in row 5" in str(error)


def test_the_rate_is_to_blame():
    high = dataclasses.replace(PLAN, optimizer=optsde.SGD(lr=1e9))
    text = str(reason(on((X, Y), high)))
    assert "data and labels are finite" in text
    assert "lower the learning rate" in text
    rising = optsde.discrete(
        dataclasses.replace(PLAN, optimizer=optsde.SGD(lr=1e6)),
        lambda batch_size: FunctionOracle(lambda source, x, draw: (x**2 / 2, x)),
        1.0,
    )
    text = str(reason(rising, KEYS[:1]))
    assert "the one replica (key " in text
    assert "the loss of replica 0 rose from 2.5e+11 to " in text


def test_the_start_is_to_blame():
    text = str(reason(on((X, Y), params=jnp.full(3, jnp.nan))))
    assert "data and labels are finite; the parameters at the start are not" in text


def test_one_replica_of_several_is_named():
    def of(scale):
        return on((X, Y), params=jnp.ones(3) * scale)

    scales = np.array([1.0, 1.0, np.inf, 1.0], np.float32)
    error = reason(of, members=scales)
    numbers = ",".join(map(str, np.asarray(jax.random.key_data(KEYS[2]))))
    which = f"replica 2 of 4 (key {numbers}): loss and grad_norm not finite"
    assert which in str(error)
    assert error.replicas == (2,)


@pytest.mark.full
def test_a_stream_is_looked_at_in_its_window():
    text = str(reason(on(data.Stream(data.Arrays(spoilt(X, 3), Y))), KEYS[:1]))
    assert "of the window's inputs are not finite" in text


@pytest.mark.full
def test_held_out_data_are_told_from_a_loss():
    task = run.Task(
        nn.Dense(3), models.cross_entropy, train=(X, Y), test=(spoilt(X, 0), Y)
    )
    made = optsde.discrete(
        PLAN, gradients.minibatch(task.losses, task.train), task.init
    )
    text = str(reason(made, KEYS[:1], probes=[task.evaluation(times=2)]))
    assert "test_loss not finite; " in text
    assert "the loss is finite: look at what test_loss is made of" in text


@pytest.mark.full
def test_arms_are_named():
    group = [
        arms.Arm(name, dataclasses.replace(PLAN, optimizer=optsde.SGD(lr=lr)))
        for name, lr in (("calm", 0.1), ("wild", 1e9))
    ]
    with pytest.raises(run.DivergedError, match=r"replicas 2 and 3 of 4.*\(of wild, 2"):
        arms.train(
            group,
            gradients.minibatch(losses, (X, Y)),
            jnp.ones(3),
            KEYS[:2],
            keep=lambda name, make: make(),
            every=2,
        )
