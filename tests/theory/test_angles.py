"""Angles of a step under random gradients: closed forms, and runs that know no net."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.intrinsic_lr.rotation import FAMILIES, angle, turns
from optsde import Plan, discrete, gradients
from optsde.problems import sphere as toy
from optsde.run import fit
from optsde.study.runs import ArmRuns

DIMENSION, SEEDS, STEPS = 400, 16, 1200


class Walk:
    """Stands for settings: when angles are measured."""

    @staticmethod
    def turning():
        return range(STEPS // 2, STEPS - 1, 5)


def walked(optimizer):
    """Returns the root mean square angle of each seed, of weights without a loss.

    The gradient is noise along the sphere, 1/‖w‖ as long, as scale invariance has it.
    """
    plan = Plan(optimizer=optimizer, batch_size=1, horizon=STEPS)
    loss = toy.loss_of(jnp.zeros(DIMENSION))
    sampler = gradients.gaussian(loss, toy.tangent_noise())
    dynamics = discrete(plan, sampler, lambda key: jax.random.normal(key, (DIMENSION,)))
    keys = jax.random.split(jax.random.key(0), SEEDS)
    found = fit(dynamics, keys, STEPS, probes=[turns(Walk)])
    _, angles = angle(ArmRuns(None, found.metrics))
    return np.sqrt(np.mean(angles[..., 0] ** 2, axis=1))


@pytest.mark.parametrize(
    ("family", "lr", "decay", "beta"),
    [
        pytest.param("sgd", 0.1, 0.1, 0.0, marks=pytest.mark.full),
        pytest.param("heavy_ball", 0.02, 0.05, 0.9, marks=pytest.mark.full),
        pytest.param("heavy_ball", 0.1, 0.1, 0.5, marks=pytest.mark.full),
        ("adamw", 0.1, 0.1, 0.9),
        pytest.param("adamw", 0.1, 0.1, 0.0, marks=pytest.mark.full),
        pytest.param("adamw", 0.05, 0.4, 0.6, marks=pytest.mark.full),
    ],
)
def test_random_gradients_turn_weights_by_the_closed_form(family, lr, decay, beta):
    """Bounds: 4 standard errors, themselves below .25%, and .5% for finite memories.

    Adam's v is an average of 100 squares, not their mean; angles tell cos θ to θ⁴.
    """
    make, cosine = FAMILIES[family]
    found = walked(make(lr, decay, beta))
    expected = np.arccos(cosine(lr, decay, beta))
    error = found.std(ddof=1) / np.sqrt(SEEDS)
    assert error < 0.0025 * expected
    assert abs(found.mean() - expected) < 4 * error + 0.005 * expected


@pytest.mark.parametrize("family", ["heavy_ball", "adamw"])
def test_closed_forms_are_those_of_the_first_order(family):
    """√(2 lr·l2/(1+β)) and √(2 λ_e (1−β)/(1+β)), of Kosson et al., for small λ_e."""
    lr, decay, beta = 0.01, 1e-4, 0.9
    square = 2 * lr * decay / (1 + beta)
    square *= 1 - beta if family == "adamw" else 1
    angle = np.arccos(FAMILIES[family][1](lr, decay, beta))
    np.testing.assert_allclose(angle, np.sqrt(square), rtol=1e-3)


@pytest.mark.parametrize(
    ("family", "optimizer"),
    [
        ("heavy_ball", lambda lr, l2, beta: _torch(lr, l2, beta)),
        ("adamw", lambda lr, decay, beta: _averaged(lr, decay, beta)),
    ],
)
def test_the_correlation_is_that_of_the_exact_covariance(family, optimizer):
    """Lyapunov's equation of (w, velocity), in float64, of weights in one dimension."""
    from scipy.linalg import solve_discrete_lyapunov

    lr, decay, beta = 0.2, 0.3, 0.7
    step, kick = optimizer(lr, decay, beta)
    covariance = solve_discrete_lyapunov(step, np.outer(kick, kick))
    correlation = (step @ covariance)[0, 0] / covariance[0, 0]
    np.testing.assert_allclose(FAMILIES[family][1](lr, decay, beta), correlation)


def _torch(lr, l2, beta):
    """v ← β v + g + l2 w, w ← w − lr v, as a matrix on (w, v) and what g adds."""
    velocity = np.array([l2, beta])
    return np.array([[1, 0] - lr * velocity, velocity]), np.array([-lr, 1.0])


def _averaged(lr, decay, beta):
    """m ← β m + (1−β) g, w ← (1 − lr·decay) w − lr m."""
    average = np.array([0, beta])
    step = np.array([[1 - lr * decay, 0] - lr * average, average])
    return step, (1 - beta) * np.array([-lr, 1.0])
