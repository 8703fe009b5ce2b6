"""A switch in mid-run: every rate after it is that of its time, not of its step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optsde
from optsde import gradients, measure

CURVATURE, STRENGTH, SWITCH, END = 2.0, 0.5, 8, 24
KEYS = jax.random.split(jax.random.key(0), 2)
OLD = optsde.Plan(
    optimizer=optsde.SGD(lr=0.1),
    batch_size=2,
    horizon=END,
    schedule=lambda t: 1 / (1 + t / 4),
)


def losses(x, examples):
    return 0.5 * CURVATURE * x**2 + 0 * examples


def sampler(plan):
    """∇f + (lr_t/4)·s·H ∇f, of examples that are all the same."""
    plain = gradients.minibatch(losses, jnp.zeros(4))
    penalty = gradients.Penalty(STRENGTH, plan.rate, "exact")
    return gradients.penalized(plain, penalty)


def gradient(x, rate):
    return CURVATURE * x * (1 + rate / 4 * STRENGTH * CURVATURE)


@pytest.mark.parametrize("new", [optsde.scale(OLD, 4), optsde.svag(OLD, 2)])
def test_rates_after_a_switch_are_those_of_the_time(new):
    """By a probe, in the penalty, the threshold, the update and the noise's signal."""
    first = optsde.fit(optsde.discrete(OLD, sampler(OLD), 1.0), KEYS, SWITCH).state
    switched = jax.vmap(lambda state: optsde.switch(state, OLD, new))
    state = first._replace(optimizer=switched(first.optimizer))
    np.testing.assert_array_equal(state.time, SWITCH)

    def observe(_, state):
        return {
            "lr": new.rate(state.time),
            "threshold": measure.stability_threshold(new, state.optimizer),
            "x": state.params,
            "time": state.time,
        }

    times = [8, 12, 16, 24]
    noise = measure.noise_probe(new, sampler(new), draws=8, blocks=4)
    result = optsde.fit(
        optsde.discrete(new, sampler(new), 1.0),
        KEYS,
        END,
        probes=[measure.probe(observe, times=times), noise.at(times)],
        state=state,
    )

    x, expected = 1.0, {}
    for k in range(SWITCH):
        x -= float(OLD.rate(k)) * gradient(x, float(OLD.rate(k)))
    for k in range(round((END - SWITCH) / new.dt) + 1):
        time = SWITCH + k * new.dt
        expected[time], rate = x, float(new.rate(time))
        x -= rate * gradient(x, rate)
    rates = np.array([new.rate(t) for t in times])
    points = np.array([expected[t] for t in times])
    found = {name: series.values for name, series in result.metrics.items()}
    for replica in range(2):
        np.testing.assert_allclose(found["time"][replica], times)
        np.testing.assert_allclose(found["lr"][replica], rates, rtol=1e-6)
        np.testing.assert_allclose(found["threshold"][replica], 2 / rates, rtol=1e-6)
        np.testing.assert_allclose(found["x"][replica], points, rtol=1e-5)
        signal = found["noise"].total().signal[replica]
        np.testing.assert_allclose(signal, gradient(points, rates) ** 2, rtol=1e-4)
