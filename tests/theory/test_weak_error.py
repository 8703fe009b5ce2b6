"""Weak errors of adaptive methods on the noisy quadratic, against published figures.

Figures: independent simulations with 10⁶ paths (standard errors of the SDE ≤ .0025, of
errors about .003). Bound of every comparison, stated beforehand: 4 × the joint standard
error, and .001 for the rounding of the figures. Seeds are those of the calls.

In small: a twentieth of the paths, the two coarsest steps of each series, no slopes.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import sized
from helpers.quadratic import (
    THETA0,
    adam,
    covariance,
    estimate,
    exponential,
    largest_error,
    plan,
    rmsprop,
    run,
    run_sde,
    sampler,
)

import optsde
from experiments.svag.quadratic import observer, warm_start
from optsde import analysis
from optsde.analysis import Estimate, log_slope
from optsde.gradients import from_covariance
from optsde.problems.quadratic import START, quadratic_loss, second_order_moments

FIGURE_SE = 0.003
ETAS, ELLS = (0.5, 0.25, 0.125), (1, 2, 4)
RMSPROP_SDE = np.array([0.662, -0.709, 1.306, 1.116, -0.821, 2.157, 0.641])
ADAM_WARM_SDE = np.array([0.623, -0.727, 1.108, 1.108, -0.720, 2.064, 0.550])
ADAM_SDE = np.array([0.626, -0.699, 1.334, 1.335, -0.898, 2.162, 0.540])


def close(ours: float, figure: float, se: float) -> bool:
    return abs(ours - figure) < 4 * np.hypot(se, FIGURE_SE) + 1e-3


class Size(NamedTuple):
    paths: int
    points: int | None  # of each series; None: all

    def assert_figures(self, errors, figures):
        for (error, se), figure in zip(errors, self.of(figures), strict=True):
            assert close(error, figure, se), (error, se, figure)

    def assert_slope_one(self, steps, errors):
        """log error against log step: 1 ± .25, as a value, with its interval shown."""
        if self.points is None:
            mean, se = np.array(errors).T
            slope = log_slope(steps, Estimate(mean, se, np.inf))
            assert 0.75 < slope.value < 1.25, slope

    def of(self, series):
        return series[: self.points]


SIZES = sized(Size(10_000, 2), Size(200_000, None))
AT_FULL_SIZE = pytest.mark.parametrize("size", SIZES[1:], indirect=True)


@pytest.fixture(params=SIZES)
def size(request):
    return request.param


@functools.cache
def rmsprop_sde(paths) -> Estimate:
    base = plan(rmsprop(0.5), 8.0)
    return run_sde(base, 2.0, paths, 0, 64, observer(0.25))


def test_rmsprop_sde(size):
    ours = rmsprop_sde(size.paths)
    z = (ours.mean - RMSPROP_SDE) / np.hypot(ours.se, 0.0025)
    assert np.abs(z).max() < 4


def test_rmsprop_approaches_its_sde_with_the_square_of_the_step(size):
    def error(eta, **options):
        base = plan(rmsprop(eta, **options), 2 / eta**2)
        found = run(base, 1 / eta, size.paths, 1, observer(eta**2))
        return largest_error(found, rmsprop_sde(size.paths))

    errors = [error(eta, lagged=True) for eta in size.of(ETAS)]
    size.assert_figures(errors, (0.416, 0.086, 0.021))
    size.assert_slope_one(np.square(ETAS), errors)
    current, se = error(0.125)  # the order of v is immaterial to first order
    assert current < 0.03 + (4 * se if size.points else 0)


@pytest.mark.parametrize(
    ("noise", "figures"),
    [
        ("normal", (0.422, 0.084, 0.020, 0.006)),
        ("skewed", (0.558, 0.104, 0.025, 0.008)),
    ],
)
def test_svag_of_rmsprop_falls_as_one_over_ell_squared(noise, figures, size):
    """Skewed noise too: the mix of two draws takes the skewness away."""
    options = {"sample": exponential} if noise == "skewed" else {}
    errors = []
    for ell in size.of((1, 2, 4, 8)):
        fine = optsde.svag(plan(rmsprop(0.5, lagged=True), 8.0), ell)
        observe = observer(0.25 / ell**2)
        found = run(fine, 2.0, size.paths, 2, observe, **options)
        errors.append(largest_error(found, rmsprop_sde(size.paths)))
    size.assert_figures(errors, figures)
    size.assert_slope_one([1, 1 / 4, 1 / 16], errors[:3])


def test_skewed_noise_costs_an_order_without_svag(size):
    """θ1 alone: .380/.144/.056 for skewed noise, .112/.024/.0056 for Gaussian."""
    for sample, figures in (
        ({"sample": exponential}, (0.380, 0.144, 0.056)),
        ({}, (0.112, 0.024, 0.0056)),
    ):
        for eta, figure in zip(size.of(ETAS), size.of(figures), strict=True):
            base = plan(rmsprop(eta, lagged=True), 2 / eta**2)
            found = run(base, 1 / eta, size.paths, 3, **sample)
            error = abs(found.mean[0] - RMSPROP_SDE[0])
            assert close(error, figure, found.se[0]), (eta, error, figure)


def test_keeping_the_signal_explains_most_of_the_bias_of_v(size):
    """η = .25: E u1 is 2.243 for the run, 2.157 for the SDE, 2.216 with the term."""
    base = plan(rmsprop(0.25, lagged=True), 32.0)
    observe = observer(1 / 16)
    discrete = run(base, 4.0, size.paths, 4, observe)
    sde = run_sde(base, 4.0, size.paths, 5, 16, observe)
    kept = run_sde(base, 4.0, size.paths, 6, 16, observe, keep_signal=True)
    for ours, figure in ((discrete, 2.243), (sde, 2.157), (kept, 2.216)):
        assert close(ours.mean[5], figure, ours.se[5]), (ours.mean[5], figure)


def adam_errors(size, reference, is_warm, seed):
    """Errors of θ-moments for η and for SVAG from η = .5."""
    theta = jnp.asarray(START, jnp.float32)
    base = plan(adam(0.5), 8.0)
    law = from_covariance(quadratic_loss, covariance(2.0))
    sde = optsde.sde(base, law, theta, 64)
    sde = warm_start(sde, 0.25) if is_warm else sde
    ours = estimate(sde, 8.0, size.paths, seed, observer(0.25))
    z = (ours.mean - reference) / np.hypot(ours.se, 0.0025)
    sde_moments = Estimate(ours.mean[:5], ours.se[:5], ours.dof)

    def error(plan, sigma, scale):
        dynamics = optsde.discrete(plan, sampler(sigma), theta)
        dynamics = warm_start(dynamics, scale) if is_warm else dynamics
        end = plan.steps * plan.dt
        found = estimate(dynamics, end, size.paths, seed + 1)
        return largest_error(found, sde_moments)

    plain = [error(plan(adam(e), 2 / e**2), 1 / e, e**2) for e in size.of(ETAS)]
    ells = size.of(ELLS)
    mixed = [error(optsde.svag(base, ell), 2.0, 0.25 / ell**2) for ell in ells]
    return z, plain, mixed


def test_adam_from_a_warm_start(size):
    z, plain, mixed = adam_errors(size, ADAM_WARM_SDE, True, 10)
    assert np.abs(z).max() < 4
    size.assert_figures(plain, (0.104, 0.018, 0.0044))
    size.assert_figures(mixed, (0.102, 0.018, 0.0035))
    size.assert_slope_one(np.square(ETAS), plain)
    size.assert_slope_one(1 / np.square(ELLS), mixed)


def test_adam_from_scratch_converges_more_slowly(size):
    """η² log η, since the weights start from zero: the slope stays below one."""
    z, plain, mixed = adam_errors(size, ADAM_SDE, False, 20)
    assert np.abs(z).max() < 4
    size.assert_figures(plain, (0.114, 0.048, 0.018))
    size.assert_figures(mixed, (0.113, 0.046, 0.018))


@AT_FULL_SIZE
def test_adagrad_approaches_its_sde_in_both_ways(size):
    """lr 1, ε0 = .1, u0 = .5, with u = s/σ⁴ among the moments; T = 2 in units of σ².

    In small: each finer step is nearer to the SDE, by 4 standard errors.
    """

    def base(sigma):
        optimizer = optsde.AdaGrad(lr=1.0, eps=0.1 * sigma**2, s0=0.5 * sigma**4)
        return plan(optimizer, 2 * sigma**2)

    sde = run_sde(base(2.0), 2.0, size.paths, 30, 64, observer(1 / 16, "s"))

    def error(plan, sigma, seed, scale):
        found = run(plan, sigma, size.paths, seed, observer(scale, "s"))
        return largest_error(found, sde)

    plain = [error(base(s), s, 31, s**-4) for s in size.of((2.0, 4.0, 8.0))]
    mixed = [
        error(optsde.svag(base(2.0), ell), 2.0, 32, 1 / 16 / ell**4)
        for ell in size.of(ELLS)
    ]
    for errors in (plain, mixed):
        size.assert_slope_one([1, 1 / 4, 1 / 16], errors)
        (coarse, se), (fine, other) = errors[:2]
        assert coarse > fine + 4 * np.hypot(se, other)


@AT_FULL_SIZE
def test_sign_descent_follows_both_forms_of_its_sde(size):
    """η = 1/16, σ = 16: linear and erf drift within .008; erf at κ = 16 within .02."""
    for kappa, bound in ((16, 0.02), (1, 0.008)):
        optimizer = optsde.SignSGD(lr=1 / 16).rescaled(kappa)
        base, sigma = plan(optimizer, 512 / kappa), 16 / kappa**0.5
        found = run(base, sigma, size.paths, 40)
        kept = run_sde(base, sigma, size.paths, 41, 2, keep_signal=True)
        error, se = largest_error(found, kept)
        assert error < bound + 4 * se
        if kappa == 1:
            error, se = largest_error(found, run_sde(base, sigma, size.paths, 42, 2))
            assert error < bound + 4 * se


@AT_FULL_SIZE
@pytest.mark.parametrize(
    ("b1", "b2"), [(0.9, 0.99), pytest.param(0.5, 0.9, marks=pytest.mark.full)]
)
def test_lion_keeps_the_signal(b1, b2, size):
    """σ = ½ at lr = .1: first moments of the base run at t = 16, within .02 + 4 s.e.

    The limit κ → 0, where the sign is not saturated, is further off by 4 s.e. at least.
    """
    base = plan(optsde.Lion(lr=0.1, b1=b1, b2=b2), 16.0)
    found = run(base, 0.5, size.paths, 50)

    def error(keep_signal):
        sde = run_sde(base, 0.5, size.paths, 51, 16, keep_signal=keep_signal)
        mean, se = np.abs(found.mean - sde.mean)[:2], np.hypot(found.se, sde.se)[:2]
        return mean.max(), se.max()

    (kept, se), (gone, other) = error(True), error(False)
    assert kept < 0.02 + 4 * se
    assert gone > kept + 4 * np.hypot(se, other)


def laplace(key, shape, dtype):
    """Of variance 1."""
    return jax.random.laplace(key, shape, dtype) / 2**0.5


@pytest.mark.parametrize(
    ("sample", "ratio"),
    [(jax.random.normal, 1.0), (laplace, np.sqrt(np.pi / 2))],
)
@AT_FULL_SIZE
@pytest.mark.parametrize(
    "optimizer", [optsde.SignSGD(lr=0.05), optsde.Lion(lr=0.05)], ids=["sign", "lion"]
)
def test_svag_of_signs_has_the_density_of_the_mix(optimizer, sample, ratio, size):
    """How far θ1 moves to t = 8 under SVAG(8), in units of the SDE: within 5% + 4 s.e.

    A sign's drift is 2p(0)·∇f/σ. Normal numbers have p(0) = 1/√(2π). A mix of gain c is
    near to a difference of two draws, (z − z′)·√(c/2): for Laplace's p(0) = ½.
    """
    base = plan(optimizer, 8.0)
    found = run(optsde.svag(base, 8), 1.0, size.paths, 60, sample=sample)
    limit = run_sde(base, 1.0, size.paths, 61, 16)
    moved = (found.mean[0] - START[0]) / (limit.mean[0] - START[0])
    se = np.hypot(found.se[0], ratio * limit.se[0]) / abs(limit.mean[0] - START[0])
    assert abs(moved / ratio - 1) < 0.05 + 4 * se / ratio


@pytest.mark.parametrize(
    ("optimizer", "sigma", "paths", "share"),
    [
        (optsde.SGD(lr=0.25), 1.0, 20_000, 0.5),
        (rmsprop(0.5), 2.0, 20_000, 0.5),
        (adam(0.5), 2.0, 20_000, 1.0),
    ],
    ids=["sgd", "rmsprop", "adam"],
)
@pytest.mark.full
def test_two_step_sizes_are_nearer_than_a_finer_one(optimizer, sigma, paths, share):
    """2·X_{1/2} − X_1, three steps of work, against four: all on the paths of 32.

    Bound: half of the error of four (all of it for Adam from nothing, whose start is
    not smooth), and 4 standard errors. Without extrapolation the error halves with the
    step, 2 ± .5, and that of X_{1/2} is beyond the bound where that is half.
    """
    base, finest = plan(optimizer, 8.0), 32
    law = from_covariance(quadratic_loss, covariance(sigma))
    keys = jax.random.split(jax.random.key(50), paths)
    moments = {}
    for n in (1, 2, 4, finest):
        sde = optsde.sde(base, law, THETA0, n, parts=finest // n)
        observe = lambda state: second_order_moments(state.params)  # noqa: E731
        moments[n] = optsde.ensemble(sde, keys, [8], observe).values[:, 0]

    def error(values):
        x = analysis.estimate(values - moments[finest])
        worst = int(np.abs(x.mean).argmax())
        return abs(x.mean[worst]), x.se[worst]

    one, two, four = (error(moments[n])[0] for n in (1, 2, 4))
    limit, se = error(2 * moments[2] - moments[1])
    assert limit < share * four + 4 * se, (limit, four, se)
    if share < 1:
        assert 1.5 < one / two < 2.5
        assert two > share * four + 4 * se
