"""Tasks: the law of their noise and the probe of their training loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optsde import data, gradients, models
from optsde.run import Task


def task(model, size=30):
    digits = data.load("digits", train_size=size)
    train = jax.tree.map(jnp.asarray, digits.train)
    return Task(
        model=model,
        loss=models.cross_entropy,
        train=train,
        test=train,
        plain=train[0],
        prepare=digits.normalise,
    )


def moments(law, params):
    shape = law.shape(params)
    dw = jax.random.normal(jax.random.key(1), shape.shape)
    return jax.jit(law.moments)(params, dw)


@pytest.mark.parametrize("net", [models.MLP((8, 10)), models.SmallConv(10, width=2)])
def test_a_law_is_that_of_the_examples_whatever_the_net(net):
    whole = task(net)
    params = whole.init(jax.random.key(0))
    by_blocks = gradients.from_data(whole.losses, whole.train, 8)
    ours, theirs = (moments(x, params) for x in (whole.law(8), by_blocks))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6), ours, theirs
    )


def test_the_statistics_of_many_sorted_examples_are_of_all_classes():
    x, y = np.eye(3, dtype=np.float32).repeat(4_000, 0), np.arange(3).repeat(4_000)
    task = Task(models.MLP((3,)), models.cross_entropy, (x, y), (x, y))
    assert task.plain.shape == (10_000, 3)
    assert (task.plain[:512].mean(0) > 0.2).all()


def test_examples_that_interact_and_streams_have_no_law():
    ghost = task(models.build("digitsnet", 10), size=8)
    assert ghost.examples_interact
    assert not task(models.MLP((8, 10))).examples_interact
    with pytest.raises(ValueError, match="BatchNorm makes examples interact"):
        ghost.law(8)
    arrays = data.Arrays(*map(np.asarray, ghost.train))
    streamed = Task(
        model=models.MLP((10,)),
        loss=models.cross_entropy,
        train=data.Stream(arrays),
        test=ghost.test,
        plain=ghost.plain,
    )
    with pytest.raises(ValueError, match="on the device, not a Stream"):
        streamed.law(8)
    with pytest.raises(ValueError, match="train_loss needs its examples on the device"):
        streamed.train_loss()


def test_training_loss_is_the_mean_in_any_groups():
    here = task(models.MLP((8, 10)))
    params = here.init(jax.random.key(0))

    class State:
        pass

    State.params = params
    expected = here.losses(params, here.train).mean()
    for rows in (7, 2048):
        probe = here.train_loss(rows)
        metrics, _ = probe.observe(probe.source, State, ())
        np.testing.assert_allclose(metrics["train_loss"], expected, 1e-5)
