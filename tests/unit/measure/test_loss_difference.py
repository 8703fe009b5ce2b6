"""loss_difference() on made measurements, where lag and noise have closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

import optsde
from optsde.analysis import Estimate
from optsde.measure import Difference, loss_difference
from optsde.measure.noise import Counts, Descent, Noise, Products

TIMES = np.arange(1.0, 101.0)
KNOWN = np.arange(0.0, 101.0)
REPLICAS = 3


def measured(speed, signal=0.0, kappas=(1, 4)):
    """Noise 1, this signal, and at κ this speed along the run: in all replicas."""
    shape = REPLICAS, len(TIMES)
    ones = np.ones(shape)
    products = Products(
        means={"w": jnp.asarray(signal * np.ones((*shape, 4, 4)))},
        squares={"w": jnp.asarray((1 + signal) * np.ones((*shape, 4)))},
    )
    slowed = np.stack([ones, speed * ones], axis=-1)
    return Noise(
        plain=products,
        weighted=products,
        counts=Counts({"w": ones}, {"w": slowed}),
        descent=Descent({"w": jnp.asarray(ones)}, {"w": jnp.asarray(slowed)}),
        kappas=kappas,
    )


def plan(optimizer, schedule=None):
    return optsde.Plan(
        optimizer=optimizer, batch_size=1, horizon=100, schedule=schedule
    )


def difference(plan, noises, losses, at=(80.0,), times=TIMES):
    curve = KNOWN, np.tile(losses, (REPLICAS, 1))
    return loss_difference(plan, noises, times, curve, at)


def test_the_run_at_kappa_is_the_base_run_at_an_earlier_time():
    """L = e^{−t/20} at speed ¾: L(60) at t = 80, of every replica."""
    found = difference(
        plan(optsde.RMSprop(lr=1e-9, beta=0.0)), measured(0.75), np.exp(-KNOWN / 20)
    )
    np.testing.assert_allclose(found.total.mean, 100 * (np.e - 1), rtol=1e-4)
    np.testing.assert_allclose(found.total.se, 0, atol=1e-6)
    np.testing.assert_allclose(found.kept.mean, 0, atol=1e-6)
    assert found.kappas == (4,)


def test_a_speed_that_changes_is_integrated():
    """s = ½ + t/2000: t = ∫dτ/s = 2000 ln(1 + τ/1000)."""
    found = difference(
        plan(optsde.RMSprop(lr=1e-9, beta=0.0)),
        measured(0.5 + TIMES / 2000),
        np.exp(-KNOWN / 20),
    )
    then = 1000 * (np.exp(80 / 2000) - 1)
    np.testing.assert_allclose(
        found.lag.mean, 100 * (np.exp((80 - then) / 20) - 1), rtol=0.01
    )


def test_time_is_what_the_schedule_makes_of_it():
    """Where lr falls to a tenth, at t = 40, the lag of 20 is made up at a tenth."""
    milestones = optsde.schedules.milestones([40.0])
    clock = np.where(KNOWN < 40, KNOWN, 40 + (KNOWN - 40) / 10)
    found = difference(
        plan(optsde.RMSprop(lr=1e-9, beta=0.0), milestones),
        measured(0.75),
        np.exp(-clock / 20),
    )
    then = 0.75 * (40 + 40 / 10)
    expected = 100 * (np.exp((44 - then) / 20) - 1)
    np.testing.assert_allclose(found.lag.mean, expected, rtol=5e-3)


def test_adagrad_remembers_the_signal_of_all_the_run():
    """Speed ½ at κ = 4 up to t = 10.5 and then 1: (1 + 3)^-½, then (1 + 31.5/t)^-½."""
    speed = np.where(TIMES <= 10, 0.5, 1.0)
    adagrad = plan(optsde.AdaGrad(lr=1e-9))
    found = difference(adagrad, measured(speed), np.exp(-KNOWN / 20))
    forgets = plan(optsde.RMSprop(lr=1e-9, beta=0.0))
    other = difference(forgets, measured(speed), np.exp(-KNOWN / 20))
    fine = np.linspace(0, 100, 100_001)
    slower = (1 + 3 * np.minimum(1, 10.5 / np.maximum(fine, 1))) ** -0.5
    when = np.concatenate([[0], np.cumsum(1 / slower[:-1]) * np.diff(fine)])
    then = np.interp(80, when, fine)
    expected = 100 * (np.exp((80 - then) / 20) - 1)
    np.testing.assert_allclose(found.lag.mean, expected, rtol=0.01)
    assert found.lag.mean > 1.5 * other.lag.mean
    assert (found.kept.mean == 0).all()


def test_v_remembers_the_signal_for_its_memory():
    """A memory of 20 steps: after t = 10 the share falls as e^{−t/20}, debiased."""
    speed = np.where(TIMES <= 10, 0.5, 1.0)
    adam = plan(optsde.Adam(lr=1e-9, b1=0.0, b2=0.95))
    found = difference(adam, measured(speed), np.exp(-KNOWN / 20))
    fine = np.linspace(0, 100, 100_001)
    past = np.exp(-np.maximum(fine - 10.5, 0) / 20) - np.exp(-fine / 20)
    share = np.where(fine <= 10.5, 1, past / np.maximum(1 - np.exp(-fine / 20), 1e-9))
    slower = (1 + 3 * share) ** -0.5
    when = np.concatenate([[0], np.cumsum(1 / slower[:-1]) * np.diff(fine)])
    expected = 100 * (np.exp((80 - np.interp(80, when, fine)) / 20) - 1)
    np.testing.assert_allclose(found.lag.mean, expected, rtol=0.02)


def test_what_noise_keeps_up_of_sgd():
    """lr/4·N·((1 − ρ)/(1 − κρ) − 1), with G/N = ρ/(1 − ρ), in % of a loss of 2."""
    rho, lr = 0.05, 0.1
    noises = measured(0.2, signal=rho / (1 - rho))
    found = difference(plan(optsde.SGD(lr=lr)), noises, np.full(101, 2.0), (60, 80))
    expected = 100 * lr / 4 * ((1 - rho) / (1 - 4 * rho) - 1) / 2
    np.testing.assert_allclose(found.total.mean, expected, rtol=1e-4)
    assert (found.lag.mean == 0).all()


def test_it_says_what_it_leaves_out():
    def cautions(optimizer):
        noises = measured(1.0, signal=0.01)
        return difference(plan(optimizer), noises, np.ones(101)).cautions

    for decay in (dict(weight_decay=0.1), dict(absolute_decay=0.1)):
        (caution,) = cautions(optsde.Adam(lr=1e-3, **decay))
        assert "weights decay as fast as before" in caution
    (caution,) = cautions(optsde.AdaGrad(lr=1e-3))
    assert "what noise keeps up is not told" in caution
    assert cautions(optsde.Adam(lr=1e-3, l2=0.1)) == ()
    assert cautions(optsde.SGD(lr=1e-3, weight_decay=0.1)) == ()


def test_the_limit_is_where_the_bound_is_passed():
    def found(mean, se=0.0):
        total = Estimate(np.array(mean), np.full(2, se), np.full(2, np.inf))
        return Difference((4, 16), total, total, total, ())

    linear = found([0.3, 1.5]).limit(5.0)
    np.testing.assert_allclose(linear, 51, rtol=0.05)
    np.testing.assert_allclose(found([-6.0, 1.0]).limit(5.0).value, 3.5, rtol=0.05)
    value, low, high = found([0.3, 1.5], 1.0).limit(5.0)
    assert low < value < high == np.inf
    text = str(found([0.3, 1.5], 1.0))
    assert "slower descent" in text
    assert "+1.50 [-0.46, +3.46]" in text


def test_what_cannot_be_told_is_refused():
    adam, losses = plan(optsde.Adam()), np.ones(101)
    with pytest.raises(ValueError, match="needs some above 1"):
        difference(adam, measured(1.0, kappas=(1, 1)), losses)
    with pytest.raises(ValueError, match="needs all of one ensemble"):
        difference(adam, measured(1.0), losses, times=TIMES[1:])
    with pytest.raises(ValueError, match="needs a curve from time 0"):
        difference(adam, measured(1.0), losses, at=(101.0,))


def test_steps_too_long_for_any_equilibrium_are_said_to_be():
    """SGD at G/N = ½ and κ = 16 is beyond its threshold."""
    noises = measured(1.0, signal=0.5, kappas=(1, 16))
    found = difference(plan(optsde.SGD(lr=0.1)), noises, np.ones_like(KNOWN))
    assert np.isinf(found.total.mean[0])
    assert str(found).count("no equilibrium") == 2
    assert "nan" not in str(found)
