"""measure.invariance and measure.intrinsic: closed forms, known nets, runs."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optsde
from optsde import gradients, measure, models
from optsde.dynamics.sphere import gamma_at
from optsde.gradients import Draw, FunctionOracle
from optsde.measure import Kind
from optsde.measure.intrinsic import ALL, by_path
from optsde.problems import sphere as toy

DRAW = Draw(jax.random.key(3), jnp.int32(5))
PARAMS = {
    "columns": np.random.RandomState(0).normal(size=(5, 4)),
    "whole": np.random.RandomState(1).normal(size=(3, 4)),
    "sized": np.random.RandomState(2).normal(size=(4, 3)),
    "zero": np.zeros(3),
    "idle": np.ones(3),
}


def known_loss(params, x, eps=0.0):
    """Sees directions of columns, the direction of all of `whole`, and the rest."""
    columns, whole = params["columns"], params["whole"]
    size = jnp.sqrt(jnp.sum(columns**2, axis=0, keepdims=True) + eps)
    unit = whole / jnp.linalg.norm(whole)
    out = jnp.tanh(x @ (columns / size)) @ params["sized"]
    out = out + params["zero"].reshape(1, 3) + jnp.sum(jnp.sin(unit))
    return jnp.mean((out + 0 * params["idle"].reshape(1, 3) - 1) ** 2)


def known_oracle(eps=0.0):
    def gradient(eps, params, draw):
        x = jax.random.normal(draw.fresh(), (6, 5), params["sized"].dtype)
        return jax.value_and_grad(partial(known_loss, eps=eps))(params, x)

    return FunctionOracle(gradient, eps)


def kinds_of(oracle, params, tolerance=1e-3):
    found = jax.jit(partial(measure.invariance, oracle))(params, DRAW)
    found = by_path(found, is_leaf=lambda x: isinstance(x, measure.Invariance))
    return found, {name: test.kind(tolerance) for name, test in found.items()}


def test_known_invariances(x64):
    params = jax.tree.map(jnp.asarray, PARAMS)
    found, kinds = kinds_of(known_oracle(), params)
    assert kinds == {
        "columns": Kind.CHANNELS,
        "whole": Kind.WHOLE,
        "sized": Kind.NONE,
        "zero": Kind.NONE,  # would seem invariant where it stands
        "idle": Kind.UNUSED,
    }
    assert max(found["columns"][:4]) < 1e-12
    assert max(found["whole"][:2]) < 1e-12
    assert min(found["whole"].channel_angle, found["whole"].channel_change) > 1e-3
    assert min(found["sized"][:4]) > 1e-2


def test_an_epsilon_breaks_it_by_its_share():
    params = jax.tree.map(jnp.float32, {**PARAMS, "whole": np.ones((1, 1))})

    @jax.jit
    def of_columns(eps):
        found = measure.invariance(known_oracle(eps), params, DRAW, 2)
        return found["columns"]

    assert of_columns(1e-6).kind() is Kind.CHANNELS
    assert of_columns(1.0).kind() is Kind.NONE
    assert of_columns(1e-2).kind(tolerance=0.1) is Kind.CHANNELS


def net(hidden=(8, 8), **options):
    """(sampler, parameters) of a small net on random images, each batch one group."""
    model = models.build("normalised_mlp", 10, hidden=hidden, **options)
    x = jax.random.normal(jax.random.key(0), (64, 3, 3, 1))
    y = jnp.arange(64) % 10
    losses = models.supervised(model, models.cross_entropy)
    params = models.init_params(model, jax.random.key(1), x)
    return lambda size: gradients.minibatch(losses, (x, y), group=size)(size), params


def test_batchnorm_makes_each_channel_invariant():
    """And LayerNorm the whole of a layer, in the run further below."""
    sampler, params = net(hidden=(8,), norm="batch")
    _, kinds = kinds_of(sampler(16), params)
    assert kinds == {"Dense_0/kernel": Kind.CHANNELS}


def test_a_net_that_is_not_called_so():
    model = models.build("mlp", 10, hidden=())
    x = jax.random.normal(jax.random.key(0), (64, 9))
    losses = models.supervised(model, models.cross_entropy)
    params = models.init_params(model, jax.random.key(1), x)
    plan = optsde.Plan(
        optimizer=optsde.SGD(lr=0.1, l2=0.1), batch_size=8, horizon=8, clip=1.0
    )
    sampler = gradients.minibatch(losses, (x, jnp.arange(64) % 10))
    report = measure.intrinsic_report(plan, sampler, params, DRAW)
    assert not report.invariant
    text = str(report)
    assert "nothing here is scale invariant" in text
    assert "weight decay also acts on Dense_0/bias, Dense_0/kernel, whose" in text
    assert "the clip leaves alone" in text


@pytest.mark.parametrize(
    ("optimizer", "gain", "intrinsic", "share"),
    [
        (optsde.SGD(lr=0.2, l2=0.03), 0.2, 0.006, 1),
        (optsde.SGD(lr=0.2, weight_decay=0.03), 0.2, 0.006, 1),
        (optsde.SGD(lr=0.2, absolute_decay=0.03), 0.2, 0.03, 1),
        (optsde.Momentum(lr=0.2, beta=0.8, l2=0.03), 0.2, 0.006, 1 / 9),
        (optsde.HeavyBall(lr=0.2, beta=0.8, l2=0.03), 1.0, 0.03, 1 / 9),
        (optsde.HeavyBall(lr=0.2, beta=0.8, weight_decay=0.03), 1.0, 0.006, 1 / 9),
        (optsde.HeavyBall(lr=0.2, beta=0.5, nesterov=True), 0.4, 0.0, 1 / 3),
        (optsde.HeavyBall(lr=0.2, beta=0.8, nesterov=True), 1.0, 0.0, 1 / 9 - 0.96),
    ],
)
def test_rates_of_each_optimizer(optimizer, gain, intrinsic, share):
    np.testing.assert_allclose(
        measure.intrinsic_rates(optimizer), (gain, intrinsic, share), rtol=1e-6
    )
    if not optimizer.absolute_decay:
        half = measure.intrinsic_rates(optimizer, optimizer.lr / 2)
        np.testing.assert_allclose(half[:2], (gain / 2, intrinsic / 2), rtol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("beta", [0.2, 0.5, 0.8, 0.95])
def test_share_of_the_mean_gradient_on_a_quadratic(beta, nesterov):
    """From the exact stationary covariance of (x, v), where Ḡ/Tr Σ̄ is 5e-5.

    v ← βv + g, x ← x − d with g = h x + ξ along the sphere, d = v or g + βv. Since
    ⟨w, g⟩ = 0, a step lengthens ‖w‖² by E d² + 2cβ E[d v]/(1 − β), c = 1 or β.
    """
    h = 1e-4 * (1 - beta)
    velocity, c = np.array([h, beta, 1.0]), 1.0  # in x, v, ξ
    moved = velocity
    if nesterov:
        moved, c = np.array([h, 0.0, 1.0]) + beta * velocity, beta
    step = np.array([[1.0, 0.0, 0.0] - moved, velocity])
    forgets, kick = step[:, :2], np.outer(step[:, 2], step[:, 2])
    still = np.eye(4) - np.kron(forgets, forgets)
    covariance = np.eye(3)
    covariance[:2, :2] = np.linalg.solve(still, kick.ravel()).reshape(2, 2)
    longer = moved @ covariance @ (moved + 2 * c * beta / (1 - beta) * velocity)
    signal = h**2 * covariance[0, 0]
    share = ((1 - beta) ** 2 * longer - 1) / signal
    optimizer = optsde.HeavyBall(lr=0.1, beta=beta, nesterov=nesterov)
    found = measure.intrinsic_rates(optimizer).share
    np.testing.assert_allclose(found, share, atol=1e-4)
    assert abs(found - 1) > 0.05


def test_adam_has_none():
    with pytest.raises(ValueError, match="Adam has no intrinsic lr"):
        measure.intrinsic_rates(optsde.Adam())


@pytest.mark.parametrize(
    ("optimizer", "largest"),
    [
        (optsde.SGD(lr=0.4, weight_decay=0.025), 10.0),
        (optsde.HeavyBall(lr=0.02, beta=0.8, l2=0.1), 40.0),
        (optsde.HeavyBall(lr=0.02, beta=0.8, nesterov=True, l2=0.04), 10.0),
    ],
)
def test_equilibrium_of_known_noise(optimizer, largest):
    """E‖w‖⁴ within 1% of the prediction: 256 runs at 20 times, so an s.e. near .1%.

    Ḡ/Tr Σ̄ is .05 to .35 here. Leaving it out, or counting all of it, would be off by
    more than 3%.
    """
    dimension = 20
    loss = toy.loss_of(toy.curvatures(dimension, largest))
    sampler = gradients.gaussian(loss, toy.tangent_noise())
    plan = optsde.Plan(optimizer=optimizer, batch_size=1, horizon=1)
    rates = measure.intrinsic_rates(optimizer)
    size = (rates.gain**2 * (dimension - 1) / (2 * rates.intrinsic)) ** 0.25
    start = jnp.full(dimension, size / np.sqrt(dimension))
    begin, between = round(4 / rates.intrinsic), round(0.2 / rates.intrinsic)
    times = [begin + between * k for k in range(1, 21)]

    def observe(state):
        square = jnp.sum(state.params**2)
        return square**2, square * jnp.sum(jax.grad(loss)(state.params) ** 2)

    dynamics = optsde.discrete(plan, sampler, start)
    keys = jax.random.split(jax.random.key(0), 256)
    values = optsde.ensemble(dynamics, keys, times, observe).values
    fourth, signal = (x.mean() for x in values)
    still = measure.intrinsic.intrinsic(
        rates, jnp.float32(1), jnp.float32(signal), jnp.float32(dimension - 1)
    )
    np.testing.assert_allclose(fourth, still.equilibrium_norm**4, rtol=0.01)
    np.testing.assert_allclose(
        still.equilibrium_lr, rates.gain / still.equilibrium_norm**2, rtol=1e-5
    )


def test_steps_to_equilibrium_are_those_of_the_closed_form():
    rates = measure.Rates(gain=0.1, intrinsic=1e-4, share=1.0)
    one = measure.intrinsic.intrinsic(
        rates, jnp.float32(3.0), jnp.float32(0.0), jnp.float32(19 / 9.0)
    )
    np.testing.assert_allclose(one.noise, 19, rtol=1e-6)
    gamma = (9 / 0.1) ** 2
    later = gamma_at(float(one.steps), gamma, 19.0, 1e-4) / (19 / 2e-4)
    np.testing.assert_allclose(abs(later - 1), 0.1, rtol=1e-3)


def test_leaves_that_are_invariant_only_together():
    """Tr Σ̄ of the whole is 19 at norm 4 too, within 4 standard errors of 512 draws."""
    loss = toy.loss_of(toy.curvatures(20, 1.0))
    oracle = gradients.gaussian(loss, toy.tangent_noise())(1)

    def of_parts(oracle, params, draw):
        value, grad = oracle(jnp.concatenate([params["a"], params["b"]]), draw)
        return value, {"a": grad[:8], "b": grad[8:]}

    w = jax.random.normal(jax.random.key(0), (20,))
    w = 4 * w / jnp.linalg.norm(w)
    plan = optsde.Plan(optimizer=optsde.SGD(lr=0.1, l2=0.1), batch_size=1, horizon=1)
    parts = {"a": w[:8], "b": w[8:]}
    split = FunctionOracle(of_parts, oracle)
    report = measure.intrinsic_report(plan, lambda _: split, parts, DRAW, draws=512)
    assert report.kinds == dict.fromkeys("ab", Kind.TOGETHER)
    assert report.invariant == ("a", "b")
    assert list(report.groups) == [ALL]
    assert "warning" not in str(report)
    found = report.groups[ALL]
    np.testing.assert_allclose(found.norm, 4, rtol=1e-5)
    assert abs(found.noise - 19) < 4 * 19 * np.sqrt(2 / (19 * 512))


def test_a_run_says_its_effective_lr():
    """With a schedule, in rows of metrics; the equilibrium is where the run goes."""
    sampler, params = net(hidden=(8,))
    plan = optsde.Plan(
        optimizer=optsde.SGD(lr=0.2, weight_decay=0.1),
        batch_size=8,
        horizon=200,
        schedule=optsde.schedules.milestones([100]),
    )
    report = measure.intrinsic_report(plan, sampler, params, DRAW, draws=16, blocks=4)
    assert report.kinds == {"Dense_0/kernel": Kind.WHOLE}
    assert "intrinsic lr 0.02 a step" in str(report)
    assert "warning" not in str(report)
    probe = measure.invariance_probe(plan, sampler, report.invariant, 16, 4)
    keys = jax.random.split(jax.random.key(0), 2)
    dynamics = optsde.discrete(plan, sampler, params)
    result = optsde.fit(dynamics, keys, 200, every=50, probes=[probe.at(100)])
    row = result.row
    np.testing.assert_allclose(row["intrinsic_lr"], 0.002, rtol=1e-5)
    squares = [
        np.sum(np.asarray(x) ** 2, axis=(1, 2))
        for x in jax.tree.leaves(result.state.params)
    ]
    np.testing.assert_allclose(row["all/effective_lr"], 0.02 / sum(squares), rtol=1e-4)
    np.testing.assert_allclose(
        row["Dense_0/kernel/norm"], np.sqrt(squares[0]), rtol=1e-4
    )
    ratio = np.array(row["all/equilibrium_lr"]) ** 2 * (
        np.array(row["all/noise"]) + row["all/signal"]
    )
    np.testing.assert_allclose(ratio, 0.002 * 1.998, rtol=1e-3)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_probe_is_finite_where_lr_or_decay_is_zero(decay):
    sampler = gradients.gaussian(lambda w: jnp.sum(w), toy.tangent_noise())
    plan = optsde.Plan(
        optimizer=optsde.SGD(lr=0.1, weight_decay=decay),
        batch_size=1,
        horizon=8,
        schedule=optsde.schedules.cosine(8),
    )
    probe = measure.invariance_probe(plan, sampler, [""], 8, 4)
    end = dict(step=jnp.int32(8), time=8.0, key=DRAW.key, params=jnp.ones(4))
    row, _ = probe.observe(probe.source, SimpleNamespace(**end), ())
    assert np.isfinite(list(row.values())).all()
    assert ("all/equilibrium_lr" in row) == (decay > 0)


def test_a_probe_needs_something_to_look_at():
    sampler, _ = net()
    plan = optsde.Plan(optimizer=optsde.SGD(), batch_size=8, horizon=8)
    with pytest.raises(ValueError, match="invariant names no leaf"):
        measure.invariance_probe(plan, sampler, [])
