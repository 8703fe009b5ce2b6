"""SDEs driven by α-stable noise: a closed form, runs at small κ, what is refused.

Their variance is infinite, so cosines of θ are compared, whose means are the
characteristic function; they are bounded, and have standard errors.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import sized

import optsde
from optsde import gradients
from optsde.dynamics.sphere import sphere
from optsde.optimizers.base import REGISTRY
from optsde.problems.sphere import tangent_noise

FREQUENCIES = np.array([0.5, 1.0, 2.0])
CURVATURE, SIZE, START = 1.0, 1.5, 1.0


def loss(x):
    return 0.5 * CURVATURE * jnp.sum(x**2)


def law_of(alpha):
    """Batch size -> the stable noise alone: what else there is has no variance."""

    def law(batch_size):
        none = gradients.diagonal(jnp.zeros_like)
        size = SIZE * batch_size ** (1 / alpha - 1)
        return gradients.heavy_tailed_law(
            gradients.from_covariance(loss, none), alpha, size
        )

    return law


def sampler_of(alpha):
    exact = gradients.FunctionOracle(lambda _, x, draw: jax.value_and_grad(loss)(x))

    def sampler(batch_size):
        size = SIZE * batch_size ** (1 / alpha - 1)
        return gradients.heavy_tailed(exact, alpha, size)

    return sampler


def cosines(dynamics, time, paths, seed):
    """E cos(t θ) of 8 coordinates, which are independent, and its standard errors."""
    keys = jax.random.split(jax.random.key(seed), paths)
    out = optsde.ensemble(dynamics, keys, [time], lambda s: s.params).values[:, 0]
    values = np.cos(FREQUENCIES * out[..., None]).reshape(-1, len(FREQUENCIES))
    return values.mean(0), values.std(0) / len(values) ** 0.5


@pytest.mark.parametrize("alpha", [1.2, 1.7, 2.0])
@pytest.mark.parametrize("paths", sized(1_000, 40_000))
def test_sgd_is_a_stable_ornstein_uhlenbeck_process(alpha, paths):
    """E e^{itθ} = e^{itx₀d − |lr·size·t|^α (1 − d^α)/(α h lr)}, d = e^{−h lr T}.

    Bound: 4 standard errors and .004, for steps of lr/8.
    """
    lr, time = 0.1, 12
    base = optsde.Plan(optimizer=optsde.SGD(lr=lr), batch_size=1, horizon=time)
    dynamics = optsde.sde(base, law_of(alpha)(1), jnp.full(8, START), 8)
    found, se = cosines(dynamics, time, paths, 0)
    decay = np.exp(-lr * CURVATURE * time)
    scale = (lr * SIZE * FREQUENCIES) ** alpha
    spread = scale * (1 - decay**alpha) / (alpha * lr * CURVATURE)
    expected = np.cos(FREQUENCIES * START * decay) * np.exp(-spread)
    assert np.all(np.abs(found - expected) < 4 * se + 0.004), (found, expected, se)


WITH_LIMIT = {
    "sgd": optsde.SGD(lr=0.1),
    "momentum": optsde.Momentum(lr=0.1, beta=0.8),
    "heavyball": optsde.HeavyBall(lr=0.02, beta=0.8),
    "signum": optsde.Signum(lr=0.1, beta=0.8),
    "muon": optsde.Muon(lr=0.1, beta=0.8),
    "lamb": optsde.LAMB(lr=0.1, b1=0.8, b2=0.9),
    "adam": optsde.Adam(lr=0.1, b1=0.8, b2=0.9),
    "adammini": optsde.AdamMini(lr=0.1, b1=0.8, b2=0.9),
    "mars": optsde.MARS(lr=0.1, b1=0.8, b2=0.9),
    "ademamix": optsde.AdEMAMix(lr=0.05, b1=0.8, b2=0.9, b3=0.9, alpha=2.0),
    "schedulefreesgd": optsde.ScheduleFreeSGD(lr=0.1, beta=0.8),
    "shampoo": optsde.Shampoo(lr=0.1, b1=0.8, b2=0.9),
}
FEWER = ("adammini", "mars", "muon", "lamb", "ademamix", "schedulefreesgd")
FULL_PATHS = {name: 4_000 if name in FEWER else 40_000 for name in WITH_LIMIT}
FULL_PATHS |= dict(shampoo=500)  # an eigendecomposition in each step


def test_who_has_a_limit_under_jumps():
    assert {name for name, family in REGISTRY.items() if family.jumps} == {*WITH_LIMIT}


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        *((name, 1_000) for name in ("sgd", "adam")),
        *(pytest.param(n, k, marks=pytest.mark.full) for n, k in FULL_PATHS.items()),
    ],
)
def test_small_batches_approach_the_sde_under_jumps(name, paths):
    """Runs at κ = 1/64 under α = 1.5; bound 4 s.e. and .01, for what is left of κ."""
    time, alpha = 12, 1.5
    base = optsde.Plan(optimizer=WITH_LIMIT[name], batch_size=64, horizon=time)
    start = jnp.full(8, START)
    fine = optsde.discrete(optsde.scale(base, 1 / 64), sampler_of(alpha), start)
    limit = optsde.sde(base, law_of(alpha)(64), start, 32)
    (run, se), (sde, other) = (
        cosines(dynamics, time, paths, seed)
        for seed, dynamics in enumerate((fine, limit))
    )
    assert np.all(np.abs(run - sde) < 4 * np.hypot(se, other) + 0.01), (run, sde, se)
    moved = np.abs(sde - np.cos(FREQUENCIES * START))
    assert moved.max() > 10 * se.max()


@pytest.mark.parametrize("paths", sized(1_000, 40_000))
def test_svag_of_stable_noise_leaves_the_limit(paths):
    """Its mix is wider than the rule's noise, the more so the larger ℓ is.

    Two draws of weights ½(1 ± √(2ℓ−1)) have Σ|w|^α ≠ ℓ^{α−1}: at ℓ = 8, α = 1.2 the
    cosines of SVAG are further from the SDE than 10 standard errors.
    """
    alpha, time = 1.2, 12
    base = optsde.Plan(optimizer=optsde.SGD(lr=0.1), batch_size=1, horizon=time)
    start = jnp.full(8, START)
    mixed = optsde.discrete(optsde.svag(base, 8), sampler_of(alpha), start)
    limit = optsde.sde(base, law_of(alpha)(1), start, 8)
    (run, se), (sde, other) = (
        cosines(dynamics, time, paths, seed)
        for seed, dynamics in enumerate((mixed, limit))
    )
    assert np.all(sde - run > 10 * np.hypot(se, other)), (run, sde, se)


def test_a_law_with_jumps_is_drawn_from():
    """A unit of time of it is one gradient of `heavy_tailed`: the same quartiles."""
    alpha, x = 1.5, jnp.zeros(40_000)
    draw = gradients.Draw(jax.random.key(0), 0)
    _, ours = gradients.drawn_from(law_of(alpha))(4)(x, draw)
    _, theirs = sampler_of(alpha)(4)(x, draw._replace(step=1))
    ours, theirs = (np.quantile(np.abs(g), [0.25, 0.5, 0.75]) for g in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, rtol=0.04)


def test_parts_add_up():
    """Two half increments are as one: h^{1/α}, of E cos within 4 standard errors."""
    law = law_of(1.5)(1)
    x = jnp.zeros(40_000)
    keys = jax.random.split(jax.random.key(1), 3)
    first, second = (law.increment(key, law.shape(x), 0.5) for key in keys[:2])
    whole = law.increment(keys[2], law.shape(x), 1.0)
    both = jax.tree.map(jnp.add, first, second)
    assert float(both.time) == float(whole.time) == 1
    found = [np.cos(np.asarray(d.jump)) for d in (both, whole)]
    assert abs(found[0].mean() - np.exp(-1)) < 4 * found[0].std() / 200
    assert abs(found[1].mean() - np.exp(-1)) < 4 * found[1].std() / 200


@pytest.mark.parametrize("name", sorted(set(REGISTRY) - set(WITH_LIMIT)))
def test_who_divides_by_the_variance_is_refused(name):
    base = optsde.Plan(optimizer=REGISTRY[name](), batch_size=1, horizon=1)
    with pytest.raises(ValueError, match="stable noise has not; use SGD"):
        optsde.sde(base, law_of(1.5)(1), jnp.ones(2))


def test_what_has_another_limit_is_refused():
    base = optsde.Plan(optimizer=optsde.SGD(lr=0.1), batch_size=1, horizon=1)
    with pytest.raises(ValueError, match="has another limit; use the plan itself"):
        optsde.sde(optsde.svag(base, 2), law_of(1.5)(1), jnp.ones(2))
    law = gradients.heavy_tailed_law(
        gradients.from_covariance(loss, tangent_noise()), 1.5, 1.0
    )
    with pytest.raises(ValueError, match="stable noise has not"):
        sphere(base, law, jnp.ones(3))
    with pytest.raises(ValueError, match=r"\(0, 2\]"):
        gradients.heavy_tailed_law(law, 2.5, 1.0)
