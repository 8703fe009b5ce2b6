"""The noisy quadratic of the theory tests, as plans.

f = ½ θᵀAθ in two dimensions, noise diag(1, ¼)(1 + ½|θ|²)·σ², time measured in η². One
batch of size 1 has σ = σ0/η, so that a rescaling by κ and another η are the same thing.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from optsde import analysis
from optsde.analysis import Estimate
from optsde.gradients import diagonal, from_covariance, gaussian
from optsde.problems.quadratic import (
    START,
    quadratic_loss,
    quadratic_std,
    second_order_moments,
)

THETA0 = jnp.asarray(START, jnp.float32)


def rmsprop(eta: float, sigma0=1.0, eps0=0.1, c2=1.0, **options) -> optsde.RMSprop:
    """The analysed form, with u0 = v0/σ² = 1."""
    sigma = sigma0 / eta
    options = {"v0": sigma**2, "bias_correction": False} | options
    beta = 1 - c2 * eta**2
    return optsde.RMSprop(lr=eta, beta=beta, eps=eps0 / eta, **options)


def adam(eta: float, eps0=0.1, c1=3.0, c2=1.0, **options) -> optsde.Adam:
    b1, b2 = 1 - c1 * eta**2, 1 - c2 * eta**2
    return optsde.Adam(lr=eta, b1=b1, b2=b2, eps=eps0 / eta, **options)


def plan(optimizer, horizon: float, **options) -> optsde.Plan:
    return optsde.Plan(optimizer=optimizer, batch_size=1, horizon=horizon, **options)


def covariance(sigma: float):
    return diagonal(lambda theta: sigma * quadratic_std(theta))


def sampler(sigma: float, sample=jax.random.normal):
    """Gradients with noise σ² at batch 1."""
    return gaussian(quadratic_loss, covariance(sigma), sample)


def exponential(key, shape, dtype):
    """Centred exponential: skewed, of variance 1."""
    return jax.random.exponential(key, shape, dtype) - 1


def run(plan, sigma, paths, seed, observe=None, sample=jax.random.normal, **options):
    """Moments at the horizon, for the discrete algorithm."""
    dynamics = optsde.discrete(plan, sampler(sigma, sample), THETA0)
    end = plan.steps * plan.dt
    return estimate(dynamics, end, paths, seed, observe, **options)


def run_all(plans, sigma, paths, seed, observe=None) -> list[Estimate]:
    """Moments of plans that differ in their optimizer's numbers only, as one ensemble.

    Each of them has the same paths, and one program serves them all.
    """

    def dynamics(optimizer):
        plan = dataclasses.replace(plans[0], optimizer=optimizer)
        return optsde.discrete(plan, sampler(sigma), THETA0)

    observe = observe or (lambda state: second_order_moments(state.params))
    keys = jax.random.split(jax.random.key(seed), paths)
    members = jax.tree.map(
        lambda *x: jnp.repeat(jnp.array(x, jnp.float32), paths),
        *(plan.optimizer for plan in plans),
    )
    end = plans[0].steps * plans[0].dt
    tiled = jnp.tile(keys, len(plans))
    run = optsde.ensemble(dynamics, tiled, [end], observe, members=members)
    return [analysis.estimate(x[:, 0]) for x in np.split(run.values, len(plans))]


def run_sde(plan, sigma, paths, seed, substeps, observe=None, **options):
    """Moments at the horizon, for the SDE; `options` are those of `optsde.sde`."""
    law = from_covariance(quadratic_loss, covariance(sigma))
    dynamics = optsde.sde(plan, law, THETA0, substeps, **options)
    return estimate(dynamics, plan.horizon, paths, seed, observe)


def estimate(dynamics, end, paths, seed, observe=None, **options) -> Estimate:
    observe = observe or (lambda state: second_order_moments(state.params))
    keys = jax.random.split(jax.random.key(seed), paths)
    values = optsde.ensemble(dynamics, keys, [end], observe, **options).values
    return analysis.estimate(values[:, 0])


def largest_error(a: Estimate, b: Estimate) -> tuple[float, float]:
    """The largest difference of moments, and its own standard error."""
    error = a - b
    worst = int(np.abs(error.mean).argmax())
    return float(abs(error.mean[worst])), float(error.se[worst])
