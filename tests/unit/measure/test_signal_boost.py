"""The boost of the signal rule: v's average over the past, weights, and refusals."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optsde
from optsde import measure
from optsde.gradients import FunctionOracle

TIMES = np.linspace(0.05, 200, 4000)


class Descent(NamedTuple):
    base: np.ndarray  # [replicas, times]
    slowed: np.ndarray  # [replicas, times, kappas]


class Measured:
    """A stand-in for `measure.Noise` of known speeds at κ = 4, of three replicas."""

    kappas = 1, 4

    def __init__(self, speed):
        size = np.array([1.0, 2.0, 3.0])[:, None] + 0 * speed
        slowed = np.stack([size, size * speed], axis=-1)
        self.descent = Descent(size, slowed)


def plan(optimizer=None):
    optimizer = optimizer or optsde.Adam(b2=0.98)
    return optsde.Plan(optimizer=optimizer, batch_size=4, horizon=200)


def test_the_boost_is_what_v_remembers():
    """s⁻² − 1 = t/100: its average with weights e^(−age/50), in closed form."""
    seen = Measured((1 + TIMES / 100) ** -0.5)
    boost = measure.signal_boost(plan(), seen, TIMES, 4)
    for t in (10.0, 60.0, 200.0):
        fresh = np.exp(-t / 50)
        mean = (t - 50 + 50 * fresh) / (1 - fresh)
        np.testing.assert_allclose(boost(t), np.sqrt(1 + mean / 100), rtol=2e-3)
    np.testing.assert_allclose(boost(0.0), boost(0.05))
    np.testing.assert_allclose(boost(900.0), boost(200.0))


@pytest.mark.parametrize(("speed", "expected"), [(1.1, 1), (0.7, 1 / 0.7), (0.1, 2)])
def test_the_boost_lies_between_noise_and_signal(speed, expected):
    """At κ = 4: 1 where noise rules, √κ where signal does, also with errors."""
    boost = measure.signal_boost(plan(), Measured(speed + 0 * TIMES), TIMES, 4)
    np.testing.assert_allclose(boost(90.0), expected, rtol=1e-5)


def test_without_descent_there_is_no_boost():
    seen = Measured(0.6 + 0 * TIMES)
    seen.descent = Descent(0 * seen.descent.base, 0 * seen.descent.slowed)
    np.testing.assert_allclose(measure.signal_boost(plan(), seen, TIMES, 4)(9.0), 1)


def test_each_leaf_may_have_a_boost_of_its_own():
    """Leaves that are slowed apart: each has its inverse speed, and all have a mean."""
    speeds, one = {"a": 1.0, "b": 0.5}, np.ones((3, len(TIMES)))
    seen = Measured(one)
    seen.descent = Descent(
        dict.fromkeys(speeds, one),
        {name: np.stack([one, s * one], axis=-1) for name, s in speeds.items()},
    )
    each = measure.signal_boost(plan(), seen, TIMES, 4, by_leaf=True)
    np.testing.assert_allclose(each(90.0)["a"], 1)
    np.testing.assert_allclose(each(90.0)["b"], 2)
    np.testing.assert_allclose(
        measure.signal_boost(plan(), seen, TIMES, 4)(90.0), 4 / 3
    )
    big = optsde.scale(plan(), 4, "signal", memory="power", boost=each)
    twice = optsde.scale(big, 1, "signal", memory="power", boost=lambda t: 3.0)
    params = grads = {"a": jnp.ones(2), "b": jnp.ones(3)}
    changes = []
    for run in (optsde.scale(plan(), 4, memory="power"), big, twice):
        transform = run.transform()
        change, _ = transform.update(grads, transform.init(params), params)
        changes.append(change)
    for change, factor in zip(changes[1:], (1, 3), strict=True):
        np.testing.assert_allclose(change["a"], factor * changes[0]["a"], rtol=1e-6)
        np.testing.assert_allclose(change["b"], 2 * factor * changes[0]["b"], rtol=1e-6)


def test_time_is_that_of_the_base_run():
    """Measured along a run at κ = 4, whose v remembers as many samples."""
    base, seen = plan(), Measured((1 + TIMES / 100) ** -0.5)
    big = optsde.scale(base, 4)
    one, other = (measure.signal_boost(p, seen, TIMES, 4)(90.0) for p in (base, big))
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_it_is_weighed_by_the_descent():
    """One coordinate has G/N = 1, nine have noise alone: √((N+κG)/(N+G)) of the one.

    With v still empty, P is 1. Bound: 3%, for 64 measurements of 256 draws.
    """
    signal = jnp.zeros(10).at[0].set(1.0)

    def noisy(_, params, draw):
        return 0.0, signal + jax.random.normal(draw.fresh(), (10,))

    base = plan()
    probe = measure.noise_probe(
        base, lambda batch: FunctionOracle(noisy), 256, times=[0.0], kappas=(1, 4)
    )
    run = optsde.discrete(base, lambda batch: FunctionOracle(noisy), jnp.zeros(10))
    keys = jax.random.split(jax.random.key(0), 64)
    noises = optsde.fit(run, keys, 0, probes=[probe]).metrics["noise"].values
    boost = measure.signal_boost(base, noises, [0.0], 4)
    np.testing.assert_allclose(boost(0.0), (5 / 2) ** 0.5, rtol=0.03)


@pytest.mark.parametrize(
    ("optimizer", "kappa", "times", "message"),
    [
        (optsde.SGD(), 4, TIMES, "SGD does not, and its own rule"),
        (optsde.AdaGrad(), 4, TIMES, "AdaGrad does not"),
        (optsde.InvariantAdam(), 4, TIMES, "InvariantAdam does not"),
        (optsde.Adam(), 8, TIMES, "8 is not among them"),
        (optsde.Adam(), 4, TIMES[:3], "each of increasing times"),
        (optsde.Adam(), 4, TIMES[::-1], "each of increasing times"),
    ],
)
def test_what_gives_no_boost_is_refused(optimizer, kappa, times, message):
    seen = Measured(0.7 + 0 * TIMES)
    with pytest.raises(ValueError, match=message):
        measure.signal_boost(plan(optimizer), seen, times, kappa)
