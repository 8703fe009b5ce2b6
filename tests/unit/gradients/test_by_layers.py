"""Sums over examples by layers of any kind, against those by blocks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optsde.gradients import by_blocks, by_layers, layers_of
from optsde.gradients.per_example import _dense_layers
from optsde.models import (
    BatchNorm,
    build,
    cross_entropy,
    init_params,
    supervised,
    token_cross_entropy,
)

N = 5


class Language(nn.Module):
    """An untied embedding, attention of Flax, norms, a dense layer at each position."""

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(6, 4)(tokens)
        x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
        return nn.Dense(6)(nn.RMSNorm()(x))


class Images(nn.Module):
    """Strides, padding and groups of channels, then dense layers on all of it."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), strides=2, feature_group_count=2)(x)
        x = nn.gelu(nn.GroupNorm(2)(nn.ConvTranspose(4, (2, 2))(x)))
        return nn.Dense(3)(nn.tanh(nn.Dense(4)(x.reshape(len(x), -1))))


class LowRank(nn.Dense):
    """A layer of two products, one of them in nn.Dense itself."""

    @nn.compact
    def __call__(self, inputs):
        more = self.param("more", nn.initializers.normal(1.0), (4, 4))
        return super().__call__(2 * inputs) + inputs @ more


def halved(*args, **options):
    return jax.lax.dot_general(*args, **options) / 2


class Twists(nn.Module):
    """Uses of nn.Dense that leave no g = x δᵀ; only the first and LowRank's do."""

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(4, name="plain")(x))
        x = LowRank(4, name="low_rank")(x)
        twice = nn.Dense(4, name="twice")
        x = twice(nn.tanh(twice(x)))
        tied = nn.Dense(4, name="tied")
        y = nn.tanh(tied(x)) @ tied.variables["params"]["kernel"].T
        x = x + nn.WeightNorm(nn.Dense(4, name="weight_norm"))(y)
        x = x + nn.remat(nn.Dense)(4, name="remat")(nn.tanh(x))
        own = nn.Dense(4, dot_general=halved, name="own_product")(x)
        positions = jnp.stack([x, nn.tanh(own)], 1)
        return nn.tanh(nn.Dense(4, name="positions")(positions)).sum(1)


def images(*shape):
    return jnp.asarray(np.random.RandomState(0).normal(size=(N, *shape)))


TOKENS = jnp.asarray(np.random.RandomState(1).randint(0, 6, (N, 7)))
CASES = {
    "convnet": (build("digitsnet", 3, norm="group"), images(5, 5, 1)),
    "transformer": (build("transformer", 6, width=4, depth=1, heads=2), TOKENS),
    "Language": (Language(), TOKENS),
    "Images": (Images(), images(5, 5, 2)),
    "Twists": (Twists(), images(4)),
    "Dense": (nn.Dense(3), images(4)),
}
QUICK = {"Dense"}


def full(name):
    return pytest.param(name, marks=pytest.mark.full)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name", [name if name in QUICK else full(name) for name in CASES]
)
def test_sums_are_those_by_blocks(name):
    """Within 1e-10 of the largest of each kind, in float64."""
    model, x = CASES[name]
    tokens = jnp.issubdtype(x.dtype, jnp.integer)
    loss = token_cross_entropy if tokens else cross_entropy
    y = x if tokens else jnp.arange(N) % 3
    params = init_params(model, jax.random.key(0), x)
    draw = np.random.RandomState(2)
    params = jax.tree.map(lambda p: jnp.asarray(draw.normal(size=p.shape)), params)
    w = jnp.asarray(draw.normal(size=N))
    ours = jax.jit(by_layers(model, loss, (x, y), 3))(params, w)
    theirs = jax.jit(by_blocks(supervised(model, loss), (x, y), 3))(params, w)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(ours, theirs, strict=True):
        largest = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(other))
        jax.tree.map(
            lambda a, b, bound=1e-10 * largest: np.testing.assert_allclose(
                a, b, rtol=0, atol=bound
            ),
            one,
            other,
        )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Images", {("Dense_0",), ("Dense_1",)}),
        ("Twists", {("plain",), ("low_rank",)}),
        ("convnet", {("head",)}),
        ("Language", set()),
        ("Dense", {()}),
    ],
)
def test_gradients_are_not_formed_of_dense_layers_alone(name, expected):
    model, x = CASES[name]
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    assert _dense_layers(model, params, x) == expected


def test_what_is_refused_is_named():
    with pytest.raises(ValueError, match="ConvTranspose_0/bias is not"):
        layers_of(*CASES["Images"])
    x, labels = images(4), jnp.arange(N) % 3
    ghost = nn.Sequential([nn.Dense(3), BatchNorm(affine=False)])
    with pytest.raises(ValueError, match="BatchNorm makes examples interact"):
        by_layers(ghost, cross_entropy, (x, labels))
    mean = by_layers(nn.Dense(3), lambda *a: cross_entropy(*a).mean(), (x, labels))
    params = {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}
    with pytest.raises(ValueError, match="return the loss of each"):
        mean(params)


@pytest.mark.full
@pytest.mark.parametrize(("name", "bound"), [("convnet", 1.4), ("Dense", 3)])
def test_operations_in_gradients(name, bound):
    """At most 1.4 for a small convnet, whose gradients of examples are sums over 9
    and more positions; for one dense layer three products and a forward pass for two.
    """
    model, x = CASES[name]
    data = x, jnp.arange(N) % 3
    params = init_params(model, jax.random.key(0), x)
    losses = supervised(model, cross_entropy)

    def operations(function):
        compiled = jax.jit(function).lower(params, jnp.ones(N)).compile()
        return compiled.cost_analysis()["flops"]

    def gradient(params, w):
        return jax.value_and_grad(lambda p: jnp.sum(losses(p, data)))(params)

    sums = by_layers(model, cross_entropy, data)
    assert operations(sums) <= bound * operations(gradient)
