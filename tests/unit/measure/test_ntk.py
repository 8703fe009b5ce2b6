"""The empirical kernel and the gradients' outer product, against dense jacobians, the
kernel of infinite width, and the Hessian."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optsde import data, measure, models
from optsde.analysis import Estimate, estimate, log_slope
from optsde.measure import ntk


def net(width=16, outputs=3, **options):
    model = models.build("mlp", outputs, hidden=(width,), **options)
    return model, lambda params, x: model.apply({"params": params}, x)


def case(examples=11, features=5, **options):
    """(apply, params, x) of a small net with biases."""
    model, apply = net(activation="tanh", **options)
    x = jnp.asarray(np.random.RandomState(1).normal(size=(examples, features)), "f4")
    params = models.init_params(model, jax.random.key(0), x)
    return apply, jax.tree.map(lambda p: p + 0.1, params), x


@partial(jax.jit, static_argnums=0)
def dense_kernel(apply, params, x):
    jacobian = jax.jacobian(lambda p: apply(p, x))(params)
    leaves = [j.reshape(*j.shape[:2], -1) for j in jax.tree.leaves(jacobian)]
    rows = jnp.concatenate(leaves, axis=-1)
    return jnp.einsum("ikp,jlp->ikjl", rows, rows)


def in_float64(*trees):
    with jax.enable_x64(True):
        return jax.tree.map(lambda a: jnp.asarray(np.asarray(a), float), trees)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("form", "block"), [("full", 4), ("outputs", 4), ("trace", 1), ("full", 32)]
)
def test_kernel_is_that_of_the_dense_jacobian(form, block):
    apply, *given = case()
    params, x = in_float64(*given)
    full = dense_kernel(apply, params, x)
    sums = {"full": "ikjl->ikjl", "outputs": "ikjk->kij", "trace": "ikjk->ij"}
    got = jax.jit(partial(ntk.kernel, apply, form=form, block=block))(params, x)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, np.einsum(sums[form], full), atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", ["full", "outputs", "trace"])
@pytest.mark.parametrize("options", [{}, {"parametrization": "ntk"}], ids=str)
def test_kernel_by_layers_is_the_same(form, options):
    model, apply = net(**options)
    _, *given = case(**options)
    params, x = in_float64(*given)
    got = jax.jit(partial(ntk.kernel_by_layers, model, form=form))(params, x)
    expected = jax.jit(partial(ntk.kernel, apply, form=form))(params, x)
    np.testing.assert_allclose(got, expected, atol=1e-10)


def test_kernel_by_layers_of_other_layers_is_refused():
    model = models.build("smallconv", 3)
    images = jnp.zeros((2, 8, 8, 1))
    params = models.init_params(model, jax.random.key(0), images)
    with pytest.raises(ValueError, match="this needs every parameter in"):
        ntk.kernel_by_layers(model, params, images)


def test_float64_without_being_asked_for():
    apply, params, x = case()
    exact = ntk.exact_kernel(apply, params, x, block=4)
    wide = in_float64(params, x)
    with jax.enable_x64(True):
        expected = dense_kernel(apply, *wide)
    np.testing.assert_allclose(exact, expected, atol=1e-10)
    assert jnp.ones(()).dtype == np.float32
    # More outputs (33) than this net has parameters that matter to them: singular.
    apply, params, x = case(width=2)
    rank = sum(p.size for p in jax.tree.leaves(params))
    found = ntk.spectrum(ntk.exact_kernel(apply, params, x))
    assert rank == 21
    assert found.least > -1e-12 * found.norm
    assert found.eigenvalues[rank - 1] > 1e-8 * found.norm
    np.testing.assert_allclose(found.eigenvalues[rank:] / found.norm, 0, atol=1e-12)


def test_norm_by_power_iteration():
    apply, params, x = case()
    moved = jax.tree.map(lambda p: 1.02 * p, params)
    known = [ntk.spectrum(dense_kernel(apply, p, x)).norm for p in (params, moved)]
    both = jax.tree.map(lambda *a: jnp.stack(a), params, moved)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None, None))
    def norm(params, vector, iterations):
        return ntk.norm(apply, params, x, vector, iterations)

    start = jax.random.normal(jax.random.key(2), (11, 3))
    values, vectors = norm(both, start, 500)
    np.testing.assert_allclose(values, known, rtol=1e-5)
    (_, warm), _ = norm(both, vectors[0], 2)  # that of before the move
    (_, cold), _ = norm(both, start, 2)
    assert abs(warm - known[1]) < 1e-3 * known[1] < abs(cold - known[1])
    assert max(warm, cold) < known[1] * (1 + 1e-5)  # from below
    value, _ = ntk.norm(apply, params, x)
    np.testing.assert_allclose(value, known[0], rtol=1e-2)


def test_memory_follows_the_block_and_not_the_examples():
    """Jacobians of all 256 examples at once would take 80 MB, one block of 8 2.5 MB."""
    _, apply = net(width=512, outputs=4)
    x = jnp.ones((256, 32))
    model, _ = net(width=512, outputs=4)
    params = jax.eval_shape(lambda: models.init_params(model, jax.random.key(0), x))

    def megabytes(examples, block):
        function = jax.jit(partial(ntk.kernel, apply, form="trace", block=block))
        compiled = function.lower(params, x[:examples]).compile()
        return compiled.memory_analysis().temp_size_in_bytes / 1e6

    few, many, wide = megabytes(64, 8), megabytes(256, 8), megabytes(256, 32)
    assert 4 < few < 15
    assert many < few + 1
    assert 3 < wide / many < 5


def infinite_kernel(x):
    """Of a two-layer ReLU net with N(0, 1) weights: arc-cosine kernels of order 1 and 0
    (Cho and Saul 2009), the latter from the first layer's weights."""
    inner = x @ x.T / x.shape[1]
    size = np.sqrt(np.outer(np.diag(inner), np.diag(inner)))
    angle = np.arccos(np.clip(inner / size, -1, 1))
    of_last = size * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
    return of_last + inner * (np.pi - angle) / (2 * np.pi)


def test_wide_nets_have_the_known_kernel():
    """The error falls as 1/√width; 16 seeds from key 0, slope within .1 of −½, and the
    mean over seeds within 3% at width 4096."""
    x = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    known, widths = infinite_kernel(x), [64, 512, 4096]
    keys = jax.random.split(jax.random.key(0), 16)
    errors = []
    for width in widths:
        model, apply = net(
            width, 1, activation="relu", parametrization="ntk", use_bias=False
        )

        def kernel(key, model=model, apply=apply):
            params = model.init(key, x)["params"]
            return ntk.kernel(apply, params, jnp.asarray(x), "trace")

        found = np.asarray(jax.jit(jax.vmap(kernel))(keys))
        apart = np.linalg.norm(found - known, axis=(1, 2)) / np.linalg.norm(known)
        errors.append(estimate(apart))
    columns = (np.array(column) for column in zip(*errors, strict=True))
    slope = log_slope(widths, Estimate(*columns))
    assert -0.6 < slope.low < slope.high < -0.4, slope
    mean = np.linalg.norm(found.mean(0) - known) / np.linalg.norm(known)
    assert mean < 0.03


def test_sharpness_at_the_start_is_that_of_the_kernel():
    """λ_max·n/(2‖K‖) of (1/n)Σ|f − y|² on digits within 10% of 1, for two seeds."""
    images, labels = data.digits()
    x = jnp.asarray((images[:64] - images.mean()) / images.std())
    y = jnp.eye(10)[labels[:64]]
    model, apply = net(512, 10, parametrization="ntk", use_bias=False)

    def ratio(key):
        params = model.init(key, x)["params"]
        norm, _ = ntk.norm(apply, params, x, iterations=30)
        gradient = jax.grad(lambda p: jnp.sum((apply(p, x) - y) ** 2) / 64)

        def step(_, v):
            v = jax.jvp(gradient, (params,), (v,))[1]
            size = jnp.sqrt(sum(jnp.sum(a**2) for a in jax.tree.leaves(v)))
            return jax.tree.map(lambda a: a / size, v)

        v = jax.lax.fori_loop(0, 30, step, jax.tree.map(jnp.ones_like, params))
        image = jax.jvp(gradient, (params,), (v,))[1]
        top = sum(
            jnp.sum(a * b)
            for a, b in zip(*map(jax.tree.leaves, (v, image)), strict=True)
        )
        return top * ntk.critical_lr(norm, 64, 10, "mean") / 2

    ratios = jax.jit(lambda keys: jax.lax.map(ratio, keys))(
        jax.random.split(jax.random.key(0), 2)
    )
    np.testing.assert_allclose(ratios, 1, atol=0.1)


@pytest.mark.usefixtures("x64")
def test_critical_rates_of_each_way_to_write_the_loss():
    """Of a linear net, whose Hessian is s·JᵀJ exactly."""
    x = np.random.RandomState(0).normal(size=(7, 4))
    y, weights = np.ones((7, 3)), np.zeros((4, 3))
    residual = {
        "half_sum": lambda r: 0.5 * jnp.sum(r**2),
        "half_mean": lambda r: jnp.mean(models.squared_error(r + y, y)),
        "mean": lambda r: jnp.sum(r**2) / 7,
        "mean_over_outputs": lambda r: jnp.mean(r**2),
    }
    norm = ntk.spectrum(np.kron(x @ x.T, np.eye(3))).norm
    assert residual.keys() == ntk.LOSSES.keys()
    for name, loss in residual.items():
        hessian = jax.hessian(lambda w, loss=loss: loss(x @ w.reshape(4, 3) - y))
        sharpness = np.linalg.eigvalsh(jax.jit(hessian)(weights.reshape(-1)))[-1]
        np.testing.assert_allclose(ntk.critical_lr(norm, 7, 3, name), 2 / sharpness)


def test_spectrum_and_alignment_of_known_kernels():
    y = np.random.default_rng(0).standard_normal((6, 2))
    found = ntk.spectrum(np.diag([1.0, 4.0, 2.0]))
    np.testing.assert_allclose(found.eigenvalues, [4, 2, 1])
    assert (found.norm, found.least, found.condition) == (4, 1, 4)
    np.testing.assert_allclose(found.effective_rank, 49 / 21)
    own = np.einsum("ik,jl->ikjl", y, y)
    assert ntk.spectrum(own).condition == np.inf
    np.testing.assert_allclose(ntk.target_alignment(own, y), 1)
    np.testing.assert_allclose(ntk.target_alignment(np.eye(6), y), 6**-0.5)


def test_probe_follows_the_norm_through_a_run():
    apply, params, x = case()
    probe = ntk.ntk_probe(apply, x, "mean", first=500)
    observe = jax.jit(
        lambda p, memory: probe.observe(x, SimpleNamespace(params=p), memory)
    )
    memory = probe.init(SimpleNamespace(params=params))
    for scale in (1.0, 1.01, 1.02, 1.03):
        now = jax.tree.map(lambda p, scale=scale: scale * p, params)
        found, memory = observe(now, memory)
        known = ntk.spectrum(dense_kernel(apply, now, x)).norm
        np.testing.assert_allclose(found["ntk_norm"], known, rtol=1e-4)
        np.testing.assert_allclose(found["ntk_critical_lr"], 11 / known, rtol=1e-4)


@pytest.mark.usefixtures("x64")
def test_gradient_outer_product():
    apply, *given = case()
    params, x = in_float64(*given)
    slopes = jax.jit(jax.vmap(jax.jacobian(lambda one: apply(params, one[None])[0])))(x)
    expected = np.einsum("ikd,ike->de", slopes, slopes) / 11
    for block in (4, 64):
        found = jax.jit(partial(measure.agop, apply, block=block))(params, x)
        np.testing.assert_allclose(found, expected, atol=1e-10)
    weights = jnp.asarray(np.random.RandomState(2).normal(size=(5, 3)))
    linear = partial(measure.agop, lambda w, x: x @ w, block=4)
    found = jax.jit(linear)(weights, x)
    np.testing.assert_allclose(found, weights @ weights.T, atol=1e-10)
    np.testing.assert_allclose(measure.alignment(found, 3 * found), 1)
    np.testing.assert_allclose(
        measure.alignment(jnp.eye(5), found),
        jnp.trace(found) / (5**0.5 * jnp.linalg.norm(found)),
    )


def test_what_is_not_known_is_refused():
    apply, params, x = case()
    with pytest.raises(ValueError, match="form='half' is none of full, outputs, trace"):
        ntk.kernel(apply, params, x, "half")
    with pytest.raises(ValueError, match="block=0 must be at least 1"):
        ntk.kernel(apply, params, x, block=0)
    with pytest.raises(ValueError, match="loss='sum' is none of half_sum, half_mean"):
        ntk.critical_lr(1.0, 5, loss="sum")
    with pytest.raises(ValueError, match="of the form 'outputs' take one output"):
        ntk.spectrum(np.zeros((3, 4, 4)))
