"""Hessian products, eigenvalues, trace and density, against dense linear algebra."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import optsde
from optsde import data, measure, models
from optsde.gradients import Draw, full_batch, minibatch

pytestmark = pytest.mark.usefixtures("x64")
SIZE = 30
MODEL = models.build("mlp", 10, hidden=(6,), activation="tanh")
LOSSES = models.supervised(MODEL, models.cross_entropy)


@functools.cache
def problem():
    """(examples, params, their flat vector, back to a tree, the dense Hessian)."""
    images, labels = data.digits()
    examples = jnp.asarray(images[:SIZE], float), jnp.asarray(labels[:SIZE])
    start = models.init_params(MODEL, jax.random.key(0), examples[0])
    params = jax.tree.map(lambda x: 0.1 + x.astype(float), start)
    flat, tree = ravel_pytree(params)

    def mean_loss(x):
        return LOSSES(tree(x), examples).mean()

    return (
        examples,
        params,
        flat,
        tree,
        np.asarray(jax.jit(jax.hessian(mean_loss))(flat)),
    )


def dense(product):
    """The matrix of a product on trees like the parameters."""
    _, _, flat, tree, _ = problem()
    rows = jax.lax.map(lambda e: ravel_pytree(product(tree(e)))[0], jnp.eye(flat.size))
    return np.asarray(rows).T


@pytest.mark.parametrize("group", [None, 7])
def test_hessian_products(group):
    """All at once and in groups, the last of which is filled up."""
    examples, params, _, _, expected = problem()
    product = measure.hessian(full_batch(LOSSES, examples, group)(), params)
    np.testing.assert_allclose(dense(product), expected, rtol=1e-10, atol=1e-12)


def test_hessian_of_a_batch_is_that_of_its_draw():
    examples, params, _, _, _ = problem()
    oracle = minibatch(LOSSES, examples)(8)
    draw = Draw(jax.random.key(1), jnp.int32(3))
    chosen = jax.tree.map(lambda x: x[oracle.choose(draw)], examples)
    v = jax.tree.map(jnp.ones_like, params)
    found = jax.jit(measure.hessian(oracle, params, draw))(v)
    whole = full_batch(LOSSES, chosen, None)()
    expected = jax.jit(measure.hessian(whole, params))(v)
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("group", [None, 7])
def test_gauss_newton_products(group):
    """Against Jᵀ(diag p − p pᵀ)J of the dense jacobian and softmax."""
    (inputs, labels), params, flat, tree, hessian = problem()

    def outputs(params, inputs):
        return MODEL.apply({"params": params}, inputs)

    data = inputs, labels
    product = measure.gauss_newton(outputs, models.cross_entropy, params, data, group)
    jacobian = jax.jit(jax.jacrev(lambda x: outputs(tree(x), inputs)))(flat)
    p = np.asarray(jax.nn.softmax(outputs(params, inputs)))
    bend = np.einsum("ni,ij->nij", p, np.eye(10)) - np.einsum("ni,nj->nij", p, p)
    expected = np.einsum("nip,nij,njq->pq", jacobian, bend, jacobian) / SIZE
    found = dense(product)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    assert np.abs(found - hessian).max() > 1e-3


def test_preconditioned_products():
    examples, params, flat, tree, hessian = problem()
    divisor = np.random.default_rng(0).uniform(0.1, 3, flat.size)
    plain = measure.hessian(full_batch(LOSSES, examples, None)(), params)
    found = dense(measure.preconditioned(plain, tree(jnp.asarray(divisor))))
    expected = hessian / np.sqrt(np.outer(divisor, divisor))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def matrix_of(values):
    """A symmetric matrix with these eigenvalues."""
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(len(values), len(values))))
    return (q * values) @ q.T


@functools.partial(jax.jit, static_argnames="dimension")
def search(matrix, start, tolerance, restarts, dimension):
    return measure.top_eigenvalues(
        lambda v: matrix @ v,
        start,
        jax.random.key(0),
        tolerance=tolerance,
        restarts=restarts,
        dimension=dimension,
    )


def top(matrix, start=None, count=1, tolerance=1e-3, restarts=500, dimension=8):
    """Eigenpairs of a matrix, from random vectors where no others are given."""
    if start is None:
        start = measure.random_vectors(jax.random.key(1), matrix[0], count)
    return search(matrix, start, tolerance, restarts, dimension)


def test_largest_eigenvalues_to_the_stated_residual():
    """The most positive ones, where the largest in size are negative and two are equal;
    residuals are computed anew from the dense matrix."""
    values = np.sort(np.r_[-9.0, -8.0, np.linspace(-1, 1, 75), 1.4, 1.4, 2.0])[::-1]
    matrix = matrix_of(values)
    for tolerance in (1e-2, 1e-8):
        found = top(matrix, count=4, tolerance=tolerance)
        u = np.asarray(found.vectors)
        missed = np.linalg.norm(u @ matrix - found.values[:, None] * u, axis=1)
        np.testing.assert_allclose(found.residuals, missed / 2, atol=1e-4 * tolerance)
        assert found.residuals.max() <= tolerance
        np.testing.assert_allclose(u @ u.T, np.eye(4), atol=1e-10)
        off = np.abs(found.values - values[:4])
        assert np.all(off < 100 * tolerance**2)
        assert found.products > 4 * 8 + 4  # it took restarts


def test_a_tolerance_that_is_not_met_shows():
    found = top(matrix_of(np.linspace(0, 1, 80)), tolerance=1e-6, restarts=3)
    assert (
        found.products == 8 + 5 + 5
    )  # each begins with the three vectors found before
    assert found.residuals[0] > 1e-4


def test_a_run_that_diverged_costs_no_restarts():
    found = top(np.full((80, 80), np.nan))
    assert found.products == 8
    assert np.isnan(found.values[0])
    assert np.isnan(found.residuals[0])


def test_a_warm_start_is_shorter_and_sees_new_directions():
    """From the eigenvector of a matrix that has changed a little; and from one that is
    still an eigenvector, while another has grown past it."""
    matrix = matrix_of(np.r_[3.0, np.linspace(0, 2.8, 79)])
    first = top(matrix)
    noise = 1e-3 * np.random.default_rng(1).normal(size=matrix.shape)
    again = top(matrix + noise + noise.T, first.vectors)
    assert again.products < first.products
    grown = np.diag(np.r_[3.0, 4.0, np.linspace(0, 2, 78)])
    found = top(grown, jnp.eye(80)[:1])
    np.testing.assert_allclose(found.values, [4.0], rtol=1e-5)


def test_few_distinct_eigenvalues():
    """Where the Krylov space closes at once, as on quadratics and toy nets."""
    for values in (
        np.ones(30),
        -np.ones(30),
        np.r_[1.0, -np.ones(29)],
        np.r_[5.0, 2.0, 2.0, np.zeros(27)],
        np.zeros(30),
    ):
        found = top(np.diag(values).astype(np.float32), count=3, tolerance=1e-4)
        np.testing.assert_allclose(found.values, values[:3], rtol=1e-5, atol=1e-6)
        assert np.all(found.residuals < 1e-4)


def test_ten_of_a_net_in_one_space():
    """Within 60 products, of which the last eight only look for what was missed."""
    *_, hessian = problem()
    found = top(hessian, count=10, dimension=16)
    expected = np.linalg.eigvalsh(hessian)[::-1][:10]
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)
    assert found.residuals.max() <= 1e-3
    assert found.products <= 60


def test_no_more_eigenvalues_than_there_are():
    np.testing.assert_allclose(top(np.diag([3.0, -1.0]), count=2).values, [3, -1])
    with pytest.raises(ValueError, match="3 eigenvalues were asked for"):
        top(np.eye(2), count=3)


def test_trace_and_density_within_their_errors():
    """Of the net's dense Hessian H, seeds 0 and 1. Trace: 4.5 standard errors, and the
    stated one against the exact one of Hutchinson's estimate, 2 Σ_{i≠j} H_ij². Density
    at 40 points: 90% within 2 of its errors and all within 4.5."""
    *_, hessian = problem()
    matrix, size = jnp.asarray(hessian), len(hessian)

    @jax.jit
    def estimates():
        def product(v):
            return matrix @ v

        like, keys = matrix[0], [jax.random.key(seed) for seed in (0, 1)]
        trace = measure.trace(product, like, keys[0], samples=400)
        return trace, measure.spectral_density(product, like, keys[1], samples=64)

    trace, density = estimates()
    error = np.sqrt(2 * np.sum((hessian - np.diag(np.diag(hessian))) ** 2) / 400)
    assert abs(trace.mean - np.trace(hessian)) < 4.5 * error
    np.testing.assert_allclose(trace.se, error, rtol=0.2)

    values, width = np.linalg.eigvalsh(hessian), 0.05
    at = np.linspace(values[0] - 0.1, values[-1] + 0.1, 40)
    z = (at[:, None] - values) / width
    expected = np.exp(-0.5 * z**2).mean(1) / (width * np.sqrt(2 * np.pi))
    seen = density.smoothed(at, width)
    off, bound = np.abs(seen.mean - expected), seen.se + 1e-6 * expected.max()
    assert np.mean(off < 2 * bound) >= 0.9
    assert np.all(off < 4.5 * bound)
    np.testing.assert_allclose(density.weights.sum(1), 1, rtol=1e-10)
    first = density.mean(density.nodes)
    assert abs(first.mean - np.trace(hessian) / size) < 4.5 * first.se


PLAN = optsde.Plan(
    optimizer=optsde.Adam(lr=0.01, b1=0.8, b2=0.9, eps=1e-3, l2=0.3),
    batch_size=SIZE,
    horizon=40,
    schedule=lambda t: 1 / (1 + t / 10),
)


def test_probe_against_dense_on_replicas():
    """Two replicas of Adam with l2 on a schedule, vmapped, in groups of four examples;
    the second of two times, to 1e-10."""
    examples, params, flat, tree, _ = problem()
    sampler = full_batch(LOSSES, examples, 4)

    def init(key):
        jitter = 0.1 * jax.random.normal(key, flat.shape)
        return jax.tree.map(jnp.add, params, tree(jitter))

    probe = measure.sharpness_probe(PLAN, LOSSES, examples, 4, tolerance=1e-6)
    keys = jax.random.split(jax.random.key(0), 2)
    made = optsde.discrete(PLAN, sampler, init)
    run = optsde.fit(made, keys, 10, probes=[probe.at([5, 10])])
    found = {name: series.values[:, 1] for name, series in run.metrics.items()}

    exact = jax.jit(jax.hessian(lambda x: LOSSES(tree(x), examples).mean()))
    for replica in range(2):
        here = jax.tree.map(lambda x, i=replica: x[i], run.state)
        hessian = np.asarray(exact(ravel_pytree(here.params)[0]))
        v = ravel_pytree(here.optimizer.direction.v)[0] / (1 - 0.9**10)
        root = np.sqrt(np.sqrt(v) + 1e-3)
        scaled = (hessian + 0.3 * np.eye(flat.size)) / np.outer(root, root)
        for name, matrix in (
            ("sharpness", hessian),
            ("preconditioned_sharpness", scaled),
        ):
            expected = np.linalg.eigvalsh(matrix)[-1]
            np.testing.assert_allclose(found[name][replica], expected, rtol=1e-10)
    lr = 0.01 / (1 + 10 / 10)
    expected = 2 * 1.8 / (0.2 * lr) * (1 - 0.8**11)
    np.testing.assert_allclose(found["threshold"], expected, rtol=1e-6)
    assert found["sharpness_residual"].max() < 1e-6


def test_probe_of_sign_methods_says_only_the_sharpness():
    plan = optsde.Plan(optimizer=optsde.Lion(lr=1e-3), batch_size=SIZE, horizon=9)
    examples, params, *_ = problem()
    sampler = full_batch(LOSSES, examples)
    state = optsde.discrete(plan, sampler, params).init(jax.random.key(0))
    probe = measure.sharpness_probe(plan, LOSSES, examples)
    found, _ = jax.eval_shape(probe.observe, probe.source, state, probe.init(state))
    assert sorted(found) == ["sharpness", "sharpness_residual"]


def regression(sampler, optimizer, batch_size, **options):
    """Batch sharpness of ½(xᵀθ − y)² of four examples, with |x|² = 1 to 4."""
    x = jnp.diag(jnp.sqrt(jnp.arange(1.0, 5))) @ jnp.eye(4, 3)
    examples = x.at[3, 1].set(2.0), jnp.array([1.0, -2.0, 3.0, 0.5])

    def losses(params, examples):
        x, y = examples
        return 0.5 * (x @ params - y) ** 2

    plan = optsde.Plan(optimizer=optimizer, batch_size=batch_size, horizon=8)
    made = functools.partial(sampler, losses, examples)()
    probe = measure.batch_sharpness_probe(plan, made, **options)
    state = optsde.discrete(plan, made, jnp.ones(3)).init(jax.random.key(0))
    (found,) = probe.observe(probe.source, state, ())[0].values()
    return float(found), [np.asarray(part) for part in examples]


@pytest.mark.parametrize("l2", [0.0, 0.5])
def test_batch_sharpness_of_a_known_parabola(l2):
    """In P of RMSprop's v0, of all four examples at once: dᵀ(H + l2)d/dᵀPd in numpy."""
    optimizer = optsde.RMSprop(lr=0.1, v0=4.0, bias_correction=False, eps=0.5, l2=l2)
    sampler = functools.partial(full_batch, group=None)
    found, (x, y) = regression(sampler, optimizer, 4, draws=2)
    hess = x.T @ x / 4 + l2 * np.eye(3)
    step = (x.T @ (x @ np.ones(3) - y) / 4 + l2 * np.ones(3)) / 2.5
    np.testing.assert_allclose(found, step @ hess @ step / (step @ step) / 2.5)


def test_batch_sharpness_of_one_example_is_its_own_curvature():
    """|x|² of each, in the mean of 2,000 draws, within 4 standard errors: far above
    that of the whole loss. The first example is fitted, and has no gradient."""
    found, (x, _) = regression(minibatch, optsde.SGD(lr=0.1), 1, draws=2_000)
    each = (x**2).sum(1)[1:]
    assert abs(found - each.mean()) < 4 * each.std() / 1_400**0.5
    assert found > 1.5 * np.linalg.eigvalsh(x.T @ x / 4).max()


def test_batch_sharpness_is_that_of_steps_without_momentum():
    for optimizer in (optsde.Adam(), optsde.HeavyBall(), optsde.Lion()):
        with pytest.raises(ValueError, match="does not step along P⁻¹g of its batch"):
            regression(minibatch, optimizer, 1)
