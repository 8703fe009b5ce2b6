"""Each update against optax's, and against numbers of torch where its form differs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import optsde

START = np.array([0.5, -1.0, 2.0, 0.1])
CURVATURE = np.array([1.0, 0.3, 2.0, 0.05])


def gradient(x, k):
    return CURVATURE * x + jnp.cos(0.7 * k + np.arange(4))


def run(transform, steps=100):
    x = jnp.asarray(START)
    state = transform.init(x)

    def step(carry, k):
        x, state = carry
        updates, state = transform.update(gradient(x, k), state, x)
        x = x + updates
        return (x, state), x

    return jax.lax.scan(step, (x, state), jnp.arange(steps))[1]


OPTAX = {
    "sgd": (optsde.SGD(lr=0.05), optax.sgd(0.05)),
    "heavy ball": (
        optsde.HeavyBall(lr=0.02, beta=0.9),
        optax.sgd(0.02, momentum=0.9),
    ),
    "nesterov": (
        optsde.HeavyBall(lr=0.02, beta=0.9, nesterov=True),
        optax.sgd(0.02, momentum=0.9, nesterov=True),
    ),
    "ema momentum": (
        optsde.Momentum(lr=0.2, beta=0.9),
        optax.chain(optax.ema(0.9, debias=False), optax.scale(-0.2)),
    ),
    "adam": (
        optsde.Adam(lr=0.01, b2=0.99, eps=1e-3, eps_root=1e-4),
        optax.adam(0.01, b2=0.99, eps=1e-3, eps_root=1e-4),
    ),
    "adamw": (
        optsde.Adam(lr=0.01, eps=1e-3, weight_decay=0.1),
        optax.adamw(0.01, eps=1e-3, weight_decay=0.1),
    ),
    "ademamix": (
        optsde.AdEMAMix(lr=0.01, b3=0.98, eps=1e-3, eps_root=1e-4, weight_decay=0.1),
        optax.contrib.ademamix(
            0.01, b3=0.98, eps=1e-3, eps_root=1e-4, weight_decay=0.1
        ),
    ),
    "schedule-free sgd": (
        optsde.ScheduleFreeSGD(lr=0.05, beta=0.8, weight_decay=0.01),
        optax.contrib.schedule_free_sgd(0.05, b1=0.8, weight_decay=0.01),
    ),
    "schedule-free adamw": (
        optsde.ScheduleFreeAdam(lr=0.01, b2=0.99, eps=1e-3, weight_decay=0.1),
        optax.contrib.schedule_free_adamw(0.01, b2=0.99, eps=1e-3, weight_decay=0.1),
    ),
    "rmsprop, eps inside": (
        optsde.RMSprop(
            lr=0.01, beta=0.9, eps=0.0, eps_root=1e-3, bias_correction=False
        ),
        optax.rmsprop(0.01, decay=0.9, eps=1e-3),
    ),
    "rmsprop, eps outside, v0": (
        optsde.RMSprop(lr=0.01, beta=0.9, eps=1e-3, v0=0.3, bias_correction=False),
        optax.rmsprop(0.01, 0.9, 1e-3, initial_scale=0.3, eps_in_sqrt=False),
    ),
    "rmsprop, bias correction": (
        optsde.RMSprop(lr=0.01, beta=0.9, eps=1e-3),
        optax.rmsprop(0.01, 0.9, 1e-3, eps_in_sqrt=False, bias_correction=True),
    ),
    "adagrad": (
        optsde.AdaGrad(lr=0.1, eps=0.0, eps_root=1e-3, s0=0.2),
        optax.adagrad(0.1, initial_accumulator_value=0.2, eps=1e-3),
    ),
    "signsgd": (optsde.SignSGD(lr=0.01), optax.sign_sgd(0.01)),
    "signum": (
        optsde.Signum(lr=0.01, beta=0.9),
        optax.chain(
            optax.ema(0.9, debias=False), optax.scale_by_sign(), optax.scale(-0.01)
        ),
    ),
    "lion": (
        optsde.Lion(lr=0.01, weight_decay=0.1),
        optax.lion(0.01, weight_decay=0.1),
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", OPTAX)
def test_equals_optax(name):
    ours, theirs = OPTAX[name]
    np.testing.assert_allclose(run(ours.transform()), run(theirs), atol=1e-6, rtol=0)


# Parameters after 100 steps of torch 2.13 in float64, with the same gradients.
TORCH = {
    "SGD(lr=.05, weight_decay=.01)": (
        optsde.SGD(lr=0.05, l2=0.01),
        [-0.03979132656, -0.2735579167, -0.03385830181, 0.1276385993],
    ),
    "SGD(lr=.02, momentum=.9, weight_decay=.01)": (
        optsde.HeavyBall(lr=0.02, beta=0.9, l2=0.01),
        [0.02526564064, -0.02473127035, -0.0412695909, 0.04621855961],
    ),
    "SGD(lr=.02, momentum=.9, nesterov=True)": (
        optsde.HeavyBall(lr=0.02, beta=0.9, nesterov=True),
        [0.004618768016, -0.04996130378, -0.05926056127, 0.07738936563],
    ),
    "Adam(lr=.01, betas=(.9, .99), eps=1e-3, weight_decay=.1)": (
        optsde.Adam(lr=0.01, b2=0.99, eps=1e-3, l2=0.1),
        [0.1088872586, -0.5900228973, 1.09525213, 0.1079548523],
    ),
    "AdamW(lr=.01, betas=(.9, .99), eps=1e-3, weight_decay=.1)": (
        optsde.Adam(lr=0.01, b2=0.99, eps=1e-3, weight_decay=0.1),
        [0.1094813631, -0.5955407004, 0.9688297592, 0.1120065816],
    ),
    "RMSprop(lr=.01, alpha=.95, eps=1e-3)": (
        optsde.RMSprop(lr=0.01, beta=0.95, eps=1e-3, bias_correction=False),
        [0.1020855039, -0.6400286849, 0.9075276044, 0.1372761341],
    ),
    "Adagrad(lr=.1, initial_accumulator_value=.2, eps=1e-3)": (
        optsde.AdaGrad(lr=0.1, eps=1e-3, s0=0.2),
        [0.04125964646, -0.4768818797, 0.545956848, 0.169182421],
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", TORCH)
def test_equals_torch(name):
    ours, end = TORCH[name]
    np.testing.assert_allclose(run(ours.transform())[-1], end, atol=1e-6, rtol=0)


@pytest.mark.usefixtures("x64")
def test_lagged_rmsprop_divides_by_the_v_before():
    """θ ← θ − lr·g_k/(√v_k + ε), v ← β v + (1−β) g², written out."""
    optimizer = optsde.RMSprop(
        lr=0.01, beta=0.9, eps=1e-3, v0=0.5, bias_correction=False, lagged=True
    )
    x, v = START.copy(), np.full(4, 0.5)
    for k in range(20):
        g = np.asarray(gradient(x, k))
        x = x - 0.01 * g / (np.sqrt(v) + 1e-3)
        v = 0.9 * v + 0.1 * g**2
    np.testing.assert_allclose(run(optimizer.transform(), 20)[-1], x, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_lagged_rmsprop_corrects_the_bias_of_the_v_before():
    optimizer = optsde.RMSprop(lr=0.01, beta=0.9, eps=1e-3, lagged=True)
    x, v = START.copy(), np.zeros(4)
    for k in range(20):
        g = np.asarray(gradient(x, k))
        estimate = v / (1 - 0.9**k) if k else g**2
        x = x - 0.01 * g / (np.sqrt(estimate) + 1e-3)
        v = 0.9 * v + 0.1 * g**2
    np.testing.assert_allclose(run(optimizer.transform(), 20)[-1], x, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_absolute_decay_and_schedule():
    """θ ← θ − s(t)·(lr·g + w·θ), with t in base steps."""
    optimizer = optsde.SGD(lr=0.1, absolute_decay=0.01)
    x = START.copy()
    for k in range(20):
        s = 1 / (1 + 0.25 * k)
        x = x - s * (0.1 * np.asarray(gradient(x, k)) + 0.01 * x)
    transform = optimizer.transform(lambda t: 1 / (1 + t), dt=0.25)
    np.testing.assert_allclose(run(transform, 20)[-1], x, rtol=1e-12)
