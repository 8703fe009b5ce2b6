"""Muon's updates against optax, against numbers of torch, and written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optsde
from optsde.plans.lines import written

START = {
    "wide": np.linspace(-1, 1, 6).reshape(2, 3),
    "tall": np.linspace(2, -1, 12).reshape(4, 3),
}
CURVATURE = np.array([[1.0, 0.3, 2.0], [0.05, 0.7, 1.2]])
BIAS = {"bias": np.array([0.3, -0.2, 0.8])}


def gradient(params, k):
    def of(x):
        turn = jnp.cos(0.7 * k + np.arange(x.size).reshape(x.shape))
        return CURVATURE[0, x.size % 3] * x + turn

    return jax.tree.map(of, params)


def run(transform, params=START, gradient=gradient, state=None, steps=100):
    params = jax.tree.map(jnp.asarray, params)
    state = transform.init(params) if state is None else state

    def step(carry, k):
        params, state = carry
        updates, state = transform.update(gradient(params, k), state, params)
        return (jax.tree.map(jnp.add, params, updates), state), params

    (end, _), _ = jax.lax.scan(step, (params, state), jnp.arange(steps))
    return end


def agree(ours, theirs):
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, rtol=0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("match_rms", "rms"), [(False, None), (True, 0.2)])
def test_equals_optax(match_rms, rms):
    """100 steps from the start, where optax's bias correction changes no direction."""
    ours = optsde.Muon(
        lr=0.01, beta=0.9, weight_decay=0.1, nesterov=False, match_rms=match_rms
    )
    theirs = optax.contrib.muon(
        0.01, beta=0.9, weight_decay=0.1, nesterov=False, consistent_rms=rms
    )
    agree(run(ours.transform()), run(theirs))


@pytest.mark.usefixtures("x64")
def test_nesterov_equals_optax_s_where_its_bias_corrections_are_one():
    """They are Nadam's; a count of 10⁶ puts them at 1."""
    theirs = optax.contrib.muon(0.01, beta=0.9)
    state = theirs.init(jax.tree.map(jnp.asarray, START))
    late = optax.tree.set(state, count=jnp.int32(1_000_000))
    ours = optsde.Muon(lr=0.01, beta=0.9).transform()
    agree(run(ours), run(theirs, state=late))


# After 100 steps of torch 2.15, with its Newton–Schulz in float64 and not bfloat16.
TORCH = {
    "Muon(lr=.01, momentum=.9, weight_decay=.1)": (
        optsde.Muon(lr=0.01, beta=0.9, weight_decay=0.1),
        [
            [0.0110615376, -0.4714568156, -0.0785365679],
            [0.4304678608, 0.2051823755, 0.08552022],
        ],
    ),
    "Muon(lr=.01, nesterov=False, weight_decay=0, adjust_lr_fn='match_rms_adamw')": (
        optsde.Muon(lr=0.01, nesterov=False, match_rms=True),
        [
            [-0.7303085672, -0.5539507129, -0.1140135958],
            [0.2231554418, 0.4943429879, 0.7054182713],
        ],
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", TORCH)
def test_equals_torch(name):
    ours, end = TORCH[name]

    def theirs(x, k):
        return CURVATURE * x + jnp.cos(0.7 * k + np.arange(6).reshape(2, 3))

    found = run(ours.transform(), START["wide"], theirs)
    np.testing.assert_allclose(found, end, atol=1e-6, rtol=0)


@pytest.mark.usefixtures("x64")
def test_groups_with_adam_are_optax_s_muon():
    """Matrices by Muon, the rest by AdamW."""

    def labels(params):
        return jax.tree.map(lambda x: "muon" if x.ndim == 2 else "rest", params)

    parts = {
        "muon": optsde.Muon(lr=0.02, nesterov=False, weight_decay=0.1),
        "rest": optsde.Adam(lr=3e-3, b2=0.99, weight_decay=0.2),
    }
    theirs = optax.contrib.muon(
        0.02,
        weight_decay=0.1,
        nesterov=False,
        adam_learning_rate=3e-3,
        adam_b2=0.99,
        adam_weight_decay=0.2,
    )
    ours = optsde.Groups(parts, labels)
    agree(run(ours.transform(), START | BIAS), run(theirs, START | BIAS))
    big = ours.rescaled(4)
    assert (big.parts["muon"].lr, big.parts["rest"].lr) == (0.08, 6e-3)


@pytest.mark.usefixtures("x64")
def test_exact_factors_and_vectors():
    """Written out with numpy, over 20 steps; of a vector with three entries c is √3."""
    params = {"w": START["tall"], **BIAS}
    ours = optsde.Muon(lr=0.01, beta=0.9, exact=True).transform()
    found = run(ours, params, steps=20)
    x, m = params, jax.tree.map(np.zeros_like, params)
    for k in range(20):
        g = jax.tree.map(np.asarray, gradient(x, k))
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        ahead = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        u, _, vt = np.linalg.svd(ahead["w"], full_matrices=False)
        unit = ahead["bias"] / np.linalg.norm(ahead["bias"])
        x = {"w": x["w"] - 0.01 * u @ vt, "bias": x["bias"] - 0.01 * 3**0.5 * unit}
    agree(found, x)


def test_line_of_torch():
    """torch.optim.Muon has a weight_decay of .1 unless said, and no exact factors."""
    (line,) = written("torch", optsde.Muon(lr=0.1, nesterov=False))
    call = "torch.optim.Muon(matrices, lr=0.1, momentum=0.95, nesterov=False, "
    assert line == f"optimizer = {call}weight_decay=0.0)"
    (line,) = written("torch", optsde.Muon(exact=True))
    assert line == "none: torch.optim has no Muon with exact=True"
