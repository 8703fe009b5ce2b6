"""The modified flow: closed forms, hand-made gradients, and the orders in η."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_descent import study_of

from experiments.descent.modified import gradient_flow, implicit, implicit_by_batch

CURVATURE = np.array([0.7, 2.0])


@pytest.mark.usefixtures("x64")
def test_flow_of_a_quadratic():
    """θ(t) = exp(−λ(1 + ηλ/2)t) θ₀, on a pytree."""

    def loss(p):
        x = jnp.stack([p["a"], p["b"][0]])
        return 0.5 * jnp.sum(CURVATURE * x**2)

    lr, times = 0.3, jnp.array([0.0, 0.5, 2.0])
    start = {"a": jnp.array(1.0), "b": jnp.array([-2.0])}
    found = gradient_flow(implicit(loss, lr), start, times, accuracy=1e-12)
    rate = CURVATURE * (1 + lr * CURVATURE / 2)
    decay = np.exp(-rate[None] * np.asarray(times)[:, None])
    np.testing.assert_allclose(found["a"], decay[:, 0], rtol=1e-10)
    np.testing.assert_allclose(found["b"][:, 0], -2 * decay[:, 1], rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_penalties_by_hand():
    """f + (η/4)|∇f|² and the mean of L_k + (η/4)|∇L_k|²; ∇L_k = x_k(w·x_k − y_k)."""
    random = np.random.RandomState(0)
    x, y, w = random.randn(5, 3), random.randn(5), random.randn(3)

    def loss(w, batch):
        inputs, target = batch
        return 0.5 * (inputs @ w - target) ** 2

    def mean(w):
        return jnp.mean(jax.vmap(lambda *b: loss(w, b))(x, y))

    residual = x @ w - y
    grads = x * residual[:, None]
    value = 0.5 * np.mean(residual**2)
    plain = value + 0.2 / 4 * np.sum(grads.mean(axis=0) ** 2)
    by_batch = value + 0.2 / 4 * np.mean(np.sum(grads**2, axis=1))
    np.testing.assert_allclose(implicit(mean, 0.2)(w), plain, rtol=1e-12)
    found = implicit_by_batch(loss, (jnp.asarray(x), jnp.asarray(y)), 0.2)(w)
    np.testing.assert_allclose(found, by_batch, rtol=1e-12)


def test_orders_of_the_distances(tmp_path):
    """Full batch η against η²; one epoch η² against η³, with whose penalty."""
    verdicts = study_of("gd_2d", tmp_path)
    assert len(verdicts) == 8
    assert all(verdict.holds for verdict in verdicts)
    figures = {file.stem for file in (tmp_path / "figures").iterdir()}
    assert figures == {"full_batch", "one_epoch"}
