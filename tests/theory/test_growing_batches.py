"""A batch that grows in place of a falling lr: closed forms, and a noisy quadratic."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.quadratic import THETA0, adam, sampler

from experiments.batches import growing, regression, stages
from experiments.batches.growing import FALLS, GROWS, STAYS
from optsde import measure
from optsde.analysis import estimate
from optsde.gradients import FunctionOracle
from optsde.problems.quadratic import second_order_moments


def means(ways, ends, times, sampler, start, observe, paths):
    """The mean of what is observed at each time of every way, with its error."""

    def evaluation(times):
        return measure.probe(lambda _, state: {"x": observe(state.params)}, times=times)

    problem = SimpleNamespace(init=lambda key: start, evaluation=evaluation)
    keys = jax.random.split(jax.random.key(0), paths)
    found = stages.train(ways, ends, times, sampler, problem, keys)
    return {name: estimate(arrays["x"]) for name, arrays in found.items()}


@pytest.mark.full
def test_runs_on_a_regression_have_the_exact_loss():
    """At all times, within 4 s.e. of 4,000 paths (18 comparisons)."""
    sizes = dict(dimension=3, steps=512, batch_size=2, evaluations=8)
    s = regression.Settings(**sizes, lr=0.2, noise=1.0)
    arms, h = regression.of_lr(s, 0.2), jnp.asarray(regression.curvatures(s))
    ways = {name: growing.ways(arms)[name] for name in (FALLS, GROWS)}

    def batches(size):
        def of_draw(source, e, draw):
            one, other = jax.random.split(jax.random.fold_in(draw.key, draw.step))
            x = jnp.sqrt(h)[None] * jax.random.normal(one, (size, 3))
            residual = x @ e - jax.random.normal(other, (size,))
            return jnp.mean(residual**2) / 2, x.T @ residual / size

        return FunctionOracle(of_draw)

    def excess(e):
        return jnp.sum(h * e**2) / 2

    times = arms.every * np.arange(9)
    found = means(ways, arms.ends, times, batches, jnp.ones(3), excess, 4_000)
    for name, way in ways.items():
        exact = regression.excess(s, way, arms)
        error = np.abs(found[name].mean - exact)
        assert np.all(error < 4 * found[name].se + 1e-6), name


@pytest.mark.full
def test_adam_on_a_noisy_quadratic():
    """lr falls by 4 half-way, or the batch grows by 16. Stated beforehand: the moments
    differ by less than .03 + 4 s.e.; where neither changes, by 4 s.e. more than so."""
    s = growing.Settings(
        optimizer=adam(1 / 16, eps0=0.5),
        batch_size=1,
        horizon=512.0,
        drops=(256.0,),
        evaluations=4,
        growth=16,
        memory="linear",
    )
    ways = {name: growing.ways(s)[name] for name in (FALLS, GROWS, STAYS)}
    times, observe = [384, 512], second_order_moments
    found = means(ways, s.ends, times, sampler(16.0), THETA0, observe, 20_000)
    errors = {}
    for name in GROWS, STAYS:
        gap = found[name] - found[FALLS]
        worst = np.unravel_index(np.abs(gap.mean).argmax(), gap.mean.shape)
        errors[name] = abs(gap.mean[worst]), gap.se[worst]
    (right, se), (wrong, other) = errors[GROWS], errors[STAYS]
    assert right < 0.03 + 4 * se
    assert wrong > right + 4 * np.hypot(se, other)
