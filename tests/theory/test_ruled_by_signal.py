"""Runs that the signal rules: where √κ fails, and what keeps the run instead.

The noisy quadratic with Adam at lr .01, b1 = .98, b2 = .99 for 200 steps, noise σ of a
batch of one. Errors are the largest of five θ-moments against the base run's.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import sized
from helpers.quadratic import (
    THETA0,
    estimate,
    exponential,
    largest_error,
    plan,
    run,
    run_sde,
    sampler,
)

import optsde
from optsde import measure
from optsde.gradients import diagonal, gaussian
from optsde.problems.quadratic import (
    quadratic_loss,
    quadratic_std,
    second_order_moments,
)

HYPER = dict(lr=0.01, b1=0.98, b2=0.99)
HORIZON = 200.0


def base_of(optimizer):
    return plan(optimizer(**HYPER), HORIZON)


@pytest.mark.parametrize(
    ("sigma", "root"), [(0.5, 0.5), pytest.param(2.0, 0.15, marks=pytest.mark.full)]
)
@pytest.mark.parametrize("paths", sized(2_000, 20_000))
def test_micro_batches_keep_the_run_at_any_noise(sigma, root, paths):
    """κ = 8. Bounds, stated beforehand: .01, half of the rule's own error where noise
    rules (test_scaling_rules: .03 at κ = 16), and 4 standard errors; the √κ rule is
    off by more than `root`."""
    base = run(base_of(optsde.Adam), sigma, paths, 0)
    errors = {}
    for optimizer in (optsde.Adam, optsde.InvariantAdam):
        big = optsde.scale(base_of(optimizer), 8, memory="power")
        errors[optimizer] = largest_error(run(big, sigma, paths, 1), base)
    error, se = errors[optsde.InvariantAdam]
    assert error < 0.01 + 4 * se
    error, se = errors[optsde.Adam]
    assert error > root + 4 * se


@pytest.mark.parametrize("paths", sized(4_000, 40_000))
def test_svag_approaches_the_sde_of_micro_batches(paths):
    """Skewed noise, a batch of two micro-batches, bias correction still at work.

    Bound, stated beforehand: SVAG(8) is off by at most a quarter of what the plain run
    is, where order 1/ℓ makes it an eighth; and 4 standard errors.
    """
    optimizer = optsde.InvariantAdam(lr=0.1, b1=0.5, b2=0.8, eps=0.1, micros=2)
    base = optsde.Plan(optimizer=optimizer, batch_size=2, horizon=12.0)
    reference = run_sde(base, 0.5**0.5, paths, 0, 32)
    (plain, plain_se), (fine, se) = (
        largest_error(
            run(optsde.svag(base, ell), 1.0, paths, ell, sample=exponential), reference
        )
        for ell in (1, 8)
    )
    assert fine < plain / 4 + 4 * se
    assert plain > fine + 4 * np.hypot(se, plain_se)


@pytest.mark.parametrize(
    ("optimizer", "sigma", "kappa"),
    [
        (optsde.Adam(**HYPER), 0.5, 8),
        pytest.param(optsde.Adam(**HYPER), 1.0, 4, marks=pytest.mark.full),
        pytest.param(
            optsde.RMSprop(lr=0.01, beta=0.99), 0.5, 8, marks=pytest.mark.full
        ),
    ],
)
@pytest.mark.parametrize("paths", sized(2_000, 20_000))
def test_the_signal_rule_keeps_most_of_the_run(optimizer, sigma, kappa, paths):
    """G/N is 1 at the start. Bound, stated beforehand: a fifth of what √κ is off by,
    and 4 standard errors; it cannot be exact, since the two coordinates share a boost.
    """
    base, times = plan(optimizer, HORIZON), np.arange(5.0, HORIZON + 1, 5.0)
    probe = measure.noise_probe(
        base, sampler(sigma), 128, times=times, kappas=(1, kappa)
    )
    keys = jax.random.split(jax.random.key(7), 32)
    dynamics = optsde.discrete(base, sampler(sigma), THETA0)
    noises = optsde.fit(dynamics, keys, HORIZON, probes=[probe]).metrics["noise"].values
    boost = measure.signal_boost(base, noises, times, kappa)
    reference = run(base, sigma, paths, 0)
    root, signal = (
        largest_error(
            run(optsde.scale(base, kappa, memory="power", **rule), sigma, paths, 1),
            reference,
        )
        for rule in ({}, dict(rule="signal", boost=boost))
    )
    assert root[0] > 0.1
    assert signal[0] < root[0] / 5 + 4 * np.hypot(signal[1], root[1] / 5)


def test_with_a_boost_for_each_coordinate_next_to_nothing_is_left():
    """As above for Adam at κ = 8, with each of the two coordinates a leaf of its own.

    Bound, stated beforehand: a tenth of what √κ is off by, and 4 standard errors.
    """
    kappa, sigma, paths = 8, 0.5, 2_000
    base, times = plan(optsde.Adam(**HYPER), HORIZON), np.arange(5.0, HORIZON + 1, 5.0)
    leaves = gaussian(
        lambda parts: quadratic_loss(jnp.stack(parts)),
        diagonal(lambda parts: tuple(sigma * quadratic_std(jnp.stack(parts)))),
    )
    start = tuple(THETA0)
    probe = measure.noise_probe(base, leaves, 128, times=times, kappas=(1, kappa))
    dynamics = optsde.discrete(base, leaves, start)
    keys = jax.random.split(jax.random.key(7), 32)
    noises = optsde.fit(dynamics, keys, HORIZON, probes=[probe]).metrics["noise"].values

    def moments(plan, seed):
        return estimate(
            optsde.discrete(plan, leaves, start),
            HORIZON,
            paths,
            seed,
            lambda state: second_order_moments(jnp.stack(state.params)),
        )

    reference = moments(base, 0)
    errors = {}
    for by_leaf in (None, False, True):
        rule = {}
        if by_leaf is not None:
            boost = measure.signal_boost(base, noises, times, kappa, by_leaf)
            rule = dict(rule="signal", boost=boost)
        big = optsde.scale(base, kappa, memory="power", **rule)
        errors[by_leaf] = largest_error(moments(big, 1), reference)
    root, (error, se) = errors[None], errors[True]
    assert error < root[0] / 10 + 4 * np.hypot(se, root[1] / 10)
    assert error < errors[False][0]
