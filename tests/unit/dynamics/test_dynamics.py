"""Ensembles against separate runs, and the SDE against closed forms."""

import io

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import sized
from helpers.quadratic import THETA0, covariance, estimate, largest_error, plan, sampler

import optsde
from optsde import EMA, SWA, Plan
from optsde.gradients import Covariance, Draw, Use, from_covariance, gaussian
from optsde.problems.quadratic import quadratic_loss


def params_of(state):
    return state.params


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def adam_run(**options):
    base = plan(optsde.Adam(lr=0.1, **options), 12.0)
    return optsde.discrete(base, sampler(1.0), THETA0)


def by_hand(dynamics, key, *times):
    """The states after so many steps, from a plain loop."""
    state, found = dynamics.init(key), []
    step = jax.jit(lambda state: dynamics.step(state, dynamics.source)[0])
    for count in range(max(times)):
        state = step(state)
        if count + 1 in times:
            found.append(state)
    return found[0] if len(times) == 1 else found


@pytest.mark.parametrize("replicas", [1, 3])
def test_an_ensemble_is_its_separate_runs(replicas):
    """One, which is not vmapped, and several."""
    dynamics = adam_run()
    out = optsde.ensemble(dynamics, keys(replicas), [0, 4, 12], params_of)
    assert out.values.shape == (replicas, 3, 2)
    for i, key in enumerate(keys(replicas)):
        np.testing.assert_allclose(out.values[i, 0], THETA0)
        early, end = by_hand(dynamics, key, 4, 12)
        np.testing.assert_allclose(out.values[i, 1], early.params, rtol=1e-5)
        np.testing.assert_allclose(out.values[i, 2], end.params, rtol=1e-5)
        alone = jax.tree.map(lambda x, i=i: x[i], out.state)
        chex.assert_trees_all_close(alone.optimizer, end.optimizer, rtol=1e-5)


def test_chunks_and_progress_change_nothing():
    stream = io.StringIO()
    plain, shown = (
        optsde.ensemble(adam_run(), keys(4), [12], params_of, progress=progress)
        for progress in (None, optsde.Progress("adam", stream))
    )
    np.testing.assert_array_equal(plain.values, shown.values)
    assert "adam  t = 12/12  100%" in stream.getvalue()


def test_stacked_hyperparameters():
    """Each member is the run of its own hyperparameters."""
    lrs = jnp.array([0.05, 0.1, 0.2])

    def make(optimizer):
        return optsde.discrete(plan(optimizer, 12.0), sampler(1.0), THETA0)

    members = jax.vmap(lambda lr: optsde.Adam(lr=lr))(lrs)
    same = jnp.stack([jax.random.key(5)] * 3)
    out = optsde.ensemble(make, same, [12], params_of, members=members)
    for i, lr in enumerate(lrs):
        alone = by_hand(make(optsde.Adam(lr=float(lr))), jax.random.key(5), 12)
        np.testing.assert_allclose(out.values[i, 0], alone.params, rtol=1e-5, atol=1e-6)
    assert len(np.unique(out.values[:, 0, 0])) == 3


def test_going_on_equals_not_stopping():
    whole = optsde.ensemble(adam_run(), keys(5), [12], params_of)
    half = optsde.ensemble(adam_run(), keys(5), [6], params_of)
    rest = optsde.ensemble(adam_run(), keys(5), [12], params_of, state=half.state)
    np.testing.assert_array_equal(whole.values, rest.values)
    chex.assert_tree_all_finite(half.state.params)  # the caller's copy is still there


@pytest.mark.parametrize(
    ("times", "message"),
    [([0.5], "nearest that can be observed is 0"), ([4, 2], "rise"), ([], "rise")],
)
def test_bad_times_are_refused(times, message):
    with pytest.raises(ValueError, match=message):
        optsde.ensemble(adam_run(), keys(2), times, params_of)


def test_divergence_is_located():
    base = plan(optsde.SGD(lr=10.0), 100.0)
    dynamics = optsde.discrete(base, sampler(1.0), THETA0)
    out = optsde.ensemble(dynamics, keys(2), [1, 4, 60, 100], params_of)
    assert out.diverged() == (4.0, 60.0)
    assert optsde.ensemble(adam_run(), keys(2), [4], params_of).diverged() is None


def test_start_point_may_depend_on_the_seed():
    base = plan(optsde.SGD(lr=0.1), 4.0)
    dynamics = optsde.discrete(
        base, sampler(0.0), lambda key: jax.random.normal(key, 2)
    )
    out = optsde.ensemble(dynamics, keys(3), [0], params_of)
    assert len(np.unique(out.values[:, 0, 0])) == 3


def test_averages_of_the_weights():
    """EMA and SWA against the path itself; SWA at κ = 4 averages the same times."""
    path = optsde.ensemble(
        optsde.discrete(plan(optsde.SGD(lr=0.1), 16.0), sampler(1.0), THETA0),
        keys(1),
        list(range(17)),
        params_of,
    ).values[0]
    ema = THETA0
    for x in path[1:]:
        ema = 0.9 * ema + 0.1 * x
    for average, expected in [
        (EMA(0.9), ema),
        (SWA(4, 4), path[[4, 8, 12, 16]].mean(0)),
        (SWA(16, 4), path[16]),  # at the horizon: the last point alone
    ]:
        base = plan(optsde.SGD(lr=0.1), 16.0, average=average)
        dynamics = optsde.discrete(base, sampler(1.0), THETA0)
        end = optsde.ensemble(
            dynamics, keys(1), [16], lambda s, a=average: a.value(s.average)
        )
        np.testing.assert_allclose(end.values[0, 0], expected, rtol=1e-5)
    big = optsde.scale(plan(optsde.SGD(lr=0.1), 16.0, average=SWA(4, 4)), 4)
    dynamics = optsde.discrete(big, sampler(1.0), THETA0)
    states = optsde.ensemble(
        dynamics, keys(1), [4, 8, 12, 16], lambda s: (s.params, s.average[1])
    )
    each, swa = states.values
    np.testing.assert_allclose(swa[0, -1], each[0].mean(0), rtol=1e-5)


def test_averages_keep_the_clock_through_a_switch():
    """SWA from t = 0 every 4, switch to κ = 4 at t = 8: five are taken by t = 16."""
    old = plan(optsde.SGD(lr=0.1), 16.0, average=SWA(0, 4))
    new = optsde.scale(old, 4)
    first = optsde.ensemble(
        optsde.discrete(old, sampler(1.0), THETA0), keys(2), [0, 4, 8], params_of
    )
    held = jax.vmap(lambda state: optsde.switch(state, old, new))
    state = first.state._replace(optimizer=held(first.state.optimizer))
    second = optsde.ensemble(
        optsde.discrete(new, sampler(1.0), THETA0),
        keys(2),
        [12, 16],
        lambda state: (state.params, state.average[0], state.average[1]),
        state=state,
    )
    points, taken, mean = second.values
    np.testing.assert_array_equal(taken[:, -1], 5)
    path = np.concatenate([first.values, points], axis=1)
    np.testing.assert_allclose(mean[:, -1], path.mean(axis=1), rtol=1e-5)


def test_ensemble_refuses_what_it_would_ignore():
    members = optsde.Adam(lr=jnp.ones(2))
    with pytest.raises(ValueError, match="function of one member"):
        optsde.ensemble(adam_run(), keys(2), [4], params_of, members=members)
    with pytest.raises(ValueError, match="stack every hyperparameter"):
        optsde.ensemble(lambda _: adam_run(), keys(3), [4], params_of, members=members)
    half = optsde.ensemble(adam_run(), keys(2), [4], params_of)
    with pytest.raises(ValueError, match="rise from 4 on"):
        optsde.ensemble(adam_run(), keys(2), [2, 8], params_of, state=half.state)


def test_clip_is_applied_before_the_update():
    base = plan(optsde.SGD(lr=1.0), 1.0, clip=0.01)
    end = by_hand(optsde.discrete(base, sampler(0.0), THETA0), jax.random.key(0), 1)
    assert float(jnp.linalg.norm(end.params - THETA0)) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("paths", sized(4_000, 20_000))
def test_sde_of_sgd_is_an_ornstein_uhlenbeck_process(paths):
    """dx = −lr(h x dt + s dW): mean and variance at t = 20, bound 4 s.e. + 1%."""
    lr, h, s, t = 0.05, 1.0, 3.0, 20.0
    known = Covariance(lambda x, z: s * z, lambda x: s**2 * jnp.ones_like(x))
    law = from_covariance(lambda x: 0.5 * h * jnp.sum(x**2), known)
    base = plan(optsde.SGD(lr=lr), t)
    x = optsde.ensemble(
        optsde.sde(base, law, jnp.array([1.5]), 8), keys(paths), [t], params_of
    ).values[:, 0, 0]
    mean = 1.5 * np.exp(-lr * h * t)
    variance = lr * s**2 / (2 * h) * (1 - np.exp(-2 * lr * h * t))
    assert abs(x.mean() - mean) < 4 * x.std() / paths**0.5 + 0.01 * mean
    assert abs(x.var() / variance - 1) < 4 * (2 / paths) ** 0.5 + 0.01


@pytest.mark.parametrize("paths", sized(2_000, 20_000))
def test_a_plan_and_its_rescalings_have_one_sde(paths):
    """Adam at κ = 4 and SVAG(2): means over all paths, within 4 s.e. + .002."""
    base = Plan(optimizer=optsde.Adam(lr=0.1, eps=0.5), batch_size=4, horizon=8)
    fine = optsde.svag(base, 2)
    big = optsde.scale(base, 4)
    found = []
    for seed, (scaled, substeps) in enumerate([(base, 16), (big, 64), (fine, 4)]):
        law = from_covariance(quadratic_loss, covariance(2.0), scaled.batch_size)
        dynamics = optsde.sde(scaled, law, THETA0, substeps)
        assert dynamics.dt == 1 / 16
        found.append(estimate(dynamics, 8, paths, seed))
    for other in found[1:]:
        error, se = largest_error(found[0], other)
        assert error < 4 * se + 2e-3


def test_an_sde_goes_on_with_other_substeps():
    """lr is off from t = 4 on: whatever the substeps, nothing moves after that."""
    schedule = lambda t: jnp.where(t < 4, 1.0, 0.0)  # noqa: E731
    base = plan(optsde.SGD(lr=0.1), 8.0, schedule=schedule)
    law = from_covariance(quadratic_loss, covariance(1.0))
    half = optsde.ensemble(optsde.sde(base, law, THETA0, 2), keys(2), [4], params_of)
    finer = optsde.sde(base, law, THETA0, 16)
    rest = optsde.ensemble(finer, keys(2), [8], params_of, state=half.state)
    np.testing.assert_array_equal(half.values, rest.values)
    np.testing.assert_array_equal(rest.state.time, 8)


def test_sde_refuses_what_it_would_ignore():
    law = from_covariance(quadratic_loss, covariance(1.0))
    with pytest.raises(ValueError, match="clip and average must be None"):
        optsde.sde(plan(optsde.SGD(lr=0.1), 1.0, clip=1.0), law, THETA0)


def test_the_schedule_is_read_in_base_time():
    """A schedule that switches lr off at t = 8 stops every rescaled run there."""
    schedule = lambda t: jnp.where(t < 8, 1.0, 0.0)  # noqa: E731
    base = Plan(
        optimizer=optsde.SGD(lr=0.1), batch_size=4, horizon=16, schedule=schedule
    )
    noise = gaussian(quadratic_loss, covariance(1.0))
    law = from_covariance(quadratic_loss, covariance(1.0), 4)
    for dynamics in (
        optsde.discrete(base, noise, THETA0),
        optsde.discrete(optsde.scale(base, 4), noise, THETA0),
        optsde.discrete(optsde.svag(base, 4), noise, THETA0),
        optsde.sde(base, law, THETA0, 4),
    ):
        x = optsde.ensemble(dynamics, keys(1), [4, 8, 16], params_of).values[0]
        assert not np.allclose(x[0], x[1])
        np.testing.assert_array_equal(x[1], x[2])


def test_two_seeds_two_streams():
    """Draws of two steps, two keys and two streams all differ."""
    draw = Draw(jax.random.key(0), jnp.int32(1))
    others = [
        Draw(jax.random.key(0), jnp.int32(2)),
        Draw(jax.random.key(1), jnp.int32(1)),
        draw.stream(Use.MIX_FIRST),
        draw.stream(Use.MIX_SECOND),
    ]
    numbers = {float(jax.random.normal(d.fresh())) for d in [draw, *others]}
    assert len(numbers) == 5
