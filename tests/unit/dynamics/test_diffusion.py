"""Euler–Maruyama steps: their length, their Brownian paths, and diffrax on them."""

import chex
import diffrax
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import pytest
from helpers.quadratic import THETA0, covariance, plan

import optsde
from optsde import gradients
from optsde.dynamics.diffusion import increments
from optsde.dynamics.sphere import sphere
from optsde.gradients import Draw
from optsde.optimizers.base import Clock
from optsde.problems import sphere as toy
from optsde.problems.quadratic import quadratic_loss

LAW = gradients.from_covariance(quadratic_loss, covariance(1.0))
KEY = jax.random.key(3)


def path(dynamics, steps, state=None):
    """The states after each of so many steps."""
    start = dynamics.init(KEY) if state is None else state
    step = lambda state, _: (dynamics.step(state, None)[0],) * 2  # noqa: E731
    return jax.jit(lambda state: jax.lax.scan(step, state, length=steps)[1])(start)


def at_time(dynamics, time):
    """The initial state, of which the clock says another time."""
    state = dynamics.init(KEY)
    clock = Clock.start(dynamics.dt, time)
    if hasattr(state, "gamma"):
        return state._replace(clock=clock)
    return state._replace(optimizer=state.optimizer._replace(clock=clock))


@pytest.mark.parametrize("kind", ["sde", "sphere"])
def test_steps_keep_their_length_at_late_times(kind):
    """Steps of 1/256 from t = 65,536, where a float32 is 1/128 from the next."""
    base = plan(optsde.SGD(lr=0.1), 1.0)
    if kind == "sde":
        dynamics, read = optsde.sde(base, LAW, THETA0, 256), lambda s: s.params
    else:
        loss = toy.loss_of(toy.curvatures(3, 1.0))
        law = gradients.from_covariance(loss, toy.tangent_noise())
        dynamics, read = sphere(base, law, jnp.ones(3), 256), lambda s: s.direction
    early, late = (
        read(path(dynamics, 256, at_time(dynamics, time))) for time in (0.0, 65_536.0)
    )
    assert not np.allclose(early[0], early[-1])
    np.testing.assert_array_equal(early, late)


@pytest.mark.parametrize("parts", [1, 2])
def test_steps_are_those_of_diffrax(parts):
    """Adam from its start: diffrax's Euler method, its terms, its loop, our path."""
    base, h, steps = plan(optsde.Adam(lr=0.1, eps=0.5), 4.0), 1 / 8, 32
    system = base.optimizer.sde()
    y0 = THETA0, system.init(THETA0)
    ours = path(optsde.sde(base, LAW, THETA0, 8, parts=parts), steps)

    class Path(diffrax.AbstractPath):
        t0 = 0.0
        t1 = 4.0

        def evaluate(self, t0, t1=None, left=True, use_jump=True):
            step = jnp.round(t0 / h).astype(int) * parts
            fine = [
                increments(LAW, THETA0, Draw(KEY, step + i), h / parts)
                for i in range(parts)
            ]
            return jax.tree.map(lambda *x: sum(x), *fine)

    def drift(t, y, args):
        _, mean, variance, _ = LAW.moments(y[0], jnp.zeros_like(y[0]))
        return system.drift(t, *y, mean, variance)

    def diffusion(t, y, args):
        def of_increments(both):
            dw, spare = both
            _, mean, variance, kick = LAW.moments(y[0], dw)
            return system.noise(t, *y, mean, variance, kick, spare)

        like = jax.eval_shape(lambda: (THETA0, THETA0))
        return lineax.FunctionLinearOperator(of_increments, like)

    control = diffrax.ControlTerm(diffusion, Path())
    solution = diffrax.diffeqsolve(
        diffrax.MultiTerm(diffrax.ODETerm(drift), control),
        diffrax.Euler(),
        t0=0.0,
        t1=4.0,
        dt0=h,
        y0=y0,
        adjoint=diffrax.ForwardMode(),
    )
    last = jax.tree.map(lambda x: x[-1], (ours.params, ours.optimizer.direction))
    theirs = jax.tree.map(lambda x: x[-1], solution.ys)
    chex.assert_trees_all_close(last, theirs, rtol=2e-5, atol=1e-6)


def test_parts_follow_the_finer_path():
    """Without drift or memory, θ is the Brownian path itself, at every other step."""
    flat = gradients.from_covariance(lambda x: 0.0 * jnp.sum(x), covariance(1.0))
    still = flat._replace(
        moments=lambda params, dw: flat.moments(params, dw)._replace(kick=dw)
    )
    base = plan(optsde.SGD(lr=1.0), 4.0)
    fine = path(optsde.sde(base, still, THETA0, 8), 32)
    coarse = path(optsde.sde(base, still, THETA0, 4, parts=2), 16)
    np.testing.assert_allclose(coarse.params, fine.params[1::2], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(coarse.time, fine.time[1::2])
    assert np.std(np.diff(fine.params[:, 0])) == pytest.approx(8**-0.5, rel=0.5)


def test_going_on_draws_nothing_twice():
    """In stretches as in one go; under other substeps and parts, on the path ahead."""
    base = plan(optsde.Momentum(lr=0.1), 8.0)
    coarse = optsde.sde(base, LAW, THETA0, 4, parts=2)
    whole, half = path(coarse, 16), path(coarse, 8)
    state = jax.tree.map(lambda x: x[-1], half)
    rest = path(coarse, 8, state)
    chex.assert_trees_all_equal(jax.tree.map(lambda x: x[8:], whole), rest)
    fine = path(optsde.sde(base, LAW, THETA0, 8), 16)
    np.testing.assert_array_equal(state.step, fine.step[-1])
    ahead = path(optsde.sde(base, LAW, THETA0, 8), 16, state)
    assert not set(np.asarray(ahead.step)) & set(np.asarray(fine.step))
    np.testing.assert_array_equal(ahead.time, np.arange(17, 33) / 8)


@pytest.mark.parametrize("wrong", [dict(substeps=0), dict(parts=0), dict(parts=1.5)])
def test_steps_and_parts_are_whole(wrong):
    with pytest.raises(ValueError, match="needs a whole number from 1"):
        optsde.sde(plan(optsde.SGD(lr=0.1), 1.0), LAW, THETA0, **wrong)
