"""Schedules with cycles, against optax's and against straight lines."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optsde import schedules

TIMES = np.arange(0, 121)
NAN = float("nan")


def assert_same(ours, theirs, times=TIMES):
    got = [float(ours(float(t))) for t in times]
    want = [float(theirs(jnp.int32(t))) for t in times]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)  # float32


def test_linear():
    assert_same(
        schedules.linear(100, start=0.3, end=2.0), optax.linear_schedule(0.3, 2.0, 100)
    )


def test_one_cycle_is_that_of_optax():
    ours = schedules.one_cycle(100, rise=0.3, start=1 / 25, end=1 / 25e4)
    assert_same(ours, optax.cosine_onecycle_schedule(100, 1.0, pct_start=0.3))


@pytest.mark.parametrize("growth", [1.0, 1.5])
def test_cycles_are_straight_lines_joined(growth):
    peaks = [3 * growth**cycle for cycle in range(6)]
    lines = [
        line
        for peak in peaks
        for line in (
            optax.linear_schedule(0.2, peak, 10),
            optax.linear_schedule(peak, 0.2, 10),
        )
    ]
    theirs = optax.join_schedules(lines, list(range(10, 120, 10)))
    ours = schedules.exponential_cyclic(20, 0.2, 3.0, growth)
    assert_same(ours, theirs, TIMES[:-1])
    if growth == 1:
        assert_same(schedules.cyclic(20, 0.2, 3.0), theirs, TIMES[:-1])


@pytest.mark.parametrize("stretch", [1.0, 1.5, 2.0])
def test_restarts_are_cosines_joined(stretch):
    lengths = [round(8 * stretch**number) for number in range(4)]
    theirs = optax.join_schedules(
        [optax.cosine_decay_schedule(1.0, length, alpha=0.1) for length in lengths],
        np.cumsum(lengths)[:-1].tolist(),
    )
    ours = schedules.restarts(8, stretch, end=0.1)
    assert_same(ours, theirs, TIMES[: sum(lengths)])
    begins = [float(ours(float(t))) for t in np.cumsum([0, *lengths[:-1]])]
    np.testing.assert_allclose(begins, 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: schedules.one_cycle(100, rise=1),
            "rise=1: needs a share of the horizon",
        ),
        (
            lambda: schedules.restarts(10, stretch=0.5),
            "stretch=0.5: needs a number ≥ 1",
        ),
        (lambda: schedules.cosine(-1.0), "horizon=-1.0: needs a positive length"),
        (lambda: schedules.cosine(10.0, end=NAN), "end=nan: needs a factor of lr ≥ 0"),
        (lambda: schedules.linear(np.inf), "horizon=inf: needs a positive length"),
        (lambda: schedules.warmup(NAN), "time=nan: needs a time ≥ 0"),
        (lambda: schedules.exponential_warmup(9.0, start=0.0), "start=0.0: needs"),
        (lambda: schedules.milestones([1.0, NAN]), "times=nan: needs a list of times"),
        (lambda: schedules.cyclic(0.0), "period=0.0: needs a positive length"),
        (lambda: schedules.absolute(lambda t: t, 0.0), "lr=0.0: needs a positive"),
    ],
)
def test_arguments_that_make_no_schedule_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
