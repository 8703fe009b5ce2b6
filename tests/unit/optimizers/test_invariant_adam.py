"""Batch-size-invariant Adam: its update, and Adam as its case of one micro-batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.quadratic import THETA0, plan, sampler

import optsde
from optsde import gradients
from optsde.squares import Squares

X = np.random.RandomState(0).normal(size=(31, 3)).astype(np.float32)


def losses(w, examples):
    return jnp.square(jnp.tanh(examples @ w) - examples[:, 0])


def ended(plan, draw=None, start=None):
    """Parameters at the end of a run on data, or on what `draw` gives."""
    start = jnp.full(3, 0.5) if start is None else start
    run = optsde.discrete(plan, draw or gradients.minibatch(losses, X), start)
    return optsde.ensemble(
        run, jax.random.split(jax.random.key(1), 2), [plan.horizon], lambda s: s.params
    ).values


def test_update_is_the_equation():
    """Against numpy, in the terms of Wang and Aitchison, with coupled l2 and decay."""
    random = np.random.RandomState(0)
    steps = random.normal(size=(4, 5, 3))  # step, micro-batch, coordinate
    hyper = dict(lr=0.1, b1=0.8, b2=0.9, eps=0.01, l2=0.3, weight_decay=0.2)
    transform = optsde.InvariantAdam(micros=5, **hyper).transform()
    params = theta = np.array([0.5, -1.0, 2.0])
    state, m, v = transform.init(jnp.asarray(params, jnp.float32)), 0, 0
    for k, each in enumerate(steps, 1):
        mean, square = each.mean(0), (each**2).mean(0)
        given = jax.tree.map(jnp.float32, Squares(mean, mean, square))
        change, state = transform.update(given, state, jnp.float32(params))
        params = params + np.asarray(change)
        micro = each + 0.3 * theta
        m = 0.8 * m + 0.2 * micro.mean(0)
        v = 0.9 * v + 0.1 * (micro**2).mean(0)
        u = m / (1 - 0.8**k) / (np.sqrt(v / (1 - 0.9**k)) + 0.01)
        theta = theta - 0.1 * (u + 0.2 * theta)
    np.testing.assert_allclose(params, theta, rtol=1e-5)


def test_one_micro_batch_is_adam_bit_for_bit():
    hyper = dict(lr=0.05, b1=0.8, b2=0.9, weight_decay=0.2)
    adam = optsde.Plan(optimizer=optsde.Adam(**hyper), batch_size=4, horizon=7)
    ours = dataclasses.replace(adam, optimizer=optsde.InvariantAdam(**hyper))
    np.testing.assert_array_equal(ended(ours), ended(adam))


@pytest.mark.parametrize("noise", ["data", "gaussian"])
def test_a_run_reads_the_same_micro_batches_at_any_batch(noise):
    """With lr so small that θ stands still, m and v at κ = 1 and 4 are averages of the
    same numbers: after 64 base steps equal but for the weights within 4 steps."""
    draw = sampler(2.0) if noise == "gaussian" else gradients.minibatch(losses, X)
    start = THETA0 if noise == "gaussian" else jnp.full(3, 0.5)
    optimizer = optsde.InvariantAdam(lr=1e-9, b1=0.99, b2=0.99)
    base = optsde.Plan(optimizer=optimizer, batch_size=2, horizon=64)

    def memory(plan):
        run = optsde.discrete(plan, draw, start)
        read = lambda state: state.optimizer.direction  # noqa: E731
        state = optsde.ensemble(run, jax.random.key(3)[None], [64], read).values
        return [np.asarray(x / w) for x, w in zip(state[:2], state[2:], strict=True)]

    for one, four in zip(memory(base), memory(optsde.scale(base, 4)), strict=True):
        np.testing.assert_allclose(one, four, rtol=0.1)


def test_what_cannot_be_is_refused():
    gradient = jnp.ones(3)
    transform = optsde.InvariantAdam(micros=4).transform()
    with pytest.raises(ValueError, match="micros=4: an update needs Squares"):
        transform.update(gradient, transform.init(gradient), gradient)
    base = optsde.Plan(
        optimizer=optsde.InvariantAdam(micros=4), batch_size=8, horizon=8
    )
    assert ended(optsde.svag(base, 3)).shape == (2, 1, 3)
    with pytest.raises(ValueError, match=r"micros=0\.5 .* makes 0\.5 micro-batches"):
        ended(optsde.scale(base, 1 / 8))
    uneven = dataclasses.replace(base, batch_size=10)
    with pytest.raises(ValueError, match="batch_size=10 is not 4 equal micro-batches"):
        ended(uneven)
    with pytest.raises(ValueError, match="micros=0: needs a positive number"):
        optsde.InvariantAdam(micros=0).checked()


def test_rescaling_leaves_v_and_eps_alone():
    base = plan(optsde.InvariantAdam(eps=0.1, eps_root=0.2, micros=2), 8.0)
    big = optsde.scale(base, 4).optimizer
    assert (big.lr, big.eps, big.eps_root) == (4e-3, 0.1, 0.2)
    assert (big.micros, optsde.svag(base, 4).optimizer.micros) == (8, 0.5)
    assert optsde.svag(base, 4).optimizer.micro_batches(4.0) == 2
    assert "micros" in optsde.explain(base, optsde.scale(base, 4))
