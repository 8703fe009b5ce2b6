"""Models against published counts, closed forms, plain loops and their invariances.

Parameters and inputs are numpy's, since compiling draws costs more than the tests.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optsde.gradients import by_blocks, by_layers
from optsde.models import (
    SCALE_INVARIANT,
    BatchNorm,
    Conv,
    GroupNorm,
    LayerNorm,
    build,
    cross_entropy,
    init_params,
    squared_error,
    supervised,
    token_cross_entropy,
)

PUBLISHED = {
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "resnet50": 23_520_842,
    "resnet152": 58_156_618,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "preresnet20": 272_282,
    "preresnet56": 855_578,
    "preresnet110": 1_730_522,
    "densenet121": 6_956_298,
}
CIFAR_CODE = {"vgg16": 14_728_266, "vgg19": 20_040_522}  # with biases before the norms
SMALL = {
    "digitsnet": {},
    "resnet18": dict(blocks=(1, 1), width=8),
    "resnet20": dict(blocks=(1, 1), width=8),
    "resnet50": dict(blocks=(1, 1), width=8, downsample="avgpool"),
    "preresnet20": dict(blocks=(1, 1), width=8),
    "densenet121": dict(blocks=(1, 1), growth=16),
    "vgg16": dict(blocks=(1, 1), width=8),
}
FEW = ("digitsnet", "resnet50", "preresnet20", "densenet121", "vgg16")
MASK = np.array([1, 1, 0, 1, 0, 1])


def images(n=6, size=8, channels=1):
    x = np.random.default_rng(0).normal(size=(n, size, size, channels))
    return x.astype(jnp.result_type(float))


def shapes_of(model, x):
    return jax.eval_shape(model.init, jax.random.key(0), x)["params"]


def count(model, x):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes_of(model, x)))


def fill(model, x):
    """Parameters of plausible size, none of them 0 or 1."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        z = rng.normal(size=leaf.shape)
        kernel = (2 / math.prod(leaf.shape[:-1])) ** 0.5 * z
        of = {"kernel": kernel, "scale": 1 + 0.1 * z}.get(path[-1].key, 0.1 * z)
        return of.astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes_of(model, x))


def small(name, **options):
    """A small net of the family, its parameters and its inputs."""
    x = images()
    model = build(name, 10, **SMALL[name], **options)
    return model, fill(model, x), x


@functools.partial(jax.jit, static_argnums=0)
def apply(model, variables, *args):
    return model.apply(variables, *args)


@functools.partial(jax.jit, static_argnums=0)
def collect(model, variables, *args):
    return model.apply(variables, *args, mutable=["statistics"])


@functools.partial(jax.jit, static_argnums=(0, 1))
def gradient(model, loss, params, *args):
    """Of the summed losses; and the losses."""
    losses = supervised(model, loss)

    def total(params):
        each = losses(params, *args)
        return each.sum(), each

    return jax.grad(total, has_aux=True)(params)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def scaled(params):
    return jax.tree.map(lambda w: 7.3 * w, params)


# Counts


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name):
    assert count(build(name, 10), images(1, 32, 3)) == PUBLISHED[name]


@pytest.mark.parametrize(("name", "biases"), [("vgg16", 4_224), ("vgg19", 5_504)])
def test_vgg_counts_differ_by_the_biases(name, biases):
    x = images(1, 32, 3)
    assert count(build(name, 10), x) == CIFAR_CODE[name] - biases
    norms = 2 * biases
    assert count(build(name, 10, norm="none"), x) == CIFAR_CODE[name] - norms


def test_other_counts():
    assert count(build("digitsnet", 10), images(1, 8)) == 3_778
    assert count(build("preresnet32", 10), images(1, 32, 3)) == 466_714
    conv, linear = 9 * 32 + 32, 28 * 28 * 32 * 10 + 10
    assert count(build("smallconv", 10), images(1, 28)) == conv + linear
    convs, dense = 9 * 8 + 8 + 9 * 8 * 16 + 16, 7 * 7 * 16 * 32 + 32 + 32 * 10 + 10
    assert count(build("twoconv", 10), images(1, 28)) == convs + dense
    avgpool = build("resnet18", 10, downsample="avgpool")
    assert count(avgpool, images(1, 32, 3)) == PUBLISHED["resnet18"]
    fixed = build("resnet18", 10, fixed_head=True)
    assert count(fixed, images(1, 32, 3)) == PUBLISHED["resnet18"] - 5_130


# Convolutions


def convolve(x, kernel, stride):
    """By loops over the outputs."""
    size, pad = kernel.shape[0], kernel.shape[0] // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows = range(0, x.shape[1] - size + 1, stride)
    columns = range(0, x.shape[2] - size + 1, stride)
    y = [
        [np.tensordot(x[:, i : i + size, j : j + size], kernel, 3) for j in columns]
        for i in rows
    ]
    return np.moveaxis(np.array(y), 2, 0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", ["direct", "patches"])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_against_loops(form, size, stride):
    x = images(2, 8, 3)[:, :7]
    layer = Conv(4, size, stride, form)
    params = fill(layer, x)
    y = apply(layer, {"params": params}, x)
    expected = convolve(x, params["kernel"], stride)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)


def test_forms_are_chosen_for_the_device(monkeypatch):
    """A convolution on an accelerator, products on a CPU."""
    x = images(2, 8, 3)
    layer = Conv(4)
    params = fill(layer, x)

    def text():
        forward = jax.make_jaxpr(lambda p: layer.apply({"params": p}, x))
        return str(forward(params))

    assert "conv_general" not in text()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "conv_general" in text()


def check_forms_agree(stride, bound):
    """Values and gradients, in units of the largest one."""
    x = images(3, 8, 5)
    direct, patches = (Conv(4, 3, stride, form) for form in ("direct", "patches"))
    params = fill(direct, x)

    def total(layer, params, x):
        y = layer.apply({"params": params}, x)
        return jnp.sum(jnp.sin(y)), y

    f = jax.jit(jax.grad(total, (1, 2), has_aux=True), static_argnums=0)
    one, other = f(direct, params, x), f(patches, params, x)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=bound * np.abs(a).max())


@pytest.mark.parametrize("stride", [1, 2])
def test_the_forms_agree(stride):
    check_forms_agree(stride, 1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("stride", [1, 2])
def test_the_forms_agree_in_float64(stride):
    check_forms_agree(stride, 1e-12)


def test_initial_variance_of_convolutions():
    """2/fan_out; 294,912 numbers, relative s.e. 0.26%, five of them."""
    x = jnp.asarray(images(1, 4, 512))
    kernel = init_params(Conv(64), jax.random.key(0), x)["kernel"]
    assert np.var(kernel) == pytest.approx(2 / (9 * 64), rel=0.013)


# Norms


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shape", [(6, 3), (6, 4, 5, 3)])
@pytest.mark.parametrize("kind", [bool, float])
def test_masked_batch_norm_is_that_of_the_rest(shape, kind):
    x = 3 + 2 * np.random.default_rng(0).normal(size=shape)
    scale, bias = np.array([1.0, 2.0, 3.0]), np.array([0.0, -1.0, 5.0])
    variables = {"params": {"scale": scale, "bias": bias}}
    kept = MASK.astype(bool)
    y = np.asarray(apply(BatchNorm(), variables, x, MASK.astype(kind)))[kept]
    rest = x[kept]
    alone = apply(BatchNorm(), variables, rest)
    np.testing.assert_allclose(y, alone, rtol=0, atol=1e-12)
    rows = rest.reshape(-1, 3)
    expected = scale * (rest - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5) + bias
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_group_and_layer_norm():
    x = 3 + 2 * images(2, 4, 6)
    y = apply(GroupNorm(3, affine=False), {}, x)
    groups = x.reshape(2, 16, 3, 2)
    mean, var = (f(groups, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    expected = ((groups - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)
    y = apply(LayerNorm(affine=False), {}, x)
    mean, var = (f(x, axis=-1, keepdims=True) for f in (np.mean, np.var))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="6 channels do not make 8 equal groups"):
        apply(GroupNorm(affine=False), {}, x)


@pytest.mark.parametrize("value", [1e6, np.nan])
def test_masked_rows_influence_nothing(value):
    model, params, x = small("resnet18")
    changed = np.where(MASK[:, None, None, None], x, np.float32(value))
    plain, other, unmasked = (
        np.asarray(apply(model, {"params": params}, *args))[MASK.astype(bool)]
        for args in ((x, MASK), (changed, MASK), (x,))
    )
    np.testing.assert_array_equal(plain, other)
    assert np.abs(unmasked - plain).max() > 1e-3


def test_an_empty_group_is_finite():
    model, params, x = small("digitsnet")
    examples = x, np.ones((6, 10))
    grads, losses = gradient(model, squared_error, params, examples, np.zeros(6))
    assert np.isfinite(losses).all()
    assert np.isfinite(flat(grads)).all()


@pytest.mark.usefixtures("x64")
def test_statistics_of_one_batch_give_its_outputs_again():
    model, params, x = small("resnet50")
    trained, seen = collect(model, {"params": params}, x, MASK)
    evaluated = apply(model, {"params": params, **seen}, x)
    np.testing.assert_allclose(evaluated, trained, rtol=0, atol=1e-10)
    alone = apply(model, {"params": params, **seen}, x[:1])
    np.testing.assert_allclose(alone, trained[:1], rtol=0, atol=1e-10)
    plain = apply(model, {"params": params}, x, MASK)
    np.testing.assert_allclose(plain, trained, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_statistics_average_by_counts():
    """Of a batch in two groups of 5 with 2 and 5 examples: those of all 7 together."""
    x = images(10) + np.arange(10.0)[:, None, None, None]
    mask = np.array([1, 0, 1, 0, 0, 1, 1, 1, 1, 1])
    read = functools.partial(collect, BatchNorm(affine=False), {})
    _, groups = jax.vmap(read)(x.reshape(2, 5, 8, 8, 1), mask.reshape(2, 5))
    _, whole = read(x, mask)
    for name, value in whole["statistics"].items():
        average = np.array([2, 5]) / 7 @ np.asarray(groups["statistics"][name])
        np.testing.assert_allclose(average, value, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_groups_under_vmap_are_separate_calls():
    model, params, _ = small("resnet18")
    x = images(8).reshape(2, 4, 8, 8, 1)
    mask = np.array([[1, 1, 1, 0], [1, 1, 1, 1]])
    run = functools.partial(apply, model, {"params": params})
    together = jax.vmap(run)(x, mask)
    for group in range(2):
        alone = run(x[group], mask[group])
        np.testing.assert_allclose(together[group], alone, rtol=0, atol=1e-11)


# Scale invariance


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "norm"), [*((name, "batch") for name in SMALL), ("resnet18", "group")]
)
def test_scale_invariance(name, norm):
    """L(cw) = L(w) for every example, hence ⟨w, ∇L⟩ = 0, to 10⁻¹² of |w||∇L|."""
    model, params, x = small(name, norm=norm, **SCALE_INVARIANT)
    examples = x, np.arange(60.0).reshape(6, 10)
    grads, losses = gradient(model, squared_error, params, examples)
    _, same = gradient(model, squared_error, scaled(params), examples)
    np.testing.assert_allclose(same, losses, rtol=1e-12)
    w, g = flat(params), flat(grads)
    assert np.linalg.norm(g) > 1e-3
    assert abs(w @ g) < 1e-12 * np.linalg.norm(w) * np.linalg.norm(g)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("missing", SCALE_INVARIANT)
def test_scale_invariance_needs_every_option(missing):
    options = {k: v for k, v in SCALE_INVARIANT.items() if k != missing}
    model, params, x = small("digitsnet", **options)
    logits = apply(model, {"params": params}, x)
    other = apply(model, {"params": scaled(params)}, x)
    assert np.abs(np.asarray(other) - logits).max() > 1e-6


def test_dead_units_without_eps():
    model, params, x = small("digitsnet", **SCALE_INVARIANT)
    params["Conv_1"]["kernel"][..., 3] = 0
    grads, losses = gradient(model, squared_error, params, (x, np.ones((6, 10))))
    assert np.isfinite(losses).all()
    assert np.isfinite(flat(grads)).all()
    largest = np.abs(grads["Conv_1"]["kernel"]).max(axis=(0, 1, 2))
    assert largest[3] == 0
    assert largest[2] > 0


# NTK parametrization


@pytest.mark.parametrize(
    ("name", "width"), [("mlp", 8), ("mlp", 256), ("smallconv", 64)]
)
def test_ntk_variance_does_not_depend_on_the_width(name, width):
    """E f² = ½ E|patch|²/fan_in with ReLU: 500 seeds of ten outputs, |z| below 5."""
    x = images(1, 4)
    layers = dict(hidden=(width,)) if name == "mlp" else dict(width=width)
    model = build(name, 10, parametrization="ntk", **layers)
    draw = jax.jit(jax.vmap(lambda key: model.init_with_output(key, x)[0]))
    logits = draw(jax.random.split(jax.random.key(0), 500))
    patches = np.lib.stride_tricks.sliding_window_view(np.pad(x[0, :, :, 0], 1), (3, 3))
    seen = x if name == "mlp" else patches
    squares = (np.asarray(logits, np.float64) ** 2).mean(axis=(1, 2))
    z = (squares.mean() - (seen**2).mean() / 2) / (squares.std() / 500**0.5)
    assert abs(z) < 5


@pytest.mark.usefixtures("x64")
def test_layers_of_the_ntk_parametrization_give_their_sums():
    model = build("mlp", 4, hidden=(7,), parametrization="ntk")
    data = images(9, 3), np.arange(9) % 4
    params, w = fill(model, data[0]), np.random.default_rng(1).normal(size=9)
    layers = jax.jit(by_layers(model, cross_entropy, data))(params, w)
    blocks = jax.jit(by_blocks(supervised(model, cross_entropy), data))(params, w)
    np.testing.assert_allclose(flat(layers), flat(blocks), rtol=1e-10, atol=1e-14)


# Compute types


@pytest.mark.parametrize("name", ["mlp", "transformer", *SMALL])
def test_bfloat16_policy(name):
    """Off by less than ten roundings of 2⁻⁹ of the largest logit; but not by none."""
    options, x = SMALL.get(name, {}), images()
    if name == "transformer":
        options, x = dict(width=16, depth=1), np.arange(12).reshape(2, 6) % 10
    half = build(name, 10, dtype="bfloat16", **options)
    params = fill(half, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    y = np.asarray(apply(half, {"params": params}, x))
    exact = np.asarray(apply(build(name, 10, **options), {"params": params}, x))
    assert y.dtype == exact.dtype == np.float32
    assert 0 < np.abs(y - exact).max() < 10 * 2**-9 * np.abs(exact).max()


def test_statistics_of_bfloat16_inputs_are_float32():
    x = (100 + images(512, 4, 3)).astype(jnp.bfloat16)
    y, seen = collect(BatchNorm(affine=False), {}, x)
    assert y.dtype == jnp.bfloat16
    wide = x.astype(np.float64).reshape(-1, 3)
    mean, square = (seen["statistics"][name] for name in ("mean", "square"))
    np.testing.assert_allclose(mean, wide.mean(0), rtol=1e-6)
    np.testing.assert_allclose(square, (wide**2).mean(0), rtol=1e-6)


# Transformer


@pytest.mark.parametrize("causal", [True, False])
def test_only_masked_models_see_the_future(causal):
    model = build("transformer", 11, width=16, depth=2, length=8, causal=causal)
    tokens = np.arange(24).reshape(3, 8) * 5 % 11
    variables = {"params": fill(model, tokens)}
    changed = tokens.copy()
    changed[0, 5:] = (changed[0, 5:] + 1) % 11
    one, other = (np.asarray(apply(model, variables, t)) for t in (tokens, changed))
    change = np.abs(one - other).max(axis=2)
    assert change[1:].max() == 0
    assert change[0, 5:].min() > 1e-3
    if causal:
        assert change[0, :5].max() == 0
    else:
        assert change[0, :5].min() > 1e-3
    with pytest.raises(ValueError, match="9 tokens are more than the 8 positions"):
        apply(model, variables, np.zeros((1, 9), int))


def test_initial_transformer():
    """Standard deviations 0.02 and 0.02/√(2·depth), each to five s.e."""
    model = build("transformer", 50, width=16, depth=2, length=50)
    tokens = jnp.zeros((1, 6), int)
    params = init_params(model, jax.random.key(0), tokens)
    layer = params["layer1"]
    kernels = {name: layer[name]["kernel"] for name in ("qkv", "out", "up", "down")}
    tables = {name: params[name] for name in ("tokens", "positions")}
    for name, value in (kernels | tables).items():
        std = 0.02 / (2 if name in ("out", "down") else 1)
        assert np.std(value) == pytest.approx(std, rel=5 / (2 * value.size) ** 0.5)


def test_untied_rows_have_gradients_only_where_their_token_is_read():
    """And with one matrix for both, the net is the tied one."""
    options: dict = dict(width=16, depth=1, heads=2, length=4)
    tokens, targets = jnp.array([[1, 3, 3, 5]]), jnp.array([[3, 3, 5, 7]])
    tied, untied = (build("transformer", 9, tied=x, **options) for x in (True, False))
    params = fill(untied, tokens)

    def loss(params):
        logits = untied.apply({"params": params}, tokens)
        return token_cross_entropy(logits, targets)[0]

    sizes = {k: jnp.abs(jax.grad(loss)(params)[k]).max(1) for k in ("tokens", "output")}
    np.testing.assert_array_equal(np.flatnonzero(sizes["tokens"]), [1, 3, 5])
    assert (sizes["output"] > 0).all()
    same = params | {"output": params["tokens"]}
    one = untied.apply({"params": same}, tokens)
    other = tied.apply(
        {"params": {k: same[k] for k in same.keys() - {"output"}}}, tokens
    )
    np.testing.assert_array_equal(one, other)


# Losses


@pytest.mark.usefixtures("x64")
def test_token_loss_against_numpy():
    logits = 3 * np.random.default_rng(0).normal(size=(3, 4, 5))
    targets = np.array([[0, 4, -1, 2], [-1, -1, -1, -1], [1, 1, 3, 0]])
    expected = []
    for row, labels in zip(logits, targets, strict=True):
        each = [
            np.log(np.exp(z).sum()) - z[t]
            for z, t in zip(row, labels, strict=True)
            if t >= 0
        ]
        expected.append(np.mean(each) if each else 0.0)
    found, pull = jax.vjp(lambda z: jax.jit(token_cross_entropy)(z, targets), logits)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    (grads,) = pull(jnp.ones(3))
    assert np.abs(grads[0, 2]).max() == np.abs(grads[1]).max() == 0
    assert np.abs(grads[0, :2]).min() > 0


def test_supervised_prepares_inputs_and_passes_the_mask():
    model, params, _ = small("digitsnet")
    raw = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)
    labels, prepare = jnp.arange(6), lambda x: x.astype("float32") / 255
    losses = jax.jit(supervised(model, cross_entropy, prepare))
    found = []
    for args in ((), (MASK,)):
        logits = apply(model, {"params": params}, prepare(raw), *args)
        expected = cross_entropy(logits, labels)
        found.append(np.asarray(losses(params, (raw, labels), *args)))
        np.testing.assert_allclose(found[-1], expected, rtol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_init_reads_one_example():
    shapes = []

    class Watching(BatchNorm):
        def __call__(self, x, mask=None):
            shapes.append(x.shape)
            return super().__call__(x, mask)

    params = init_params(Watching(), jax.random.key(0), jnp.asarray(images(50)))
    assert set(params) == {"scale", "bias"}
    assert shapes == [(1, 8, 8, 1)]


# Every family


@pytest.mark.parametrize(
    "name",
    ["smallconv", "twoconv", "transformer", *FEW],
)
@pytest.mark.optimized  # XLA's own max-pooling gives NaN without
def test_every_parameter_has_a_finite_gradient(name):
    if name == "transformer":
        model = build(name, 11, width=16, depth=1, length=6)
        x = np.arange(18).reshape(3, 6) * 5 % 11
        loss, examples = token_cross_entropy, (x, (x + 1) % 11)
    else:
        options = dict(form="patches", activation="silu", **SMALL.get(name, {}))
        model, x = build(name, 10, **options), images()
        loss, examples = cross_entropy, (x, np.arange(6))
    grads, losses = gradient(model, loss, fill(model, x), examples)
    assert np.isfinite(losses).all()
    for g in jax.tree.leaves(grads):
        assert np.isfinite(g).all()
        assert np.abs(g).max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(name="resnet19"), r"model 'resnet19' is none of mlp, "),
        (dict(name="mlp", depth=3), "mlp has no option depth: it takes activation, "),
        (dict(name="vgg16", activation="sin"), "activation 'sin' is none of relu, "),
    ],
)
def test_build_says_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        build(classes=10, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", dict(norm="layer"), "norm='layer' is none of batch, group, none"),
        ("resnet18", dict(form="fft"), "form='fft' is none of auto, direct, patches"),
        ("resnet18", dict(downsample="max"), "'max' is none of conv, avgpool, pad"),
        ("mlp", dict(parametrization="mup"), "'mup' is none of standard, ntk"),
        ("vgg16", {}, "images of 8×8 are too small for 5 poolings"),
    ],
)
def test_models_say_what_is_allowed(name, options, message):
    with pytest.raises(ValueError, match=message):
        count(build(name, 10, **options), images(1))
