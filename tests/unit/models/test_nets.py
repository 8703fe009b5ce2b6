"""Nets of other libraries: their training and evaluation, against plain forwards."""

import chex
import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import optsde
from optsde import gradients, models, run
from optsde.gradients import Draw

X = jax.random.normal(jax.random.key(0), (10, 4)) * 2 + 1
Y = jnp.arange(10) % 3
DRAW = Draw(jax.random.key(5), jnp.int32(2))


def task(model, **changes):
    return run.Task(
        **dict(model=model, loss=models.cross_entropy, train=(X, Y), test=(X, Y))
        | changes
    )


def metrics(task, params, rows=512):
    """Returns what the evaluation of a task gives at `params`."""

    class State:
        pass

    State.params = params
    probe = task.evaluation(rows=rows)
    return jax.jit(lambda s: probe.observe(s, State, ())[0])(probe.source)


def logits_loss(logits):
    return float(models.cross_entropy(logits, Y).mean())


# ---- one net, written in each library


class Linen(nn.Module):
    """BatchNorm and dropout, both told by `train`."""

    rate: float = 0.5
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.BatchNorm(not train, momentum=self.momentum)(nn.Dense(8)(x))
        return nn.Dense(3)(nn.Dropout(self.rate, deterministic=not train)(nn.relu(x)))


class Nnx(nnx.Module):
    def __init__(self, rngs, rate=0.5):
        self.first = nnx.Linear(4, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.drop = nnx.Dropout(rate, rngs=rngs)
        self.again = nnx.Dropout(rate, rngs=rngs)
        self.last = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.first(x)))
        return self.last(self.again(self.drop(x)))


class Equinox(eqx.Module):
    first: eqx.nn.Linear
    drop: eqx.nn.Dropout
    last: eqx.nn.Linear
    act: object = jax.nn.relu

    def __init__(self, key, rate=0.5):
        first, last = jax.random.split(key)
        self.first = eqx.nn.Linear(4, 8, key=first)
        self.drop = eqx.nn.Dropout(rate)
        self.last = eqx.nn.Linear(8, 3, key=last)

    def __call__(self, x, key):
        return self.last(self.drop(self.act(self.first(x)), key=key))


def plain_init(key, inputs):
    return {"w": jax.random.normal(key, (inputs.shape[-1], 3))}


def dropped(params, inputs, key):
    kept = jax.random.bernoulli(key, 0.5, inputs.shape)
    return (2 * kept * inputs) @ params["w"]


LINEN = models.from_linen(Linen(), training={"train": True}, rngs=("dropout",))
NETS = {
    "linen": LINEN,
    "nnx": models.from_nnx(Nnx),
    "equinox": models.from_equinox(Equinox, noisy=True),
    "functions": models.Net(
        plain_init, lambda params, x: x @ params["w"], dropped, noisy=True
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_dropout_is_a_function_of_key_and_step(name):
    here = task(NETS[name])
    assert here.net.noisy
    params = here.init(jax.random.key(1))

    @jax.jit
    def loss(draw):
        """Of all examples in groups one by one and in one pass: the same masks."""
        oracles = [
            gradients.full_batch(here.losses, here.train, 5, at_once=n)()
            for n in (1, 2)
        ]
        return jnp.stack([oracle(params, draw)[0] for oracle in oracles])

    first, other = loss(DRAW)
    np.testing.assert_allclose(first, other, rtol=1e-5)
    assert loss(DRAW)[0] == first
    assert abs(loss(DRAW._replace(step=jnp.int32(3)))[0] / first - 1) > 1e-5
    assert abs(loss(DRAW._replace(key=jax.random.key(6)))[0] / first - 1) > 1e-5


def test_svag_s_two_draws_have_masks_of_their_own():
    """Normal numbers z in place of a mask: a·z₁ + b·z₂ has the variance a² + b²."""
    x = jnp.ones((1, 1))

    def train(params, inputs, key):
        return params * jax.random.normal(key, (1, 1)) * inputs

    def apply(params, inputs):
        return params * inputs

    net = models.Net(lambda key, inputs: x, apply, train, noisy=True)
    here = run.Task(net, lambda out, y: out[:, 0], (x, x), (x, x))
    oracle = gradients.minibatch(here.losses, here.train)(1)
    gain = 50.0
    mixed = gradients.signed_mix(oracle, gain)
    of_key = jax.jit(jax.vmap(lambda key: mixed(x, Draw(key, jnp.int32(0)))[0]))
    drawn = of_key(jax.random.split(jax.random.key(3), 4000))
    # One mask for both draws would give (a + b)² = 1. The bound is four standard
    # errors of a variance, 4·√(2/4000).
    assert abs(np.var(drawn) / gain - 1) < 4 * np.sqrt(2 / 4000)


def test_the_noise_of_dropout_falls_with_the_batch():
    """Equal examples, so that masks are the only noise, of variance 1/batch."""
    x = jnp.ones((6, 4))

    def init(key, inputs):
        return jnp.ones((4, 1))

    def apply(params, inputs):
        return inputs @ params

    net = models.Net(init, apply, lambda w, x, key: dropped({"w": w}, x, key), True)
    here = run.Task(net, lambda out, y: out[:, 0], (x, x), (x, x))
    sampler = gradients.minibatch(here.losses, here.train)

    def variance(batch_size):
        def gradient(key):
            return sampler(batch_size)(jnp.ones((4, 1)), Draw(key, jnp.int32(0)))[1]

        return jax.vmap(gradient)(jax.random.split(jax.random.key(4), 4000)).var()

    ratio = jax.jit(lambda: variance(2) / variance(16))()
    # Two variances of 4·4000 numbers each; four standard errors of their ratio.
    assert abs(ratio / 8 - 1) < 4 * 2 / np.sqrt(4 * 4000)


@pytest.mark.parametrize("name", NETS)
def test_evaluation_and_losses_without_a_key_have_no_dropout(name):
    here = task(NETS[name])
    params = here.init(jax.random.key(1))
    expected = logits_loss(here.apply(params, X))
    rows = 512 if here.examples_interact else 3
    found = metrics(here, params, rows)
    np.testing.assert_allclose(found["test_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(here.losses(params, (X, Y)).mean(), expected, rtol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_a_net_with_dropout_has_no_law_of_its_examples_alone(name):
    with pytest.raises(ValueError, match=r"noise of dropout|BatchNorm makes"):
        task(NETS[name]).law(2)


@pytest.mark.parametrize("name", ["nnx", "equinox", "functions"])
def test_laws_of_any_quiet_net(name):
    """Against the covariance of the gradients of all examples, one by one."""
    quiet = {
        "nnx": models.from_nnx(lambda rngs: nnx.Linear(4, 3, rngs=rngs)),
        "equinox": models.from_equinox(lambda key: eqx.nn.MLP(4, 3, 5, 1, key=key)),
        "functions": models.Net(plain_init, lambda params, x: x @ params["w"]),
    }
    here = task(quiet[name])
    params = here.init(jax.random.key(1))
    each = jax.vmap(
        jax.grad(lambda p, x, y: here.losses(p, (x[None], y[None]))[0]), (None, 0, 0)
    )(params, X, Y)
    law = here.law(2)
    found = jax.jit(law.moments)(params, jnp.zeros(law.shape(params).shape))
    variance = jax.tree.map(lambda g: jnp.var(g, axis=0) / 2, each)
    chex.assert_trees_all_close(found.variance, variance, rtol=1e-3, atol=1e-6)
    mean = jax.tree.map(lambda g: jnp.mean(g, axis=0), each)
    chex.assert_trees_all_close(found.mean, mean, rtol=1e-3, atol=1e-6)


# ---- BatchNorm of flax


QUIET = models.from_linen(Linen(rate=0.0), training={"train": True})


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999])
def test_batch_norm_of_linen_evaluates_with_statistics_of_plain(momentum):
    """Whatever its momentum, it ends as one training pass over `plain` has it."""
    net = Linen(rate=0.0, momentum=momentum)
    here = task(models.from_linen(net, training={"train": True}))
    assert here.examples_interact
    params = here.init(jax.random.key(1))
    whole, _ = net.apply({"params": params}, X, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(
        metrics(here, params)["test_loss"],
        logits_loss(whole),
        rtol=8 * np.finfo(np.float32).eps / (1 - momentum),  # what 1 − m is rounded by
    )
    np.testing.assert_allclose(
        here.losses(params, (X, Y)).mean(), logits_loss(whole), rtol=1e-5
    )


def test_batch_norm_of_nnx_evaluates_with_statistics_of_plain():
    here = task(models.from_nnx(lambda rngs: Nnx(rngs, rate=0.0)))
    params = here.init(jax.random.key(1))
    np.testing.assert_allclose(
        metrics(here, params)["test_loss"],
        here.losses(params, (X, Y), key=jax.random.key(0)).mean(),
        rtol=1e-5,
    )


def test_statistics_are_means_over_whole_groups_where_no_mask_is_taken():
    params = task(QUIET).init(jax.random.key(1))
    found = run.statistics(QUIET, params, X, 4, lambda x: x)
    dense = params["Dense_0"]
    hidden = X[:8] @ dense["kernel"] + dense["bias"][None]
    norm = found["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(norm["mean"], hidden.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm["var"], (hidden**2).mean(0), rtol=1e-4)


def test_copies_that_fill_up_a_group_are_refused_by_a_norm_without_a_mask():
    here = task(QUIET)
    params = here.init(jax.random.key(1))
    with pytest.raises(ValueError, match=r"takes_mask = True.*divides"):
        gradients.full_batch(here.losses, here.train, 4)()(params, DRAW)
    gradients.full_batch(here.losses, here.train, 5)()(params, DRAW)


def test_other_running_state_is_refused():
    class Counting(nn.Module):
        @nn.compact
        def __call__(self, x):
            count = self.variable("batch_stats", "count", jnp.zeros, ())
            count.value += 1
            return nn.Dense(3)(x)

    with pytest.raises(ValueError, match="batch_stats holds count"):
        task(Counting()).examples_interact  # noqa: B018


# ---- what the net is told


def test_a_mask_goes_to_nets_that_say_so_and_to_no_others():
    class Flagged(nn.Module):
        @nn.compact
        def __call__(self, x, train=True):
            assert train is True
            return nn.Dense(3)(x)

    here = task(Flagged())
    params = here.init(jax.random.key(1))
    expected = logits_loss(Flagged().apply({"params": params}, X))
    found = run.evaluate(Flagged(), models.cross_entropy, params, X, (X, Y), rows=4)
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)
    oracle = gradients.full_batch(here.losses, here.train, 4)()
    np.testing.assert_allclose(oracle(params, DRAW)[0], expected, rtol=1e-5)

    class Masked(nn.Module):
        takes_mask = True

        @nn.compact
        def __call__(self, x, *, train, mask=None):
            return nn.BatchNorm(not train)(nn.Dense(3)(x), mask=mask[:, None])

    class Given(Masked):
        def __call__(self, x, *, train, mask=None):
            mask = jnp.ones(len(x), bool) if mask is None else mask
            return super().__call__(x, train=train, mask=mask)

    here = task(models.from_linen(Given(), training={"train": True}))
    params = here.init(jax.random.key(1))
    ragged = gradients.full_batch(here.losses, here.train, 4)()(params, DRAW)[0]
    parts = [here.losses(params, (X[i : i + 4], Y[i : i + 4])) for i in (0, 4, 8)]
    np.testing.assert_allclose(ragged, jnp.concatenate(parts).mean(), rtol=1e-5)


def test_layers_that_nobody_told_of_training_are_refused():
    class Default(Linen):
        @nn.compact
        def __call__(self, x, train: bool = False):
            return nn.Dropout(0.5, deterministic=not train)(nn.Dense(3)(x))

    with pytest.raises(ValueError, match=r"Dropout_0.*training=\{"):
        task(Default())
    with pytest.raises(ValueError, match=r"Dropout_0.*rngs=\('dropout',\)"):
        task(models.from_linen(Default(), training={"train": True}))


class MyDropout(nn.Dropout):
    def __call__(self, x, train):
        return super().__call__(x, deterministic=not train)


class MyNorm(nn.BatchNorm):
    pass


def attend(x, train):
    layer = nn.MultiHeadDotProductAttention(1, dropout_rate=0.5)
    return layer(x[:, None], x[:, None], deterministic=not train)[:, 0]


LAYERS = {
    "MyDropout": lambda x, train: MyDropout(0.5)(x, train),
    "MyNorm": lambda x, train: MyNorm()(x, not train),
    "MultiHeadDotProductAttention": attend,
}


@pytest.mark.parametrize("name", LAYERS)
def test_subclasses_and_attention_are_told_of_training_too(name):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train: bool = False):
            return nn.Dense(3)(LAYERS[name](x, train))

    with pytest.raises(ValueError, match=rf"{name}_0.*training=\{{"):
        task(Net())
    told = {"training": {"train": True}}
    if name != "MyNorm":
        with pytest.raises(ValueError, match=rf"{name}_0.*rngs=\('dropout',\)"):
            task(models.from_linen(Net(), **told))
    task(models.from_linen(Net(), rngs=("dropout",), **told))


def test_attention_without_dropout_is_as_it_is():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = nn.MultiHeadDotProductAttention(1, deterministic=True)
            return nn.Dense(3)(layer(x[:, None])[:, 0])

    task(Net())


def test_what_is_no_net_is_refused():
    model = Equinox(jax.random.key(0))
    with pytest.raises(TypeError, match="from_equinox"):
        task(model)
    with pytest.raises(TypeError, match="model is the class Linen: give a module"):
        task(Linen)
    with pytest.raises(TypeError, match="from_nnx"):
        task(Nnx(nnx.Rngs(0)))
    norm = eqx.nn.BatchNorm(4, "batch", mode="batch")
    with pytest.raises(TypeError, match=r"Sequential has layers with a state, as eqx"):
        models.from_equinox(lambda key: eqx.nn.Sequential([norm]))
    with pytest.raises(TypeError, match=r"models\.Net"):
        task(lambda params, x: x)
    with pytest.raises(TypeError, match=r"lambda key: MyNet\(…, key=key\)"):
        models.from_equinox(eqx.nn.MLP(4, 3, 5, 1, key=jax.random.key(0)))


def test_replicas_of_any_net_train_and_come_back(tmp_path):
    """An ensemble of equinox nets, whose parameters are modules, with a checkpoint."""
    here = task(NETS["equinox"])
    plan = optsde.Plan(optimizer=optsde.Adam(lr=1e-2), batch_size=4, horizon=4)
    sampler = gradients.minibatch(here.losses, here.train)
    keys = jax.random.split(jax.random.key(0), 2)

    def train(horizon):
        dynamics = optsde.discrete(plan, sampler, here.init)
        return optsde.fit(dynamics, keys, horizon, journal=tmp_path)

    train(2)
    resumed = train(4).state.params
    straight = optsde.fit(optsde.discrete(plan, sampler, here.init), keys, 4)
    chex.assert_trees_all_equal(resumed, straight.state.params)
    first, second = straight.state.params.first.weight
    assert not np.array_equal(first, second)
