"""The cost of full gradients: the recursion against all draws, and against runs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_descent import settings_of, study_of

import optsde
from experiments.descent import full_gradient
from optsde.analysis import estimate
from optsde.gradients import minibatch
from optsde.run import fit

SMALL = dict(dimension=2, sizes=(64, 512), batches=(1, 8), halvings=12, seeds=2)


def short(size):
    """Least squares over a few examples, with residuals of the minimum."""
    s = settings_of("full_gradient", **SMALL)
    return full_gradient.problem(s, size, 0)


def test_moments_are_means_over_all_draws():
    """Two steps of 3 examples in pairs, 81 sequences of equal weight."""
    given, lr = short(3), 0.3
    ends = []
    for draws in itertools.product(itertools.product(range(3), repeat=2), repeat=2):
        e = given.start
        for pair in map(list, draws):
            x, r = given.inputs[pair], given.residuals[pair]
            e = e - lr * x.T @ (x @ e - r) / 2
        ends.append(np.concatenate([np.outer(e, e).ravel(), e, [1.0]]))
    (matrix,) = full_gradient.step(given, 2, np.array([lr]))
    found = matrix @ matrix @ full_gradient.moments(given)
    np.testing.assert_allclose(found, np.mean(ends, axis=0), rtol=1e-12, atol=1e-14)


def test_the_excess_is_that_of_the_training_loss():
    given = short(16)

    def loss(e):
        return np.mean((given.inputs @ e - given.residuals) ** 2) / 2

    found = full_gradient.excess(given, full_gradient.moments(given))
    np.testing.assert_allclose(found, loss(given.start) - loss(0 * given.start))


@pytest.mark.parametrize("batch", [4, 64])
def test_steps_are_those_that_one_after_the_other_takes(batch):
    given = short(64)
    lrs = np.array([0.1, 0.02])
    goals = full_gradient.excess(given, full_gradient.moments(given)) * 0.5 ** np.array(
        [1, 3]
    )
    found = full_gradient.steps_to(given, batch, lrs, goals)
    for row, matrix in zip(found, full_gradient.step(given, batch, lrs), strict=True):
        losses, state = [], full_gradient.moments(given)
        for _ in range(1000):
            losses.append(full_gradient.excess(given, state))
            state = matrix @ state
        for goal, steps in zip(goals, row, strict=True):
            assert losses[int(np.ceil(steps))] <= goal < losses[int(np.floor(steps))]


def test_goals_below_the_noise_are_never_reached():
    given = short(64)
    start = full_gradient.excess(given, full_gradient.moments(given))
    goals = start / np.array([2.0, 1e6])
    near, never = full_gradient.steps_to(given, 1, [0.3], goals)[0]
    assert np.isfinite(near)
    assert never == np.inf


@pytest.mark.full
def test_runs_have_the_excess_of_the_closed_form():
    """After 8 and 32 steps of 4 draws, within 4 s.e. of 4,000 runs."""
    given, lr, batch, times = short(64), 0.2, 4, (8, 32)
    data = jnp.asarray(given.inputs, jnp.float32), jnp.asarray(given.residuals)

    def losses(e, examples):
        inputs, residuals = examples
        return (inputs @ e - residuals) ** 2 / 2

    def observe(_, state):
        return {"excess": jnp.mean((data[0] @ state.params) ** 2) / 2}

    plan = optsde.Plan(optimizer=optsde.SGD(lr=lr), batch_size=batch, horizon=32)
    start = jnp.asarray(given.start, jnp.float32)
    dynamics = optsde.discrete(plan, minibatch(losses, data), start)
    probes = [optsde.measure.probe(observe, times=times)]
    keys = jax.random.split(jax.random.key(0), 4_000)
    found = estimate(fit(dynamics, keys, 32, probes=probes).metrics["excess"].values)
    (matrix,) = full_gradient.step(given, batch, np.array([lr]))
    state = full_gradient.moments(given)
    for i, time in enumerate(times):
        exact = full_gradient.excess(
            given, np.linalg.matrix_power(matrix, time) @ state
        )
        assert abs(found.mean[i] - exact) < 4 * found.se[i]
        assert found.se[i] < 0.05 * exact


@pytest.mark.full
def test_the_study_runs(tmp_path):
    verdicts = {v.claim: v for v in study_of("full_gradient", tmp_path, **SMALL)}
    assert len(verdicts) == 7
    assert verdicts["one_as_1_over_excess"].holds
    assert verdicts["no_batch_saves_examples"].holds
    assert (tmp_path / "figures" / "full_gradient.png").stat().st_size > 10_000


def test_the_excess_at_which_costs_cross():
    """At 2^−2.5, where log₂ of one is −k and of the other −1.5 − .4 k: at k = 2.5."""
    k = np.arange(1.0, 5.0)
    costs = np.stack([2 * k, 2.5 + k])[None]
    found = {"excess": -k[None], "examples": costs}
    np.testing.assert_allclose(full_gradient.crossing(found), [-2.5])
    never = {"excess": -k[None], "examples": costs[:, :, :2]}
    assert np.isnan(full_gradient.crossing(never)).all()
