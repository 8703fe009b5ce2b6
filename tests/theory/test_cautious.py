"""The cautious mask, on noise and on a quadratic: why it is no family here.

Where the newest gradient has another sign than the direction, no step is made, and the
others are longer by 1/(share of those that are) (Liang et al. 2024, arXiv 2411.16085,
as their code has it). A divisor has no part in a sign, so that Momentum's direction
stands for Adam's, and lr·κ for its lr·√κ.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optsde


def share(beta):
    """The part of noise that goes through: ½ + arcsin(ρ)/π, ρ of m with g."""
    return 0.5 + np.arcsin(np.sqrt(1 - beta**2)) / np.pi


def speed(beta):
    """d E u/dμ at 0 of gradients μ + noise; without the mask it is 1."""
    return 1 + beta * np.sqrt((1 - beta) / (1 + beta)) / (np.pi * share(beta))


def masked(u, g):
    mask = u * g > 0
    return u * mask / jnp.maximum(jnp.mean(mask), 1e-3), jnp.mean(mask)


def means(optimizer, start, noise, steps, size):
    """E x with the mask after the steps, its standard error, and E x without; the
    share of steps taken. Gradients are x + noise; E x without the mask is exact."""
    direction = optimizer.direction()
    x = jnp.full(size, start)

    def step(carry, key):
        x, state, plain, m = carry
        z = noise * jax.random.normal(key, (size,))
        u, state = direction.update(x + z, state)
        u, taken = masked(u, x + z)
        v, m = direction.update(plain + z, m)
        return (x - optimizer.lr * u, state, plain - optimizer.lr * v, m), taken

    memory = direction.init(x)
    keys = jax.random.split(jax.random.key(0), steps)
    run = jax.jit(lambda c: jax.lax.scan(step, c, keys))
    (x, _, plain, _), taken = run((x, memory, x, memory))
    exact, m = start, 0.0
    for _ in range(steps):
        m = optimizer.beta * m + (1 - optimizer.beta) * exact
        exact = exact - optimizer.lr * m
    x, plain = np.asarray(x, np.float64), np.asarray(plain, np.float64)
    weight = np.cov(x, plain)[0, 1] / plain.var()
    x = x - weight * (plain - exact)
    return x.mean(), x.std() / size**0.5, exact, np.asarray(taken)


@pytest.mark.parametrize("kappa", [pytest.param(1, marks=pytest.mark.full), 10, 50])
def test_in_noise_it_is_a_longer_step(kappa):
    """Slow descent by a rescaled Momentum, .99 at κ = 1: the mask passes its share and
    makes x as fast as `speed` says. Bounds: 4 s.e., and .02 for what is not slow."""
    lr, steps = 5e-4, 2000
    optimizer = optsde.Momentum(lr=lr, beta=0.99).rescaled(kappa)
    noise = 10 / kappa**0.5
    x, se, exact, taken = means(optimizer, 0.3, noise, steps // kappa, 20_000)
    found = np.log(x / 0.3) / np.log(exact / 0.3)
    se = se / x / abs(np.log(exact / 0.3))
    assert abs(found - speed(optimizer.beta)) < 4 * se + 0.02
    assert abs(taken[len(taken) // 2 :].mean() - share(optimizer.beta)) < 0.01


@pytest.mark.full
def test_the_limit_is_without_it_at_half_the_order():
    """κ = 1/4, 1/16, 1/64: what the mask does to E x falls by 2, and not by 4."""
    base = optsde.Momentum(lr=0.05, beta=0.9)
    gaps = []
    for kappa in (1 / 4, 1 / 16, 1 / 64):
        new = base.rescaled(kappa)
        noise, steps = 10 / kappa**0.5, round(20 / kappa)
        x, se, exact, _ = means(new, 1.5, noise, steps, 20_000)
        assert abs(x - exact) > 10 * se
        gaps.append(abs(x - exact))
    ratios = np.array(gaps[:-1]) / gaps[1:]
    assert np.all((ratios > 1.6) & (ratios < 2.6))
