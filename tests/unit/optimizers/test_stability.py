"""Stability thresholds: predicted, against the update itself and against its runs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optsde
from optsde.measure import stability_threshold
from optsde.optimizers import REGISTRY

DECAYS = dict(weight_decay=0.3, absolute_decay=0.01)
CASES = {
    "sgd": optsde.SGD(lr=0.5),
    "sgd_decays": optsde.SGD(lr=0.5, l2=0.2, **DECAYS),
    "momentum": optsde.Momentum(lr=0.5),
    "momentum_nesterov": optsde.Momentum(lr=0.5, nesterov=True),
    "heavyball": optsde.HeavyBall(lr=0.5),
    "heavyball_nesterov": optsde.HeavyBall(lr=0.5, nesterov=True, beta=0.8),
    "heavyball_decays": optsde.HeavyBall(lr=0.5, l2=0.2, nesterov=True, **DECAYS),
    "adagrad": optsde.AdaGrad(lr=0.5, eps=1.0, s0=0.0),
    "rmsprop": optsde.RMSprop(lr=0.5, eps=1.0),
    "rmsprop_optax": optsde.RMSprop(lr=0.5, eps_root=1.0, bias_correction=False),
    "rmsprop_lagged": optsde.RMSprop(lr=0.5, eps=1.0, lagged=True),
    "adam": optsde.Adam(lr=0.5, eps=1.0),
    "invariantadam": optsde.InvariantAdam(lr=0.5, b1=0.7, eps=1.0),
    "centredadam": optsde.CentredAdam(lr=0.5, b1=0.7, eps=1.0),
    "adammini": optsde.AdamMini(lr=0.5, b1=0.7, eps=1.0),
    "adam_decays": optsde.Adam(lr=0.5, b1=0.8, eps=1.0, l2=0.2, **DECAYS),
}
CURVED = np.array([[1.0, 0.4, 0.1], [0.4, 0.6, -0.2], [0.1, -0.2, 0.3]])


def in_mid_run(optimizer):
    """A state with random second moments and part of its bias corrections."""
    zero = jnp.zeros(3)
    state = optimizer.transform().init(zero)
    held = {
        "v": jnp.array([0.5, 2.0, 7.0]),
        "s": jnp.array([0.5, 2.0, 7.0]),
        "weight": jnp.float64(0.3),
        "v_weight": jnp.float64(0.3),
        "m_weight": jnp.float64(0.4),
    }
    fields = getattr(state.direction, "_fields", ())
    changes = {name: held[name] for name in fields if name in held}
    inner = state.direction._replace(**changes) if changes else state.direction
    return state._replace(direction=inner)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CASES)
def test_spectral_radius_of_the_update_is_one_at_the_threshold(name):
    """The jacobian of the real step at the minimum of ½ c·xᵀAx, by (x, m): where its
    largest eigenvalue crosses 1 as c grows, P^-½ (cA + l2) P^-½ is at the threshold,
    to 8 digits."""
    optimizer = CASES[name]
    transform, before = optimizer.transform(), in_mid_run(optimizer)
    moves = "m" in getattr(before.direction, "_fields", ())

    def step(z, scale):
        x, m = z
        inner = before.direction._replace(m=m) if moves else before.direction
        state = before._replace(direction=inner)
        change, after = transform.update(scale * CURVED @ x, state, x)
        return x + change, after.direction.m if moves else 0 * m

    zero = jnp.zeros(3)
    blocks = jax.jit(lambda scale: jax.jacfwd(step)((zero, zero), scale))

    def radius(scale):
        jacobian = np.block([[np.asarray(x) for x in row] for row in blocks(scale)])
        return np.abs(np.linalg.eigvals(jacobian)).max()

    low, high = 1e-2, 1e4
    assert radius(low) < 1 < radius(high)
    for _ in range(50):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if radius(middle) < 1 else (low, middle)

    _, after = transform.update(zero, before, zero)
    used = before if getattr(optimizer, "lagged", False) else after
    root = np.sqrt(optimizer.preconditioner(used.direction, zero))
    penalized = low * CURVED + optimizer.l2 * np.eye(3)
    curvature = np.linalg.eigvalsh(penalized / np.outer(root, root)).max()
    predicted = optimizer.stability_threshold(before.direction)
    np.testing.assert_allclose(curvature, predicted, rtol=1e-8)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CASES)
def test_a_run_diverges_just_above_the_threshold_and_not_below(name):
    """On ½ h x² at 0.1% on either side, so near to the minimum that P is 1 throughout.

    From step 200 on, when the start is forgotten: above it grows 1000-fold in 4000
    steps, below it falls 1000-fold and never rises.
    """
    optimizer = CASES[name]
    transform = optimizer.transform()
    edge = optimizer.stability_threshold() - optimizer.l2

    @jax.jit
    @jax.vmap
    def sizes(h):
        def step(carry, _):
            x, state = carry
            change, state = transform.update(h * x, state, x)
            return (x + change, state), jnp.abs(x + change)

        x = jnp.array(1e-60)
        return jax.lax.scan(step, (x, transform.init(x)), None, 4200)[1]

    below, above = np.asarray(sizes(edge * jnp.array([0.999, 1.001])))
    assert above[200:].max() > 1e3 * above[190:200].max()
    assert below[-10:].max() < 1e-3 * below[190:200].max()
    assert below[200:].max() <= below[190:200].max()


@pytest.mark.parametrize("name", CASES)
def test_critical_lr_is_the_lr_of_that_threshold(name):
    optimizer = CASES[name]
    critical = dataclasses.replace(optimizer, lr=optimizer.critical_lr(7.0))
    np.testing.assert_allclose(critical.stability_threshold(), 7.0, rtol=1e-12)


@pytest.mark.parametrize(
    ("optimizer", "times_lr"),
    [
        (optsde.SGD(lr=0.1), 2),
        (optsde.RMSprop(lr=0.1), 2),
        (optsde.AdaGrad(lr=0.1), 2),
        (optsde.HeavyBall(lr=0.1, beta=0.9), 3.8),
        (optsde.HeavyBall(lr=0.1, beta=0.9, nesterov=True), 3.8 / 2.8),
        (optsde.Momentum(lr=0.1, beta=0.9), 38),
        (optsde.Momentum(lr=0.1, beta=0.9, nesterov=True), 38 / 2.8),
        (optsde.Adam(lr=0.1, b1=0.9), 38),
    ],
)
def test_known_thresholds(optimizer, times_lr):
    """Cohen et al. (2021, 2022)."""
    np.testing.assert_allclose(optimizer.stability_threshold() * 0.1, times_lr, 1e-12)


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_family_is_shown_or_has_none(name):
    shown = any(type(case) is REGISTRY[name] for case in CASES.values())
    assert shown == (REGISTRY[name]().stability_threshold() is not None)
    without = """adafactor ademamix lamb lion mars muon schedulefreeadam schedulefreesgd
    shampoo signsgd signum soap"""
    assert shown or name in without.split()


def test_the_threshold_follows_schedule_and_bias_correction():
    """After 3 steps of Adam on a halving schedule, against Cohen et al.'s form: their P
    counts 1 − b1^t for the next step t."""
    plan = optsde.Plan(
        optimizer=optsde.Adam(lr=0.1, b1=0.9, absolute_decay=0.2),
        batch_size=1,
        horizon=8,
        schedule=lambda t: 0.5**t,
        clip=1.0,
    )
    transform, x = plan.transform(), jnp.ones(2)
    state = transform.init(x)
    for _ in range(3):
        _, state = transform.update(x, state, x)
    speed = 0.5**3
    expected = (2 - 0.2 * speed) * (1 - 0.9**4) * 19 / (0.1 * speed)
    np.testing.assert_allclose(stability_threshold(plan, state), expected, rtol=1e-5)
