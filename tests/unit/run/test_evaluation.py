"""Evaluation: against numpy, and statistics of BatchNorm."""

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from optsde import data, gradients, models, run

IMAGES, LABELS = data.digits()
EXAMPLES = jnp.asarray(IMAGES[:300]), jnp.asarray(LABELS[:300])
HELD_OUT = jnp.asarray(IMAGES[300:400]), jnp.asarray(LABELS[300:400])


def test_evaluation_against_numpy():
    """The plain forward of an MLP, at the weights and at their average."""
    loss = models.cross_entropy
    task = run.Task(models.MLP((16, 10)), loss, EXAMPLES, HELD_OUT, EXAMPLES[0])
    average = optsde.EMA(0.9)
    adam = optsde.Adam(lr=3e-3)
    plan = optsde.Plan(optimizer=adam, batch_size=20, horizon=10, average=average)
    made = optsde.discrete(plan, gradients.minibatch(task.losses, EXAMPLES), task.init)
    probes = [task.evaluation(average, rows=64, times=[10])]
    result = optsde.fit(made, jax.random.key(0)[None], 10, probes=probes)
    here = jax.tree.map(lambda x: x[0], result.state)
    weights = {"test": here.params, "average_test": average.value(here.average)}
    x, y = (np.asarray(part) for part in HELD_OUT)
    for name, params in weights.items():
        params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
        first, last = params["Dense_0"], params["Dense_1"]
        hidden = np.maximum(x @ first["kernel"] + first["bias"], 0)
        logits = hidden @ last["kernel"] + last["bias"]
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        row = result.row
        expected = -log_p[np.arange(100), y].mean()
        np.testing.assert_allclose(row[f"{name}_loss"], expected, rtol=1e-5)
        right = (logits.argmax(1) == y).mean()
        np.testing.assert_allclose(row[f"{name}_accuracy"], right, rtol=1e-6)


def test_statistics_of_one_group_are_that_group_s():
    model = models.build("digitsnet", 10)
    x = EXAMPLES[0].reshape(-1, 8, 8, 1)
    params = models.init_params(model, jax.random.key(1), x)
    whole = run.statistics(model, params, x, len(x), lambda x: x)
    own = model.apply({"params": params}, x)
    given = model.apply({"params": params} | whole, x)
    np.testing.assert_allclose(own, given, atol=2e-5)
    # Means and mean squares over groups of the first layer are those of the whole.
    split = run.statistics(model, params, x, 64, lambda x: x)
    whole, split = whole["statistics"], split["statistics"]
    first = min(whole)
    for name in ("mean", "square"):
        np.testing.assert_allclose(whole[first][name], split[first][name], rtol=1e-4)


def test_regression_has_a_loss_and_no_accuracy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 20, 3)).astype(np.float32)
    task = run.Task(models.MLP((3,)), models.squared_error, (x, y), (x, y))
    params = task.init(jax.random.key(0))
    weights = params["Dense_0"]
    found = run.evaluate(task.model, task.loss, params, x, (x, y), rows=7)
    errors = x @ weights["kernel"] + weights["bias"][None] - y
    expected = 0.5 * (errors**2).sum(1).mean()
    assert set(found) == {"loss"}
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)
