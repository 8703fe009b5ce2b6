"""What every registered optimizer must do; a new family is tested by registering it.

One family is defined here, as a user would: all that knows optimizers must know it.
"""

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import sized
from helpers.quadratic import START, covariance, plan, run_sde, sampler
from helpers.quadratic import run as run_discrete

import optsde
from optsde import measure
from optsde.gradients import Draw, FunctionOracle, from_covariance
from optsde.optimizers import (
    REGISTRY,
    Descent,
    Limit,
    Memory,
    Power,
    Response,
    register,
)
from optsde.optimizers.base import ema
from optsde.optimizers.sgd import Velocity
from optsde.problems.quadratic import quadratic_loss
from optsde.study import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class QHM(Descent):
    """m ← β m + (1−β) g,  θ ← θ − lr·((1−ν) g + ν m)  (Ma and Yarats 2019).

    SDE: dθ = −lr·((1−ν)(∇f dt + Σ^½ dW) + ν m dt),  dm = (1−β)((∇f − m) dt + Σ^½ dW).
    """

    lr: float = 0.1
    beta: float = 0.9
    nu: float = 0.7
    rule = {
        "lr": Power(1, "κ times fewer steps must go as far"),
        "beta": Memory(),
        "nu": Power(0, "g and m are both unbiased"),
    }

    def direction(self):
        def init(params):
            return Velocity(optax.tree.zeros_like(params))

        def update(updates, state, params=None):
            m = ema(state.m, updates, self.beta)
            return ema(updates, m, 1 - self.nu), Velocity(m)

        return optax.GradientTransformation(init, update)

    def limit(self, keep_signal=False):
        c = 1 - self.beta

        def drift(state, mean, variance):
            dm = jax.tree.map(lambda g, m: c * (g - m), mean, state.m)
            return ema(mean, state.m, 1 - self.nu), Velocity(dm)

        def noise(state, mean, variance, kick, spare):
            u = jax.tree.map(lambda k: (1 - self.nu) * k, kick)
            return u, Velocity(jax.tree.map(lambda k: c * k, kick))

        return Limit(drift, noise)

    def response(self, state=None):
        """u = β u + (1−νβ) g − β(1−ν) g of the step before."""
        alternating = 1 - 2 * self.nu * self.beta / (1 + self.beta)
        return Response(alternating, lead=self.beta * (1 - self.nu) / (1 - self.beta))


@pytest.fixture(autouse=True, scope="module")
def _registered():
    register(QHM)
    yield
    del REGISTRY["qhm"]


FAMILIES = sorted([*REGISTRY, "qhm"])
SLOW = {"shampoo", "soap"}  # two eigenvalue problems in each step
AT_ONCE = {"adam", "momentum", "muon", "qhm", "sgd", "shampoo"}
"""Families whose limits `make test` takes, on few paths; `make test-all` takes all."""
PARAMS = {"w": np.array([[0.3, -1.2], [0.7, 2.0]]), "b": np.array([0.1, -0.4])}
GRADS = {"w": np.array([[1.0, -0.5], [0.2, 0.3]]), "b": np.array([-0.7, 0.9])}


def build(name):
    """With every kind of decay on, so that none escapes the tests."""
    return REGISTRY[name](lr=0.01, l2=0.1, weight_decay=0.2, absolute_decay=1e-3)


def well_conditioned(optimizer):
    """Away from steps divided by nearly zero, where no SDE is close: accumulators that
    start from 1, ε = 1, micro-batches of 1 at batch 256, and for Lion a newest gradient
    that counts."""
    away = dict(eps=1.0, s0=1.0, v0=1.0, bias_correction=False, micros=256.0)
    fields = {field.name for field in dataclasses.fields(optimizer)}
    options = {name: value for name, value in away.items() if name in fields}
    if isinstance(optimizer, optsde.Lion):
        options["b1"] = 0.6
    if isinstance(optimizer, optsde.Shampoo):
        options["eps_root"] = 1.0  # its only ε
    return dataclasses.replace(optimizer, **options)


def cast(tree, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def run(optimizer, steps=4, dtype=jnp.float32):
    """A few steps; the gradients turn round, so that memories matter."""
    params = cast(PARAMS, dtype)
    transform = optimizer.transform()
    state = transform.init(params)
    for step in range(steps):
        turn = np.cos(1.5 * step)
        grads = cast(jax.tree.map(lambda g, t=turn: t * g, GRADS), dtype)
        updates, state = transform.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params, state


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_keeps_shapes_and_dtypes(name, dtype):
    params, state = run(build(name), dtype=dtype)
    chex.assert_trees_all_equal_shapes_and_dtypes(params, cast(PARAMS, dtype))
    start = build(name).transform().init(cast(PARAMS, dtype))
    chex.assert_trees_all_equal_shapes_and_dtypes(state, start)
    chex.assert_tree_all_finite(params)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_keeps_dtypes_with_traced_hyperparameters(name, dtype):
    optimizer = jax.tree.map(jnp.float32, build(name))
    params = jax.jit(lambda o: run(o, dtype=dtype)[0])(optimizer)
    chex.assert_trees_all_equal_shapes_and_dtypes(params, cast(PARAMS, dtype))


@pytest.mark.parametrize("name", FAMILIES)
def test_vmap_over_each_hyperparameter(name):
    """Stacked hyperparameters give what separate runs give."""
    optimizer = build(name)
    traced = jax.tree_util.tree_leaves_with_path(optimizer)
    fields = [path[0].name for path, _ in traced]
    assert {"lr", "l2", "weight_decay", "absolute_decay"} <= set(fields)
    for field in fields:
        value = getattr(optimizer, field)
        high = 0.9 * value + 2e-3
        if field == "l2":
            high = 5.0  # enough to turn signs
        elif isinstance(optimizer.rule.get(field), Memory):
            high = 1 - 0.1 * (1 - value)
        values = np.float32([0.1 * value + 1e-3, high])

        def final(x, field=field):
            return run(dataclasses.replace(optimizer, **{field: x}))[0]

        stacked = jax.vmap(final)(values)
        for i, x in enumerate(values):
            alone = final(float(x))
            one = jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
            chex.assert_trees_all_close(one, alone, rtol=2e-5, atol=1e-6)
        assert not np.allclose(*stacked["w"], rtol=0, atol=0), field


@pytest.mark.parametrize("name", FAMILIES)
def test_compiles_once(name):
    chex.clear_trace_counter()
    params, grads = cast(PARAMS, jnp.float32), cast(GRADS, jnp.float32)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(optimizer, params, state):
        updates, state = optimizer.transform().update(grads, state, params)
        return jax.tree.map(jnp.add, params, updates), state

    state = build(name).transform().init(params)
    for lr in (0.1, 0.2, 0.3):
        optimizer = dataclasses.replace(build(name), lr=lr)
        params, state = step(optimizer, params, state)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("memory", ["linear", "power"])
def test_rescaled_by_one_is_the_identity(name, memory):
    assert build(name).rescaled(1, memory) == build(name)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("memory", ["linear", "power"])
@pytest.mark.parametrize(("a", "b"), [(2.0, 3.0), (0.25, 0.1), (4.0, 0.25)])
def test_rescaled_composes(name, memory, a, b):
    twice = build(name).rescaled(a, memory).rescaled(b, memory)
    once = build(name).rescaled(a * b, memory)
    chex.assert_trees_all_close(twice, once, rtol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_hyperparameter_has_a_law(name):
    """A field that no rule mentions would silently stay as it is."""
    optimizer = build(name)
    fields = {f.name for f in dataclasses.fields(optimizer) if f.type is not bool}
    assert fields - {"l2", "weight_decay", "absolute_decay"} == set(optimizer.rule)
    if any(isinstance(law, Memory) for law in optimizer.rule.values()):
        assert optimizer.rescaled(1e-9) is not None


@pytest.mark.parametrize("name", FAMILIES)
def test_decay_per_sample_stays(name):
    a, b = build(name), build(name).rescaled(4.0)
    np.testing.assert_allclose(b.lr * b.weight_decay, 4 * a.lr * a.weight_decay)
    np.testing.assert_allclose(b.absolute_decay, 4 * a.absolute_decay)
    assert b.l2 == a.l2


@pytest.mark.parametrize("name", FAMILIES)
def test_svag_at_one_is_the_plain_run(name):
    base = plan(build(name), 8.0)
    assert optsde.svag(base, 1) == base


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("keep_signal", "dtype"), [(True, jnp.float32), (False, jnp.bfloat16)]
)
def test_sde_runs(name, keep_signal, dtype):
    """From a state without any memory, and with shapes and dtypes kept."""
    law = from_covariance(quadratic_loss, covariance(1.0))
    theta = jnp.asarray(START, dtype)
    optimizer = well_conditioned(build(name))
    dynamics = optsde.sde(plan(optimizer, 4.0), law, theta, 2, keep_signal)
    start = dynamics.init(jax.random.key(0))
    step = jax.jit(lambda state: dynamics.step(state, dynamics.source)[0])
    end = step(step(start))
    chex.assert_trees_all_equal_shapes_and_dtypes(start, end)
    chex.assert_tree_all_finite(end.params)
    moved = not np.allclose(start.params, end.params)
    assert moved or dtype == jnp.bfloat16  # where a short step may round to none


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("memory", ["linear", "power"])
@pytest.mark.parametrize("name", FAMILIES)
def test_rescaling_leaves_the_sde_alone(name, memory):
    """One point in the state of both plans: per step, κ times the drift at variance /κ,
    and the same noise, of an increment that is κ times smaller."""
    kappa = 4.0
    rng = np.random.default_rng(0)
    params, mean, kick, spare = (jnp.asarray(rng.normal(size=3)) for _ in range(4))
    variance = jnp.asarray(rng.uniform(1, 2, size=3))
    old = build(name)
    new = old.rescaled(kappa, memory)
    state = jax.tree.map(
        lambda x: jnp.asarray(rng.uniform(0.5, 1, size=x.shape)),
        old.direction().init(params),
    )
    moved = old.rescale_state(state, kappa, new)
    old_sde, new_sde = old.sde(memory=memory), new.sde(memory=memory)
    one = old_sde.drift(0, params, state, mean, variance)
    two = new_sde.drift(0, params, moved, mean, variance / kappa)
    scaled = jax.tree.map(lambda x: kappa * x, one)
    chex.assert_trees_all_close(two[0], scaled[0], rtol=1e-10)
    expected = old.rescale_state(scaled[1], kappa, new)
    chex.assert_trees_all_close(two[1], expected, rtol=1e-10)
    one = old_sde.noise(0, params, state, mean, variance, kick, spare)
    two = new_sde.noise(
        0, params, moved, mean, variance / kappa, kick / kappa, spare / kappa**0.5
    )
    chex.assert_trees_all_close(two[0], one[0], rtol=1e-8)
    expected = old.rescale_state(one[1], kappa, new)
    chex.assert_trees_all_close(two[1], expected, rtol=1e-10)
    if old_sde.variation is not None:
        one = old_sde.variation(params, state, mean, kick, 1.0)
        two = new_sde.variation(params, moved, mean, kick / kappa, 1 / kappa)
        expected = old.rescale_state(one, kappa, new)
        chex.assert_trees_all_close(two, expected, rtol=1e-10)


@pytest.mark.parametrize("name", FAMILIES)
def test_sde_of_coordinates_without_noise_or_signal(name):
    """Dead units have neither; the SDE leaves them finite."""
    system = build(name).sde()
    zero = jnp.zeros(3)
    state = system.init(zero)
    drift = system.drift(0.0, zero, state, zero, zero)
    noise = system.noise(0.0, zero, state, zero, zero, zero, zero)
    chex.assert_tree_all_finite((drift, noise))


@pytest.mark.parametrize("name", FAMILIES)
def test_hyperparameters_are_checked(name):
    assert build(name).checked() == build(name)
    for field, value in (("lr", 0.0), ("lr", float("nan")), ("l2", -1.0)):
        with pytest.raises(ValueError, match=rf"{field}=.*needs"):
            dataclasses.replace(build(name), **{field: value}).checked()
    for field, law in build(name).rule.items():
        if isinstance(law, Memory):
            with pytest.raises(ValueError, match="0 ≤ decay < 1"):
                dataclasses.replace(build(name), **{field: 1.0}).checked()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("paths", sized(1_000, 20_000))
def test_sde_is_the_limit_of_small_kappa(name, paths):
    """Means over all paths of the run at κ = 1/256 and of the SDE, after 4 units.

    Gaussian noise, so that the limit is that of the rule and not of SVAG's mix. Bound:
    4 standard errors, and 0.004 for what is left of κ and of the SDE's own steps.
    """
    if paths <= 1_000 and name not in AT_ONCE:
        pytest.skip("at full path counts alone")
    paths = min(paths, 4_000) if name in SLOW else paths
    optimizer = dataclasses.replace(well_conditioned(build(name)), lr=0.05)
    base = dataclasses.replace(plan(optimizer, 4.0), batch_size=256)
    law = from_covariance(quadratic_loss, covariance(16.0), batch_size=256)
    theta = jnp.asarray(START, jnp.float32)
    keys = jax.random.split(jax.random.key(1), paths)
    fine = optsde.discrete(optsde.scale(base, 1 / 256), sampler(16.0), theta)
    both = [
        optsde.ensemble(dynamics, keys, [4], lambda s: s.params).values[:, 0]
        for dynamics in (fine, optsde.sde(base, law, theta, 64))
    ]
    discrete, limit = (x.mean(0) for x in both)
    se = np.sqrt(sum(x.var(0) for x in both) / paths)
    assert np.all(np.abs(discrete - limit) < 4 * se + 4e-3)
    moved = np.abs(limit - START)
    assert np.all(moved > 10 * se)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("paths", sized(500, 20_000))
def test_svag_at_the_defaults_approaches_the_sde(name, paths):
    """First and second moments of θ after 8 base steps, κ = 1/64, all at its defaults.

    But for lr: what families have is tuned for nets, and would not move θ by more than
    a standard error. Bound: 4 standard errors of each moment, and 0.02 for what is left
    of κ and of the SDE's own steps.
    """
    if paths <= 1_000 and name not in AT_ONCE:
        pytest.skip("at full path counts alone")
    paths = min(paths, 4_000) if name in SLOW else paths
    base = plan(REGISTRY[name](lr=0.05), 8.0)
    fine = optsde.svag(base, 64 ** (1 / base.optimizer.noise_exponent))
    discrete = run_discrete(fine, 1.0, paths, 1)
    limit = run_sde(base, 1.0, paths, 2, 16)
    error = np.abs(discrete.mean - limit.mean)
    assert np.all(error < 4 * np.hypot(discrete.se, limit.se) + 0.02)
    assert abs(limit.mean[0] - START[0]) > 0.1


@pytest.mark.parametrize(
    "optimizer",
    [
        optsde.Momentum(lr=0.4, beta=0.5),
        optsde.HeavyBall(lr=0.2, beta=0.5),
        optsde.Adam(lr=1.0, b1=0.5, b2=0.9, eps=2.0),
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_each_form_of_memory_has_its_own_sde(optimizer):
    """SVAG in powers approaches the SDE in powers, and not the linear one.

    A step forgets at the rate −ln ½ = .69 or 1 − ½. Means of θ at t = 4, κ = 1/256,
    with little noise: within 4 standard errors + .01, or off by more than twice that.
    """
    base, sigma, paths = plan(optimizer, 4.0), 0.01, 50
    fine = optsde.svag(base, 256 ** (1 / optimizer.noise_exponent), memory="power")
    discrete = run_discrete(fine, sigma, paths, 1)
    error, bound = {}, {}
    for memory in ("linear", "power"):
        limit = run_sde(base, sigma, paths, 2, 64, memory=memory)
        error[memory] = np.abs(discrete.mean - limit.mean)[:2].max()
        bound[memory] = 4 * np.hypot(discrete.se, limit.se)[:2].max() + 0.01
    assert error["power"] < bound["power"]
    assert error["linear"] > 2 * bound["linear"]


@pytest.mark.parametrize("keep_signal", [True, False])
def test_lion_has_an_sde_where_its_decays_are_one(keep_signal):
    """At b1 = b2 the newest gradient enters by m alone, in the limit."""
    one = jnp.ones(1)
    system = optsde.Lion(lr=1.0, b1=0.9, b2=0.9).sde(keep_signal=keep_signal)
    flow, _ = system.drift(0.0, one, Velocity(one), one, one)
    if keep_signal:
        expected = math.erf((0.9 + 0.1) / 0.1 / 2**0.5)
    else:
        share = 0.1**2 + 0.9**2 * 0.1 / 1.9
        expected = (2 / np.pi / share) ** 0.5
    np.testing.assert_allclose(flow, -expected, rtol=1e-6)
    for b1, b2 in ((0.99, 0.9), (0.0, 0.0)):
        with pytest.raises(ValueError, match="needs b1 ≤ b2 and b2 > 0"):
            optsde.Lion(b1=b1, b2=b2).sde()


def test_a_power_of_nothing_has_no_sde():
    with pytest.raises(ValueError, match="use memory='linear'"):
        optsde.Adam(b1=0.0).sde(memory="power")
    with pytest.raises(ValueError, match="memory='long' is not known"):
        optsde.Lion().sde(memory="long")


@pytest.mark.parametrize(
    ("optimizer", "needs"),
    [
        (optsde.AdaGrad(s0=0.0), "s0=0.0.*set s0 > 0"),
        (optsde.AdaGrad(s0=0.0, eps_root=1e-7), "set s0 > 0"),
        (optsde.RMSprop(bias_correction=False), "v0=0.0.*set bias_correction=True or"),
    ],
)
def test_an_sde_that_would_start_from_nothing_is_refused(optimizer, needs):
    """Its noise ∫ Σ/P² dt has no limit at P = 0; a run has no such trouble."""
    with pytest.raises(ValueError, match=needs):
        optimizer.sde()
    law = from_covariance(quadratic_loss, covariance(1.0))
    with pytest.raises(ValueError, match=needs):
        optsde.sde(plan(optimizer, 1.0), law, jnp.asarray(START, jnp.float32))
    assert optimizer.checked() is optimizer
    dataclasses.replace(optimizer, eps=0.5).sde()
    jax.jit(lambda o: o.sde().init(jnp.ones(2)))(optimizer)  # not known when traced


def passed_on(optimizer, grads):
    """P u of gradients [steps] of one parameter, long after the start."""
    direction, x = optimizer.direction(), jnp.zeros(1)

    def step(state, g):
        u, state = direction.update(g[None], state, x)
        return state, (u * optimizer.preconditioner(state, x))[0]

    grads = jnp.concatenate([jnp.zeros(400), jnp.asarray(grads)])
    return np.asarray(jax.lax.scan(step, direction.init(x), grads)[1])[400:]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", FAMILIES)
def test_response_is_that_of_the_update(name):
    """Against c_k, what is passed on of one gradient after k steps. E⟨g_t, g_{t+k}⟩ is
    Ḡ r_k, since noise of one step has moved θ by C_{k−1} after k."""
    optimizer, x = build(name), jnp.zeros(1)
    response = optimizer.response()
    if response is None:
        assert optimizer.preconditioner(optimizer.direction().init(x), x) is None
        assert optimizer.stability_threshold() is None
        assert optimizer.critical_lr(1.0) is None
        assert optimizer.intrinsic_rates() is None
        return
    size = 400
    c = passed_on(optimizer, np.eye(1, size)[0])
    total = c.sum()
    np.testing.assert_allclose(1 / response.friction, total, rtol=1e-10)
    c = c / total
    alternating = c @ (-1) ** np.arange(size)
    np.testing.assert_allclose(response.alternating, alternating, rtol=1e-9)
    sums = np.cumsum(c)
    before = np.r_[0, sums[:-1]]
    r = np.r_[1, 1 - 2 * sums[:-1]]
    lags = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    share = (2 - sums - before) @ r[lags] @ c
    np.testing.assert_allclose(response.share, share, rtol=1e-7)
    if (rates := optimizer.intrinsic_rates()) is not None:
        np.testing.assert_allclose(rates.gain, optimizer.lr * total, rtol=1e-9)
        assert rates.share == response.share


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", FAMILIES)
def test_adaptive_is_who_divides_by_the_signal(name):
    """P of a gradient without noise, and of one twice as large, far above s0 and ε; and
    the signal's share vanishes with κ, so that the SDE is another where it is kept."""
    optimizer, x = build(name), jnp.zeros(1)
    if optimizer.response() is None:
        assert not optimizer.adaptive
        return
    direction, sizes = optimizer.direction(), []
    for signal in (1e3, 2e3):
        state = direction.init(x)
        for _ in range(3):
            _, state = direction.update(signal + x, state, x)
        sizes.append(optimizer.preconditioner(state, x)[0])
    grows = bool(np.isclose(sizes[1] / sizes[0], 2, rtol=1e-6))
    assert grows or np.isclose(sizes[1] / sizes[0], 1, rtol=1e-6)
    kept, without = (
        optimizer.sde(keep_signal=keep).drift(0.0, x, state, x + 1, x + 1)
        for keep in (True, False)
    )
    vanishes = any(
        map(np.any, jax.tree.leaves(jax.tree.map(np.subtract, kept, without)))
    )
    assert optimizer.adaptive == (grows and vanishes) == vanishes


def test_response_at_kappa_is_that_of_the_rescaled():
    for name in FAMILIES:
        old = build(name)
        for kappa, memory in ((4.0, "linear"), (1 / 3, "linear"), (7.0, "power")):
            at, new = old.response_at(kappa, memory), old.rescaled(kappa, memory)
            if at is not None:
                np.testing.assert_allclose(at, new.response(), rtol=1e-12)
    ended = QHM().response_at(np.array([10.0, 1e3]))
    np.testing.assert_allclose(ended.alternating, 1, rtol=1e-12)
    with pytest.raises(ValueError, match="memory='linea' is not known"):
        QHM().response_at(2.0, "linea")


# Everything knows the family that is defined here.


class Own(Settings):
    optimizer: optsde.Optimizer = setting(optsde.SGD(), "of the study's runs")


def noisy_quadratic(optimizer, h, noise):
    """(x, m) -> the next (x, m) without noise, and their stationary covariance."""
    b, nu = optimizer.beta, optimizer.nu
    m = np.array([(1 - b) * h, b, 1 - b])  # in x, m, ξ
    u = (1 - nu) * np.array([h, 0, 1]) + nu * m
    step = np.array([[1.0, 0, 0] - optimizer.lr * u, m])
    forgets, kick = step[:, :2], np.outer(step[:, 2], step[:, 2])
    still = np.eye(4) - np.kron(forgets, forgets)
    return forgets, np.linalg.solve(still, noise * kick.ravel()).reshape(2, 2)


@pytest.mark.parametrize("nu", [0.0, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("h", [0.01, 0.5])
def test_prediction_knows_it(nu, h):
    """κ = 5 on a quadratic, against the exact stationary second moments of (x, m)."""
    optimizer, kappa = QHM(lr=0.05, nu=nu), 5.0
    base = noisy_quadratic(optimizer, h, 1.0)[1][0, 0]
    scaled = noisy_quadratic(optimizer.rescaled(kappa), h, 1 / kappa)[1][0, 0]
    ratio, loss, speed = measure.departure(optimizer, h * h * base, np.array([kappa]))
    np.testing.assert_allclose(loss, scaled / base, rtol=1e-9)
    np.testing.assert_allclose(ratio, h * h * scaled * kappa, rtol=1e-9)
    assert speed == 1


def test_prediction_does_not_take_its_momentum_for_none():
    kappas = np.array([2.0, 8.0, 64.0])
    same = measure.departure(optsde.Momentum(beta=0.9), 0.1, kappas)
    np.testing.assert_array_equal(
        measure.departure(QHM(beta=0.9, nu=1.0), 0.1, kappas), same
    )
    none = measure.departure(optsde.SGD(), 0.1, kappas)
    assert not np.allclose(none[1], same[1], rtol=0.01)


@pytest.mark.parametrize("nu", [0.0, 0.3, 0.7, 1.0])
def test_threshold_knows_it(nu):
    """The spectral radius of the step of (x, m) is 1 there."""
    optimizer = QHM(lr=0.3, beta=0.8, nu=nu)
    edge = optimizer.stability_threshold()
    for h, side in ((0.999 * edge, -1), (1.001 * edge, 1)):
        radius = np.abs(np.linalg.eigvals(noisy_quadratic(optimizer, h, 1.0)[0])).max()
        assert np.sign(radius - 1) == side
    assert QHM(lr=0.3, nu=0.0).critical_lr(4.0) == 0.5


def test_measures_know_it():
    """How far the rule holds, and its rates where the loss sees directions only."""
    base, draw = plan(QHM(lr=0.02), 64.0), Draw(jax.random.key(0), jnp.int32(0))
    noise = measure.gradient_noise(sampler(8.0)(1), jnp.ones(2), draw)
    found = measure.predict(base, [noise])
    assert found.rule == "linear"
    assert found.limits[0].name == "memory of beta"
    assert found.limits[0].kappa == pytest.approx(10)

    def value_and_grad(source, params, draw):
        def loss(params):
            return jnp.mean((examples @ params["w"]) ** 2) / jnp.sum(params["w"] ** 2)

        examples = jax.random.normal(draw.fresh(), (8, 5))
        return jax.value_and_grad(loss)(params)

    base = plan(QHM(lr=0.2, weight_decay=0.03), 8.0)
    params = {"w": jnp.ones(5)}
    oracle = FunctionOracle(value_and_grad)
    report = measure.intrinsic_report(base, lambda _: oracle, params, draw)
    assert report.invariant == ("w",)
    np.testing.assert_allclose(report.rates[:2], (0.2, 0.006), rtol=1e-6)
    assert report.rates.share == QHM().response().share


def test_plans_and_studies_know_it():
    base = optsde.Plan(optimizer=QHM(), batch_size=64, horizon=100)
    text = optsde.explain(base, optsde.scale(base, 4))
    assert "1 − beta" in text
    assert "departure" not in text
    assert optsde.svag(base, 4).steps == 400
    config = Own(optimizer=QHM(nu=0.5)).config()
    assert config.optimizer.name == "qhm"
    assert Own.of(config).optimizer == QHM(nu=0.5)
