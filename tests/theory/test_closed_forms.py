"""SGD and momentum on a 1-D quadratic, without Monte Carlo.

The updates are linear, so mean and second moment follow from the step's Jacobian, which
is taken of our own transform. h = 1, x0 = 1.5, noise variance s² per step, T = η K = 2.
"""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import optsde
from optsde import Plan, gradients

pytestmark = pytest.mark.usefixtures("x64")
X0, NOISE, ETA, STEPS = 1.5, 10.0, 0.01, 200


def moments(optimizer, steps, noise):
    """(E x, E x²) after the steps, exactly."""
    transform = optimizer.transform()
    start = jnp.array([X0])
    state = transform.init(start)
    flat, unravel = jax.flatten_util.ravel_pytree((start, state.direction))

    def step(y, z):
        x, direction = unravel(y)
        updates, new = transform.update(x + z, state._replace(direction=direction), x)
        return jax.flatten_util.ravel_pytree((x + updates, new.direction))[0]

    a = np.asarray(jax.jacobian(step, 0)(flat, jnp.zeros(1)))
    b = np.asarray(jax.jacobian(step, 1)(flat, jnp.zeros(1)))
    mean, cov = np.asarray(flat), np.zeros((len(flat), len(flat)))
    for _ in range(steps):
        mean, cov = a @ mean, a @ cov @ a.T + noise**2 * b @ b.T
    return np.array([mean[0], cov[0, 0] + mean[0] ** 2])


def errors(optimizer, kappa, rule="sde", **options):
    """Difference of (mean, second moment) at κ from the base run, after 200/κ steps.

    The published figures leave out a last step that is not a whole one.
    """
    base = Plan(optimizer=optimizer, batch_size=1, horizon=STEPS)
    big = optsde.scale(base, kappa, rule, **options)
    scaled = moments(big.optimizer, STEPS // kappa, NOISE / kappa**0.5)
    return scaled - moments(optimizer, STEPS, NOISE)


def test_sgd_is_its_closed_form():
    """(1−ηh)^k x0 and M ← (1−ηh)² M + η² s²: .201 and .534 at the base setting."""
    second = X0**2
    for _ in range(STEPS):
        second = (1 - ETA) ** 2 * second + ETA**2 * NOISE**2
    ours = moments(optsde.SGD(lr=ETA), STEPS, NOISE)
    np.testing.assert_allclose(ours, [X0 * (1 - ETA) ** STEPS, second], rtol=1e-12)
    np.testing.assert_allclose(ours, [0.201, 0.534], atol=5e-4)


def test_distance_of_sgd_from_its_sde():
    """T = 1, Σ = 1/η: (−.0206, +.0197) at η = .1; order 1 in η."""
    t, distances = 1.0, []
    for eta in (0.1, 0.05, 0.025):
        ours = moments(optsde.SGD(lr=eta), round(t / eta), eta**-0.5)
        decay = np.exp(-2 * t)
        sde = np.array([np.exp(-t), decay + (1 - decay) / 2])
        one = ours * [1 / X0, 1] - [0, (X0**2 - 1) * (1 - eta) ** (2 * t / eta)]
        distances.append(one - sde)
    ratios = np.array(distances[:-1]) / np.array(distances[1:])
    assert np.all(np.abs(ratios - 2) < 0.15)


@pytest.mark.parametrize(
    ("rule", "kappa", "expected", "bound"),
    [
        ("sde", 4, (None, 0.006), 1e-3),
        ("sde", 64, (None, 0.20), 1e-2),
        ("sqrt_lr_only", 4, (0.35, 0.016), 5e-3),
        ("sqrt_lr_only", 16, (0.70, 0.385), 2e-2),
        ("sqrt_lr_only", 64, (0.95, 0.85), 2e-2),
        ("fixed", 4, (0.71, None), 1e-2),
        ("fixed", 16, (1.1, None), 5e-2),
        ("fixed", 64, (1.2, None), 1e-1),
    ],
)
def test_linear_scaling_of_sgd_and_its_controls(rule, kappa, expected, bound):
    found = np.abs(errors(optsde.SGD(lr=ETA), kappa, rule))
    for ours, figure in zip(found, expected, strict=True):
        if figure is not None:
            assert abs(ours - figure) < bound


MOMENTUM = optsde.Momentum(lr=ETA, beta=0.9)
HEAVY = optsde.HeavyBall(lr=ETA * 0.1, beta=0.9)


@pytest.mark.parametrize("optimizer", [MOMENTUM, HEAVY], ids=["ema", "heavy ball"])
@pytest.mark.parametrize(
    ("memory", "expected"), [("linear", (0.0007, 0.0027)), ("power", (-0.0034, 0.0010))]
)
def test_momentum_rule(optimizer, memory, expected):
    found = errors(optimizer, 4, memory=memory)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("linear", (-0.079, -0.022)), ("sqrt_lr_only", (0.39, 0.006))],
)
@pytest.mark.parametrize("optimizer", [MOMENTUM, HEAVY], ids=["ema", "heavy ball"])
def test_momentum_controls(optimizer, rule, expected):
    """With β left alone, as is common: worse by one to two orders."""
    np.testing.assert_allclose(errors(optimizer, 4, rule), expected, atol=5e-3)


def test_the_two_forms_of_momentum_are_one():
    for kappa in (1, 4):
        a, b = MOMENTUM.rescaled(kappa), HEAVY.rescaled(kappa)
        np.testing.assert_allclose(
            moments(a, 50, NOISE), moments(b, 50, NOISE), rtol=1e-10
        )


def svag_moments(optimizer, ell, steps):
    fine = optsde.svag(Plan(optimizer=optimizer, batch_size=1, horizon=steps), ell)
    noise = NOISE_AT_05 * fine.noise_gain**0.5
    return moments(fine.optimizer, fine.steps, noise)


NOISE_AT_05 = 5.0


@pytest.mark.parametrize("optimizer", [optsde.SGD(lr=0.05), optsde.Momentum(lr=0.05)])
def test_svag_falls_as_one_over_ell(optimizer):
    """Differences to ℓ = 256 halve with each doubling of ℓ."""
    limit = svag_moments(optimizer, 256, 40)
    distance = [svag_moments(optimizer, ell, 40) - limit for ell in (4, 8, 16)]
    ratios = np.array(distance[:-1]) / np.array(distance[1:])
    assert np.all((ratios > 1.8) & (ratios < 2.3))


def test_svag_of_momentum_converges_to_the_underdamped_sde():
    """d(x, m) = (−lr m, (1−β)(h x − m)) dt + noise in m, solved by expm."""
    from scipy.linalg import expm, solve_continuous_lyapunov

    lr, c, t = 0.05, 0.1, 40.0
    drift = np.array([[0.0, -lr], [c, -c]])
    noise = np.array([0.0, c * NOISE_AT_05])
    flow = expm(drift * t)
    stationary = solve_continuous_lyapunov(drift, -np.outer(noise, noise))
    cov = stationary - flow @ stationary @ flow.T
    mean = (flow @ [X0, 0.0])[0]
    expected = np.array([mean, cov[0, 0] + mean**2])
    found = [svag_moments(optsde.Momentum(lr=lr), ell, 40) for ell in (16, 64, 256)]
    distance = np.abs(np.array(found) - expected)
    assert np.all(distance[-1] < 1e-3)
    assert np.all(distance[:-1] / distance[1:] > 3.5)


@pytest.mark.parametrize("gain", [1.0, 4.0, 64.0])
def test_mean_of_a_sign_under_svag_of_laplace_noise(gain):
    """E sign(μ + x), with x = a z₁ + b z₂ of unit variance, μ = .1 and 400,000 draws.

    Of Laplace z the sum has a closed form; its slope at 0 is 2√(c/(4c − 2)), and that
    of Gaussian noise √(2/π). Bounds: 4 standard errors to the first, and 10 and more
    from the second.
    """
    mean, size = 0.1, 400_000

    def laplace(key, shape, dtype):
        return jax.random.laplace(key, shape, dtype) / 2**0.5

    def loss(x):
        return mean * gain**0.5 * jnp.sum(x)

    noise = gradients.diagonal(jnp.ones_like)
    oracle = gradients.gaussian(loss, noise, laplace)(1)
    draw = gradients.Draw(jax.random.key(0), jnp.int32(0))
    grads = gradients.signed_mix(oracle, gain)(jnp.zeros(size), draw)[1]
    found, se = np.sign(grads).mean(), size**-0.5

    a, b = np.abs(gradients.mix.weights(gain)) / (2 * gain) ** 0.5

    def closed_form(mean):
        parts = [s**2 * -np.expm1(-mean / s) if s else 0.0 for s in (a, b)]
        return (parts[0] - parts[1]) / (a**2 - b**2)

    assert abs(found - closed_form(mean)) < 4 * se
    assert abs(found - mean * (2 / np.pi) ** 0.5) > 10 * se
    slope = closed_form(1e-6) / 1e-6
    np.testing.assert_allclose(slope, 2 * (gain / (4 * gain - 2)) ** 0.5, rtol=1e-5)
