"""dynamics.sphere: the SDE of direction and size, closed forms and the discrete run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optsde
from optsde import gradients, measure
from optsde.dynamics.sphere import gamma_at, sphere
from optsde.problems import sphere as toy
from optsde.run import Engine

KEYS = jax.random.split(jax.random.key(7), 512)


def plan_of(lr, intrinsic_lr, **options):
    optimizer = optsde.SGD(lr=lr, weight_decay=intrinsic_lr / lr)
    return optsde.Plan(optimizer=optimizer, batch_size=1, horizon=1, **options)


def both(plan, largest, start, substeps=2, **options):
    """(discrete dynamics, SDE) of the loss on the sphere, from one point."""
    loss = toy.loss_of(toy.curvatures(len(start), largest))
    noise = toy.tangent_noise()
    law = gradients.from_covariance(loss, noise)
    sampler = gradients.gaussian(loss, noise)
    discrete = optsde.discrete(plan, sampler, start)
    return discrete, sphere(plan, law, start, substeps, **options)


def test_size_relaxes_as_its_closed_form_says():
    """γ's own noise is none, so one path is enough; Euler's error is of order h λ_e."""
    plan, start = plan_of(0.5, 0.01), jnp.array([3.0, 0.0, 0.0, 1.0])
    errors = []
    for substeps in (1, 4):
        _, law = both(plan, 1.0, start, substeps)
        engine = Engine(law, 1)
        state = engine.init(KEYS[:1])
        np.testing.assert_allclose(state.gamma, 400, rtol=1e-5)
        state, _ = engine.advance(state, (), 25 * substeps)
        expected = gamma_at(25, 400.0, 3.0, 0.01)
        errors.append(abs(float(state.gamma[0]) / expected - 1))
        np.testing.assert_allclose(state.time, 25)
    assert errors[0] < 0.01
    assert errors[1] < 0.3 * errors[0]


def test_brownian_direction_forgets_at_the_intrinsic_lr():
    """At equilibrium E⟨w̄_t, w̄_0⟩ = e^(−λ_e t), for SDE and run; 512 paths, 4 s.e."""
    plan, dimension = plan_of(0.5, 0.02), 20
    size = (0.5**2 * (dimension - 1) / 0.04) ** 0.25
    start = jnp.zeros(dimension).at[0].set(size)
    discrete, law = both(plan, 0.0, start)
    for dynamics, read in (
        (law, lambda s: s.direction[0]),
        (discrete, lambda s: s.params[0] / jnp.linalg.norm(s.params)),
    ):
        seen = optsde.ensemble(dynamics, KEYS, [25], read).values[:, 0]
        error = seen.std() / np.sqrt(len(seen))
        assert error < 0.012
        assert abs(seen.mean() - np.exp(-0.02 * 25)) < 4 * error


def test_direction_at_equilibrium_has_gibbs_law():
    """d = 3: density e^(−2√γ L) on the sphere, L = ½ h z², an integral over z.

    512 paths at 16 times; the bound is 4 standard errors over paths, and they are
    small enough to tell it from the law without loss, where E z² = ⅓.
    """
    intrinsic_lr, h = 0.01, 0.4
    gamma = 1 / intrinsic_lr  # of Tr Σ̄ = 2
    z = np.linspace(-1, 1, 20001)
    weight = np.exp(-np.sqrt(gamma) * h * z**2)
    expected = np.sum(weight * z**2) / np.sum(weight)
    plan = plan_of(0.1, intrinsic_lr)
    loss = toy.loss_of(jnp.array([0.0, 0.0, h]))
    law = gradients.from_covariance(loss, toy.tangent_noise())
    start = jnp.full(3, (0.1**2 * gamma) ** 0.25 / np.sqrt(3))
    dynamics = sphere(plan, law, start, substeps=2)
    times = np.arange(300, 1100, 50)
    seen = optsde.ensemble(dynamics, KEYS, times, lambda s: s.direction[2] ** 2).values
    paths = seen.mean(axis=1)
    error = paths.std() / np.sqrt(len(paths))
    assert abs(paths.mean() - expected) < 4 * error
    assert expected + 20 * error < 1 / 3


@pytest.mark.parametrize(("lr", "size"), [(0.1, 3.0), (0.1, 1.4)])
def test_the_run_follows_the_sde(lr, size):
    """Effective lr within 1% at every time, loss within 4 s.e. and s.e. below 2.5%.

    From above and from below the equilibrium's norm 1.77, with the terms of finite
    steps.
    """
    plan, dimension = plan_of(lr, 0.01), 20
    start = jnp.full(dimension, size / np.sqrt(dimension))
    discrete, law = both(plan, 1.0, start, keep_signal=True)
    loss = toy.loss_of(toy.curvatures(dimension, 1.0))
    times = [10, 30, 100, 300]

    def of_run(state):
        return lr / jnp.sum(state.params**2), loss(state.params)

    def of_sde(state):
        return state.gamma**-0.5, loss(state.direction)

    run = optsde.ensemble(discrete, KEYS, times, of_run).values
    flow = optsde.ensemble(law, KEYS, times, of_sde).values
    np.testing.assert_allclose(run[0].mean(0), flow[0].mean(0), rtol=0.01)
    error = np.sqrt((run[1].var(0) + flow[1].var(0)) / len(KEYS))
    assert np.all(error < 0.025 * flow[1].mean(0))
    assert np.all(np.abs(run[1].mean(0) - flow[1].mean(0)) < 4 * error)
    still = measure.intrinsic_rates(plan.optimizer).intrinsic
    np.testing.assert_allclose(
        run[0][:, -1].mean(), np.sqrt(2 * still / (dimension - 1)), rtol=0.01
    )


def test_settings_that_it_has_not_are_refused():
    start = jnp.ones(3)
    with pytest.raises(
        ValueError, match="schedule, boost, before, clip and average must be"
    ):
        both(plan_of(0.1, 0.01, clip=1.0), 1.0, start)
    with pytest.raises(ValueError, match="substeps=0: needs a whole number from 1"):
        both(plan_of(0.1, 0.01), 1.0, start, substeps=0)
