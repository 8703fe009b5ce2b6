"""Schedule-free methods: their three sequences, where they are evaluated, a switch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import optsde
from optsde.gradients import FunctionOracle
from optsde.plans.schedules import warmup

CURVATURE = np.array([1.0, 0.3])
START = np.array([0.5, -1.0])
ORACLE = FunctionOracle(lambda source, y, draw: (0.0, CURVATURE * y + 0.2))


def ends(plan, steps):
    """The state after the steps, of the run of a plan."""
    dynamics = optsde.discrete(plan, lambda batch_size: ORACLE, jnp.asarray(START))
    state = dynamics.init(jax.random.key(0))
    step = jax.jit(lambda state: dynamics.step(state, dynamics.source)[0])
    for _ in range(steps):
        state = step(state)
    return state


def plan(optimizer, **options):
    average = optimizer.average()
    return optsde.Plan(
        optimizer=optimizer, batch_size=1, horizon=40, average=average, **options
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_sequences_are_those_of_the_paper(beta):
    """x, y and z in numpy, with a warm-up and decays, to rounding."""
    decays = dict(l2=0.1, weight_decay=0.02, absolute_decay=0.003)
    optimizer = optsde.ScheduleFreeSGD(lr=0.1, beta=beta, **decays)
    state = ends(plan(optimizer, schedule=warmup(10)), 40)
    x = y = z = START
    for k in range(40):
        s = float(warmup(10)(k))
        g = CURVATURE * y + 0.2 + 0.1 * y
        z = z - s * (0.1 * (g + 0.02 * y) + 0.003 * y)
        x = x + (z - x) / (k + 1)
        y = (1 - beta) * z + beta * x
    np.testing.assert_allclose(state.params, y, rtol=1e-10)
    np.testing.assert_allclose(state.average, x, rtol=1e-10)
    np.testing.assert_allclose(state.optimizer.direction.apart, z - x, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_it_is_evaluated_where_optax_says():
    """x after 40 steps of optax's AdamW, from its state, and of the plan's average."""
    optimizer = optsde.ScheduleFreeAdam(lr=0.05, b2=0.9, weight_decay=0.1)
    theirs = optax.contrib.schedule_free_adamw(0.05, b2=0.9, weight_decay=0.1)
    y = jnp.asarray(START)
    memory = theirs.init(y)
    for _ in range(40):
        updates, memory = theirs.update(CURVATURE * y + 0.2, memory, y)
        y = y + updates
    x = optax.contrib.schedule_free_eval_params(memory, y)
    state = ends(plan(optimizer), 40)
    np.testing.assert_allclose(state.average, x, atol=1e-8)
    assert np.all(np.abs(x - y) > 1e-3)


@pytest.mark.usefixtures("x64")
def test_a_switch_goes_on_with_the_same_average():
    """From κ = 1 to 4 at t = 40: x goes on by steps of κ/t of the way to z."""
    base = plan(optsde.ScheduleFreeSGD(lr=0.01))
    big = optsde.scale(base, 4)
    state = ends(base, 40)
    moved = optsde.switch(state.optimizer, base, big)
    assert moved.direction.steps == 10
    x, y, e = state.average, state.params, state.optimizer.direction.apart
    updates, new = big.transform().update(jnp.zeros(2), moved, y)
    expected = x + e / 11
    found = y + updates - (1 - 0.9) * new.direction.apart
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    mean = big.average.update(x, y + updates, new.clock.time, big.dt)
    np.testing.assert_allclose(mean, expected, rtol=1e-12)


def test_averages_of_other_optimizers_are_refused():
    base = plan(optsde.ScheduleFreeSGD(beta=0.9)).checked()
    parts = {"a": base.optimizer, "b": optsde.SGD()}
    groups = optsde.Groups(parts, lambda params: "a")
    for optimizer, words in (
        (optsde.SGD(), "SGD is not"),
        (optsde.ScheduleFreeSGD(beta=0.8), "has beta=0.8; give"),
        (groups, "SGD is not"),
    ):
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(base, optimizer=optimizer).checked()
    for beta in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="needs 0 ≤ beta < 1"):
            optsde.ScheduleFreeAdam(beta=beta).checked()
