"""What must hold for every valid input, and refusal in one line for all others.

The inputs are the same each time, and others each time where EXPLORE is set, as
`make faults` does.
"""

import dataclasses
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optsde
from optsde import gradients, schedules
from optsde.gradients import Draw
from optsde.study.values import Kind, shown
from tests.faults.commands import PACKAGES

hypothesis = pytest.importorskip("hypothesis")
given, example, st = hypothesis.given, hypothesis.example, hypothesis.strategies


def examples(quick, full):
    """Tries a property on a few inputs, and in the full tier on more."""

    def both(check):
        counts = [quick, pytest.param(full, marks=pytest.mark.full)]

        @pytest.mark.parametrize("count", counts)
        def test(count):
            fixed = "EXPLORE" not in os.environ
            few = hypothesis.settings(
                max_examples=count, deadline=None, derandomize=fixed
            )
            few(check())()

        return test

    return both


ANY = st.one_of(
    st.floats(), st.integers(-(2**40), 2**40), st.none(), st.text(max_size=3)
)
RATES = st.floats(1e-6, 10)
OPTIMIZERS = st.one_of(
    st.builds(optsde.SGD, lr=RATES),
    st.builds(optsde.Momentum, lr=RATES, beta=st.floats(0, 0.99)),
    st.builds(optsde.Adam, lr=RATES, b1=st.floats(0, 0.99), b2=st.floats(0, 0.999)),
    st.builds(optsde.Signum, lr=RATES, beta=st.floats(0, 0.99)),
)
PLANS = st.builds(
    optsde.Plan,
    optimizer=OPTIMIZERS,
    batch_size=st.integers(1, 4096),
    horizon=st.floats(1, 1e5),
)


STUDIES = [study for package in PACKAGES.values() for study in package.studies]
KINDS = [Kind(x, many) for x in (int, float, bool, str) for many in (False, True)]


def quadratic(params, rows):
    return 0.5 * (params - rows) ** 2


def refused_or(call):
    """Returns what a call gives, or None where it is refused in one line."""
    try:
        return call()
    except ValueError as error:
        if "\n" in str(error):
            raise
        return None


@examples(30, 400)
def test_a_plan_makes_sense_or_is_refused():
    @given(batch=ANY, horizon=ANY, clip=ANY)
    @example(batch=1, horizon=1e-320, clip=None)
    @example(batch=True, horizon=1.0, clip=None)
    @example(batch=1, horizon=1.0, clip=5e-324)
    def holds(batch, horizon, clip):
        plan = optsde.Plan(
            optimizer=optsde.SGD(), batch_size=batch, horizon=horizon, clip=clip
        )
        if refused_or(plan.checked) is not None:
            assert 1 <= batch == int(batch)
            assert 0 < np.float32(horizon) < math.inf
            assert plan.steps <= 2**31 - 1
            assert clip is None or 0 < np.float32(clip) < math.inf

    return holds


@examples(30, 400)
def test_scaling_keeps_samples_and_goes_back():
    @given(plan=PLANS, kappa=ANY)
    @example(
        plan=optsde.Plan(optimizer=optsde.SGD(), batch_size=1, horizon=1.0), kappa=1e30
    )
    @example(
        plan=optsde.Plan(
            optimizer=optsde.Momentum(beta=0.25), batch_size=1, horizon=1.0
        ),
        kappa=538,
    )
    def holds(plan, kappa):
        scaled = refused_or(lambda: optsde.scale(plan, kappa, memory="power"))
        if scaled is None:
            return
        assert scaled.batch_size == round(plan.batch_size * kappa)
        assert math.isclose(scaled.batch_size / scaled.dt, plan.batch_size / plan.dt)
        back = optsde.scale(scaled, plan.batch_size / scaled.batch_size, memory="power")
        assert back.batch_size == plan.batch_size
        three = (jax.tree.leaves(x) for x in (back, plan, scaled))
        for found, before, between in zip(*three, strict=True):
            gone = 0 <= between < 1e-100  # β^κ: no memory is left to go back by
            assert gone or math.isclose(found, before, rel_tol=1e-6, abs_tol=1e-9)

    return holds


@examples(30, 400)
def test_svag_keeps_the_batch_and_makes_up_for_its_noise():
    @given(plan=PLANS, ell=ANY)
    @example(
        plan=optsde.Plan(optimizer=optsde.Adam(), batch_size=1, horizon=1.0), ell=1e200
    )
    def holds(plan, ell):
        fine = refused_or(lambda: optsde.svag(plan, ell))
        if fine is None:
            return
        exponent = plan.optimizer.noise_exponent
        assert fine.batch_size == plan.batch_size
        assert math.isclose(fine.noise_gain, ell**exponent)
        assert math.isclose(fine.noise_gain * fine.dt, 1.0)

    return holds


@examples(20, 200)
def test_schedules_stay_between_nothing_and_one():
    @given(
        warmup=ANY,
        horizon=ANY,
        end=ANY,
        time=st.floats(0, 1e6, allow_nan=False, width=32),
    )
    @example(warmup=0.0, horizon=1e-38, end=0.0, time=1.0)
    @example(warmup=0.0, horizon=1.0, end=2**31, time=0.0)
    @example(warmup=2**33, horizon=2**34, end=0.0, time=1.0)
    def holds(warmup, horizon, end, time):
        schedule = refused_or(lambda: schedules.warmup_cosine(warmup, horizon, end))
        if schedule is not None:
            value = float(schedule(jnp.float32(time)))
            assert -1e-6 <= value <= max(1.0, end) * (1 + 1e-6)

    return holds


@examples(2, 40)
def test_a_gradient_is_the_plain_mean():
    @given(
        size=st.integers(1, 12),
        batch=st.integers(-1, 14),
        group=st.one_of(st.none(), st.integers(-1, 14)),
        at_once=st.integers(0, 4),
        sampler=st.sampled_from(["minibatch", "epochs", "full_batch"]),
    )
    @example(size=5, batch=5, group=3, at_once=2, sampler="epochs")
    def holds(size, batch, group, at_once, sampler):
        rows = jnp.linspace(-1.0, 1.0, size)
        make = getattr(gradients, sampler)
        made = refused_or(
            lambda: make(quadratic, rows, group=group, at_once=at_once)(batch)
        )
        if made is None:
            return
        draw = Draw(jax.random.key(0), jnp.int32(0))
        taken = rows[made.index(draw)[0]]
        loss, grad = made(jnp.float32(0.3), draw)
        np.testing.assert_allclose(loss, jnp.mean(quadratic(0.3, taken)), rtol=1e-5)
        np.testing.assert_allclose(grad, jnp.mean(0.3 - taken), rtol=1e-5, atol=1e-6)
        if sampler != "minibatch" and batch == size:
            assert sorted(taken.tolist()) == rows.tolist()

    return holds


@examples(40, 400)
def test_values_are_read_as_they_are_shown():
    @given(kind=st.sampled_from(KINDS), data=st.data())
    def holds(kind, data):
        element = {
            int: st.integers(),
            float: st.floats(allow_nan=False),
            bool: st.booleans(),
            str: st.text("abcxyz_0", min_size=1),
        }[kind.element]
        value = data.draw(st.lists(element).map(tuple) if kind.many else element)
        assert kind.read(kind.parse(shown(value))) == value

    return holds


@examples(20, 100)
def test_settings_are_read_as_they_are_written():
    @given(study=st.sampled_from(STUDIES))
    def holds(study):
        settings = study.settings()
        again = study.settings.of(settings.config())
        assert again == settings
        assert dataclasses.asdict(again) == dataclasses.asdict(settings)

    return holds
