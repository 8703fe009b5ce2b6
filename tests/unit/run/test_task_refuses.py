"""What does not fit together in a task is refused in one line, before it runs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optsde import data, gradients, models
from optsde.dynamics.discrete import initial_point
from optsde.gradients import Draw
from optsde.run import Task

X = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
Y = np.arange(10) % 3


def function(apply):
    return models.Net(lambda key, inputs: jnp.ones((4, 3)), apply)


def squeezed(params, inputs):
    return jnp.ravel(inputs @ params)


def mean_loss(outputs, targets):
    return models.cross_entropy(outputs, targets).mean()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(loss=mean_loss), r"loss of 3 examples has the shape \[\]: return the"),
        (dict(model=function(squeezed)), r"outputs of 3 examples have the shape \[9\]"),
        (dict(train=(X.tolist(), Y)), "needs arrays of one row for each example"),
        (dict(train=(X, Y[:-1])), "train has arrays of 9 and 10 rows: give one"),
        (dict(test=(X[:4], Y)), "test has arrays of 4 and 10 rows: give one"),
        (dict(train=(X, Y - 1)), "train has labels from -1 to 1, and 3 outputs take 0"),
        (
            dict(train=(X, Y + 1), augment=lambda keys, examples: examples),
            "train has labels from 1 to 3",
        ),
        (dict(test=(X, Y + 1)), "test has labels from 1 to 3, and 3 outputs take 0 to"),
        (
            dict(
                loss=optax.softmax_cross_entropy_with_integer_labels, train=(X, Y + 1)
            ),
            "train has labels from 1 to 3",
        ),
        (dict(train=(X, np.eye(3)[Y])), r"number of each one's class, and has outputs"),
        (
            dict(loss=models.squared_error, test=(X, X[:, 0])),
            r"outputs \[3, 3\] and targets \[3\]: for one number an example, both",
        ),
        (dict(train=data.Stream(data.Arrays(X, Y))), "train is a Stream: give plain="),
    ],
)
def test_one_line_says_what_to_return(changes, message):
    given = dict(
        model=nn.Dense(3), loss=models.cross_entropy, train=(X, Y), test=(X, Y)
    )
    with pytest.raises(ValueError, match=message) as refusal:
        Task(**given | changes)
    assert "\n" not in str(refusal.value)


def test_labels_are_read_once(monkeypatch):
    """And those of other data than the task's are read all the same."""
    task = Task(nn.Dense(3), models.cross_entropy, train=(X, Y), test=(X, Y))
    read = []
    monkeypatch.setattr(
        gradients.samplers, "check_labels", lambda *found: read.append(found)
    )
    gradients.minibatch(task.losses, task.train)
    gradients.full_batch(task.losses, task.test)
    assert not read
    gradients.epochs(task.losses, (X, Y.copy()))
    assert len(read) == 1


def test_tokens_that_do_not_count_are_no_labels():
    def apply(params, tokens):
        return jax.nn.one_hot(tokens, 4) @ params

    tokens = np.arange(12).reshape(2, 6) % 3
    given = dict(model=function(apply), loss=models.token_cross_entropy)
    Task(**given, train=(tokens, tokens - 1), test=(tokens, tokens - 1))
    with pytest.raises(ValueError, match="labels from -2 to 0, and 3 outputs take -1"):
        Task(**given, train=(tokens, tokens - 2), test=(tokens, tokens))


@pytest.mark.parametrize("at_once", [1, 3])
def test_samplers_refuse_a_batch_mean(at_once):
    """Over a ragged end it would be a mean over the copies too, and nothing said so."""

    def losses(params, examples):
        return jnp.mean((params - examples) ** 2)

    oracle = gradients.full_batch(losses, X[:, 0], 4, at_once=at_once)()
    with pytest.raises(ValueError, match=r"losses\(params, 4 examples\) has the shape"):
        oracle(jnp.array(1.0), Draw(jax.random.key(0), jnp.int32(0)))


def test_samplers_refuse_arrays_of_unequal_length():
    """Indices beyond the end would be those of the last target."""
    for sampler in (gradients.minibatch, gradients.epochs, gradients.full_batch):
        with pytest.raises(ValueError, match="data has arrays of 9 and 10 rows"):
            sampler(lambda params, examples: examples[1], (X, Y[:-1]))


def test_a_module_that_can_be_called_is_no_initialiser():
    eqx = pytest.importorskip("equinox")
    module = eqx.nn.MLP(4, 3, 5, 1, key=jax.random.key(0))
    weights = eqx.filter(module, eqx.is_inexact_array)
    start = initial_point(weights, jax.random.key(1))
    np.testing.assert_array_equal(start.layers[0].weight, module.layers[0].weight)
    with pytest.raises(TypeError, match=r"params\.activation is a function: give arr"):
        initial_point(module, jax.random.key(1))
    assert initial_point(lambda key: 2.0, jax.random.key(1)) == 2


def test_a_call_of_the_net_that_fails_says_how_it_was_called():
    class Flagged(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return nn.Dense(3)(x)

    with pytest.raises(TypeError, match="missing 1 required") as refusal:
        Task(Flagged(), models.cross_entropy, train=(X, Y), test=(X, Y))
    note = refusal.value.__notes__[-1]
    assert note.startswith("The net was called on examples of shape [4]. One that")
