"""Shampoo's and SOAP's updates written out with numpy, their roots and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_muon import START, agree, gradient, run

import optsde
from optsde.optimizers.factors import inverse_root, squares

PARAMS = START | {"bias": np.array([0.3, -0.2])}
SHAPES = {name: x if x.ndim == 2 else x[None] for name, x in PARAMS.items()}


def written_out(step, steps=100):
    """Parameters after θ ← θ − step(name, G, k), with a vector as one row."""
    x = dict(SHAPES)
    for k in range(1, steps + 1):
        grads = jax.tree.map(np.asarray, gradient(flat(x), k - 1))
        x = {n: x[n] - step(n, grads[n].reshape(x[n].shape), k) for n in x}
    return flat(x)


def flat(x):
    return {name: x[name].reshape(PARAMS[name].shape) for name in PARAMS}


def moments(names, **sizes):
    """Averages from 0, by name of the parameter."""
    return {n: [np.zeros(f(SHAPES[n])) for f in sizes.values()] for n in names}


SIDES = dict(
    m=lambda x: x.shape, left=lambda x: (len(x),) * 2, right=lambda x: (x.shape[1],) * 2
)


def power(a, exponent, eps):
    values, vectors = np.linalg.eigh(a + eps * np.eye(len(a)))
    return vectors @ np.diag(values**exponent) @ vectors.T


@pytest.mark.usefixtures("x64")
def test_shampoo_is_the_equation():
    """100 steps from the start, with bias corrections; a vector has R^(−1/2)."""
    b1, b2, eps, lr = 0.8, 0.95, 1e-4, 0.01
    state = moments(PARAMS, **SIDES)

    def step(name, g, k):
        m, left, right = state[name]
        m[:] = b1 * m + (1 - b1) * g
        left[:] = b2 * left + (1 - b2) * g @ g.T
        right[:] = b2 * right + (1 - b2) * g.T @ g
        m_hat, *hats = m / (1 - b1**k), left / (1 - b2**k), right / (1 - b2**k)
        if name == "bias":
            return lr * m_hat @ power(hats[1], -1 / 2, eps)
        return lr * power(hats[0], -1 / 4, eps) @ m_hat @ power(hats[1], -1 / 4, eps)

    ours = optsde.Shampoo(lr=lr, b1=b1, b2=b2, eps_root=eps)
    agree(run(ours.transform(), PARAMS), written_out(step))


@pytest.mark.usefixtures("x64")
def test_soap_is_the_equation():
    """100 steps: eigenvectors of the steps before, the first of which moves nothing.

    The factors after one step lack one rank at most here; of an eigenspace of more
    dimensions, eigenvectors are those that LAPACK happens to take.
    """
    b1, b2, eps, lr = 0.8, 0.95, 1e-3, 0.01
    state = moments(PARAMS, v=lambda x: x.shape, **SIDES)

    def step(name, g, k):
        v, m, left, right = state[name]
        q, p = (np.linalg.eigh(a)[1] for a in (left, right))
        left[:] = b2 * left + (1 - b2) * g @ g.T
        right[:] = b2 * right + (1 - b2) * g.T @ g
        if k == 1:
            return 0.0
        m[:] = b1 * m + (1 - b1) * g
        v[:] = b2 * v + (1 - b2) * (q.T @ g @ p) ** 2
        root = np.sqrt(v / (1 - b2 ** (k - 1))) + eps
        return lr * q @ ((q.T @ m @ p) / (1 - b1 ** (k - 1)) / root) @ p.T

    ours = optsde.SOAP(lr=lr, b1=b1, b2=b2, eps=eps)
    agree(run(ours.transform(), PARAMS), written_out(step))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("order", [2, 4])
def test_inverse_root_of_stacked_matrices(order):
    """X^order (A + ε) = 1, to 10 digits, for each of three."""
    g = np.random.default_rng(0).normal(size=(3, 4, 6))
    a = g @ np.swapaxes(g, 1, 2)
    roots = jax.vmap(lambda a: inverse_root(a, order, 0.1))(jnp.asarray(a))
    product = np.linalg.matrix_power(roots, order) @ (a + 0.1 * np.eye(4))
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(4), a.shape), atol=1e-10)


def test_a_factor_without_full_rank_leaves_its_gradient_finite():
    """The first gradient of rank 1 is divided by its length, in float32 without ε."""
    g = jnp.outer(jnp.arange(1.0, 41), jnp.arange(1.0, 31))
    optimizer = optsde.Shampoo(lr=1.0, eps_root=0.0)
    direction = optimizer.direction()
    u, _ = direction.update(g, direction.init(g))
    np.testing.assert_allclose(u, g / jnp.linalg.norm(g), atol=1e-4)
    u, _ = direction.update(0 * g, direction.init(g))
    np.testing.assert_array_equal(u, 0 * g)


@pytest.mark.parametrize("family", [optsde.Shampoo, optsde.SOAP])
def test_factors_have_one_share_of_the_signal(family):
    """Of a switch at κ = 4, N/κ + G = (1 + 3q)/4 of L; not entry by entry."""
    old = family()
    params = {"w": jnp.ones((2, 2))}
    state = old.direction().init(params)._replace(factors=squares(params))
    new = old.rescale_state(state, 4.0, old.rescaled(4), signal=0.5)
    np.testing.assert_allclose(new.factors.left["w"], 2 * 2.5 / 4 * np.ones((2, 2)))
    for share in (params, {"w": 0.5}, np.ones((2, 2))):
        with pytest.raises(ValueError, match="give one number"):
            old.rescale_state(state, 4.0, old.rescaled(4), signal=share)


def test_the_mean_belongs_to_the_variation():
    """A step of h from empty averages leaves a direction of length 1/√h, as a run's
    first step is of length 1; by the noise alone it is a thousand times as long."""
    h, x = 1 / 16, jnp.zeros(2)
    mean, kick = jnp.array([1.0, 0.0]), jnp.array([0.0, 0.25])
    system = optsde.Shampoo(lr=1.0).sde()
    lengths = []
    for share in (mean, 0 * mean):
        y = system.init(x)
        _, flow = system.drift(0.0, x, y, mean, mean)
        _, noise = system.noise(0.0, x, y, mean, mean, kick, kick)
        squares = system.variation(x, y, share, kick, h)
        y = jax.tree.map(lambda y, f, n, s: y + h * f + n + s, y, flow, noise, squares)
        lengths.append(np.linalg.norm(system.drift(h, x, y, mean, mean)[0]))
    np.testing.assert_allclose(lengths[0], h**-0.5, rtol=1e-3)
    assert lengths[1] > 1000


def test_groups_take_up_the_variation_of_each_part():
    """Of a group by Shampoo what Shampoo alone takes up; of Momentum's nothing."""
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(2)}
    mean, kick = (jax.tree.map(lambda x, c=c: c * x, params) for c in (0.5, -2.0))
    alone = optsde.Shampoo(l2=0.1).sde()
    parts = {"w": optsde.Shampoo(l2=0.1), "b": optsde.Momentum()}
    joint = optsde.Groups(parts, lambda params: {"w": "w", "b": "b"}).sde()
    found = joint.variation(params, joint.init(params), mean, kick, 0.25)
    one, x, k = ({"w": tree["w"]} for tree in (params, mean, kick))
    expected = alone.variation(one, alone.init(one), x, k, 0.25)
    left = (1 - 0.999) * (0.25 * (0.5 + 0.1) - 2.0) ** 2 * 3 * np.ones((2, 2))
    np.testing.assert_allclose(expected.factors.left["w"], left, rtol=1e-5)
    for a, b in zip(
        jax.tree.leaves(found["w"]), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert not any(np.any(x) for x in jax.tree.leaves(found["b"]))
    assert (
        optsde.Groups({"b": optsde.Momentum()}, lambda p: "b").sde().variation is None
    )
