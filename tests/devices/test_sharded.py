"""Parameters split over the devices of a replica: the run is that of whole ones."""

import dataclasses
import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import lowered

import optsde
from optsde import measure
from optsde.dynamics import sde
from optsde.gradients import (
    FunctionOracle,
    Penalty,
    diagonal,
    epochs,
    from_covariance,
    full_batch,
    minibatch,
    penalized,
)
from optsde.mesh import largest_axis
from optsde.optimizers.base import REGISTRY
from optsde.run import Engine, Run, diagnosis, exchange

N, IN, HIDDEN, OUT = 48, 8, 16, 3
RULE = partial(largest_axis, least=HIDDEN + 1)  # matrices alone
KEYS = jax.random.split(jax.random.key(0), 3)


def losses(params, examples):
    x, y = examples
    outputs = jnp.tanh(x @ params["a"] + params["b"][None]) @ params["c"]
    return jnp.sum((outputs - y) ** 2, axis=-1)


@cache
def problem(dtype=jnp.float64, hidden=HIDDEN):
    random = np.random.RandomState(0)
    x, y = random.normal(size=(N, IN)), random.normal(size=(N, OUT))

    def init(key):
        one, two = jax.random.split(key)
        return {
            "a": jax.random.normal(one, (IN, hidden), dtype),
            "b": jnp.zeros(hidden, dtype),
            "c": 0.3 * jax.random.normal(two, (hidden, OUT), dtype),
        }

    return init, (jnp.asarray(x, dtype), jnp.asarray(y, dtype))


def plan_of(optimizer, **settings):
    return optsde.Plan(
        **dict(optimizer=optimizer, batch_size=16, horizon=4) | settings
    ).checked()


def family(name):
    """An optimizer of the family, with all its decays of the weights."""
    made = REGISTRY[name](lr=0.01, l2=0.01, weight_decay=0.1, absolute_decay=1e-3)
    return dataclasses.replace(made, micros=4) if name == "invariantadam" else made


def cases(optimizer):
    """The dynamics by what their steps do besides."""
    init, data = problem()
    svag = optsde.svag(plan_of(optimizer, average=optsde.SWA(1, 2)), 2)
    yield "SVAG, SWA", optsde.discrete(svag, minibatch(losses, data), init)
    clipped = plan_of(optimizer, clip=0.3, average=optsde.EMA(0.5))
    entries = dataclasses.replace(clipped, before=optax.clip(0.05))
    if optimizer.micro_batches() is not None:
        squares = minibatch(losses, data)
        yield "micro-batches, clip, EMA", optsde.discrete(clipped, squares, init)
        return
    groups = epochs(losses, data, group=1, at_once=1)
    yield "groups, two clips, EMA", optsde.discrete(entries, groups, init)
    full = plan_of(optimizer, batch_size=N, clip=0.3)
    yield "full batch", optsde.discrete(full, full_batch(losses, data, None), init)
    blocks = penalized(full_batch(losses, data, 5), Penalty(0.5, lambda time: 0.1))
    yield "penalty", optsde.discrete(full, blocks, init)


SIZES = measure.probe(
    lambda _, state: {
        "parameters": jnp.linalg.norm(state.params["a"]),
        "memory": jnp.linalg.norm(state.optimizer.direction.m["c"]),
    }
)


def numbers(state):
    found = jax.tree.leaves(state._replace(key=None))
    return [np.asarray(x, np.float64) for x in found]


def agree(dynamics, replicas=1, shards=8, **options):
    """Loss, gradient norm and the whole state agree to rounding in float64.

    Six decimal digits are left for what the steps make of it.
    """
    fit = partial(optsde.fit, dynamics, KEYS[:replicas], 4, every=1, shards=shards)
    whole, parts = (fit(sharded=sharded, **options) for sharded in (None, RULE))
    a = parts.state.params["a"]
    assert a.sharding.shard_shape(a.shape)[1:] == (IN, HIDDEN // shards)
    for one, two in zip(numbers(whole.state), numbers(parts.state), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-10, atol=1e-12)
    for name, series in whole.metrics.items():
        np.testing.assert_allclose(
            parts.metrics[name].values, series.values, rtol=1e-10
        )


@pytest.mark.usefixtures("x64")
def test_split_parameters_give_the_run_of_whole_ones():
    agree(dict(cases(family("adam")))["groups, two clips, EMA"], probes=[SIZES])


@pytest.mark.full
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_optimizer_runs_on_split_parameters(name):
    """Also those that take a norm or a factor of a whole matrix."""
    _, dynamics = next(cases(family(name)))
    agree(dynamics)


@pytest.mark.full
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["momentum", "invariantadam"])
def test_all_kinds_of_steps_run_on_split_parameters(name):
    for _, dynamics in list(cases(family(name)))[1:]:
        agree(dynamics)


@pytest.mark.full
@pytest.mark.usefixtures("x64")
def test_groups_of_parameters_by_the_shapes_of_whole_leaves():
    """A shard of `a` is [8, 2], which this rule would give to the other group."""
    init, data = problem()

    def labels(params):
        return jax.tree.map(lambda x: "wide" if HIDDEN in x.shape else "thin", params)

    parts = {"wide": optsde.Adam(lr=0.01), "thin": optsde.SGD(lr=0.1)}
    plan = plan_of(optsde.Groups(parts, labels))
    agree(optsde.discrete(plan, minibatch(losses, data), init))


@pytest.mark.full
@pytest.mark.usefixtures("x64")
def test_replicas_with_a_gradient_of_ones_own():
    """Three replicas on two rows of four devices; the oracle is a plain function."""
    init, data = problem()

    def gradient(data, params, draw):
        return jax.value_and_grad(lambda p: losses(p, data).mean())(params)

    oracle = FunctionOracle(gradient, data)
    dynamics = optsde.discrete(
        plan_of(optsde.Momentum(lr=0.1)), lambda batch_size: oracle, init
    )
    agree(dynamics, replicas=3, shards=4, probes=[SIZES])


def engines(hidden=1024):
    init, data = problem(jnp.float32, hidden)
    plan = plan_of(optsde.Adam(lr=0.01), average=optsde.EMA(0.5))
    made = optsde.discrete(plan, minibatch(losses, data), init)
    rules = None, partial(largest_axis, least=hidden + 1)
    return [Engine(made, 1, shards=8, sharded=x, with_info=True) for x in rules]


def test_a_device_has_an_eighth_and_gradients_are_scattered():
    """Of what is split: the matrices; params, two moments and the average of each."""
    whole, parts = (
        lowered(engine, engine.init(KEYS[:1])).compile() for engine in engines()
    )
    saved, split = (
        whole.memory_analysis().argument_size_in_bytes
        - parts.memory_analysis().argument_size_in_bytes,
        4 * 4 * 1024 * (IN + OUT),
    )
    assert saved == split * 7 // 8
    text = parts.as_text()
    assert "num_partitions=8" in text
    rest = 4 * (1024 + 2)  # the bias, the loss and the norm of the gradient
    matrices = split // 4
    wanted = {"all-reduce": rest, "all-gather": matrices, "reduce-scatter": matrices}
    assert payloads(text) == wanted


def payloads(text):
    """The bytes of the arrays that a program's collectives make or sum, by kind."""
    found = {"all-reduce": 0, "all-gather": 0, "reduce-scatter": 0}
    for shapes, kind in re.findall(rf"= (.*) ({'|'.join(found)})(?:-start)?\(", text):
        for dims in re.findall(r"f32\[([\d,]*)\]", shapes):
            numbers = np.prod([int(n) for n in dims.split(",") if n])
            found[kind] += int(4 * numbers * (8 if kind == "reduce-scatter" else 1))
    return found


FULL = [pytest.param(kind, marks=pytest.mark.full) for kind in ("SVAG", "full batch")]


@pytest.mark.parametrize("kind", ["base", *FULL])
def test_what_is_said_to_go_over_the_wire_does(kind):
    """Byte by byte as compiled for eight devices, where XLA does not tidy up.

    Where it does, it gathers `c` once, for the loss and its derivative.
    """
    init, data = problem(jnp.float32, 64)
    plan = plan_of(optsde.Adam(lr=0.01), batch_size=N if kind == "full batch" else 16)
    sampler = minibatch(losses, data)
    if kind == "SVAG":
        plan = optsde.svag(plan, 2)
    elif kind == "full batch":
        sampler = full_batch(losses, data, None)
    made = optsde.discrete(plan, sampler, init)
    for rule in (None, partial(largest_axis, least=65)):
        engine = Engine(made, 1, shards=8, sharded=rule, with_info=True)
        program = lowered(engine, jax.eval_shape(engine.init, KEYS[:1]))
        untidy = program.compile(compiler_options={"xla_disable_hlo_passes": "cse"})
        assert payloads(untidy.as_text()) == exchange(made, 8, rule).whole


def test_bytes_of_a_ring():
    """Of the gradient and the loss, as formulas have it; passes gather each time."""
    init, data = problem(jnp.float32, 64)
    plan, rule = plan_of(optsde.Adam(lr=0.01)), partial(largest_axis, least=65)
    a, b, c = 4 * 64 * IN, 4 * 64, 4 * 64 * OUT
    made = optsde.discrete(plan, minibatch(losses, data), init)
    assert exchange(made, 256).sent == 2 * 255 / 256 * (a + b + c + 4)
    groups = optsde.discrete(plan, minibatch(losses, data, group=1), init)
    assert exchange(groups, 4).sent == 2 * 3 / 4 * (a + b + c + 4)
    once, four = exchange(made, 4, rule), exchange(groups, 4, rule)
    rest = 2 * (b + 8)  # with the loss, and the norm of the gradient
    assert once.sent == 3 / 4 * (
        2 * a + 3 * c + rest
    )  # a is not read by its derivative
    assert four.sent == 3 / 4 * (4 * (2 * a + 3 * c) + rest)


def test_initial_states_are_made_in_parts():
    whole, parts = (engine.init(KEYS[:1]) for engine in engines(hidden=64))
    for one, two in zip(numbers(whole), numbers(parts), strict=True):
        np.testing.assert_array_equal(one, two)
    a = parts.optimizer.direction.m["a"]
    assert {x.data.shape for x in a.addressable_shards} == {(1, IN, 8)}


@pytest.mark.full
@pytest.mark.usefixtures("x64")
def test_checkpoints_go_on_with_other_numbers_of_shards(tmp_path):
    """Eight, two, then one; against the run on four that never stopped."""
    init, data = problem()
    plan = plan_of(optsde.Adam(lr=0.01), average=optsde.EMA(0.5))
    dynamics = optsde.discrete(plan, minibatch(losses, data), init)
    fit = partial(optsde.fit, dynamics, KEYS[:1], sharded=RULE)
    for shards, end in (8, 1), (2, 2), (1, 3):
        parts = fit(end, shards=shards, journal=tmp_path / "journal")
        assert parts.steps == 1
        a = parts.state.average["a"]
        assert a.sharding.shard_shape(a.shape) == (1, IN, HIDDEN // shards)
    whole = fit(3, shards=4)
    for one, two in zip(numbers(whole.state), numbers(parts.state), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-10, atol=1e-12)
    more = fit(4, shards=8, state=parts.state)
    assert more.state.params["a"].sharding.shard_shape((1, IN, HIDDEN))[2] == 2


@pytest.mark.full
@pytest.mark.usefixtures("x64")
def test_split_replicas_go_on_with_fewer_devices(tmp_path, monkeypatch):
    """Three on eight devices, in three rows of two; on four, in two, with one more."""
    init, data = problem()
    plan = plan_of(optsde.Adam(lr=0.01), average=optsde.EMA(0.5))
    dynamics = optsde.discrete(plan, minibatch(losses, data), init)
    fit = partial(optsde.fit, dynamics, KEYS, every=1, shards=2, sharded=RULE)
    whole, devices = fit(4), jax.devices()
    fit(2, journal=tmp_path)
    monkeypatch.setattr("optsde.mesh.jax.devices", lambda *_: devices[:4])
    run = Run(dynamics, KEYS, every=1, shards=2, sharded=RULE, journal=tmp_path)
    run.to(3)
    a = run.state.optimizer.direction.m["a"]
    assert a.sharding.shard_shape(a.shape) == (2, IN, HIDDEN // 2)
    parts = run.to(4)
    for one, two in zip(numbers(whole.state), numbers(parts.state), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-10, atol=1e-12)


def test_a_start_is_looked_at_where_it_lies():
    """Whether it is finite is found in parts, of which no device has all."""
    engine = engines(hidden=64)[1]
    params = engine.init(KEYS[:1]).params
    text = diagnosis._finite.lower(params).compile().as_text()
    assert "num_partitions=8" in text
    assert "all-gather" not in text
    assert diagnosis._finite(params).tolist() == [True]
    spoilt = {**params, "a": params["a"].at[0, 3, 40].set(jnp.inf)}
    assert diagnosis._finite(spoilt).tolist() == [False]


def each(function):
    """The optax transform of each leaf by itself."""
    return optax.stateless(lambda grads, params: jax.tree.map(function, grads))


def noise(x):
    return x + jax.random.normal(jax.random.key(0), x.shape, x.dtype)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "before",
    [
        optax.chain(optax.centralize(), optax.clip_by_block_rms(0.1)),  # sums
        each(lambda x: x[::-1]),  # an order
        each(noise),  # the shape of a draw
        each(lambda x: x / x.size),  # a count
    ],
)
def test_what_reads_a_whole_leaf_is_given_it(before):
    init, data = problem()
    plan = plan_of(optsde.SGD(lr=0.1), before=before)
    agree(optsde.discrete(plan, minibatch(losses, data), init))


def test_what_reads_a_whole_leaf_gathers_it():
    """Elementwise steps gather nothing: gradient, moments and parameters stay split."""
    init, data = problem(jnp.float32, 64)
    split, rule = 4 * 64 * (IN + OUT), partial(largest_axis, least=65)

    def gathered(**options):
        plan = plan_of(optsde.SGD(lr=0.1), **options)
        made = optsde.discrete(plan, minibatch(losses, data), init)
        return exchange(made, 8, rule).whole["all-gather"]

    plain = gathered()
    assert gathered(before=optax.clip(0.05)) == plain
    assert gathered(before=optax.centralize()) == plain + 2 * split


def test_rules_and_dynamics_that_cannot_be_split():
    init, data = problem(jnp.float32)
    plan = plan_of(optsde.SGD(lr=0.1))
    dynamics = optsde.discrete(plan, minibatch(losses, data), init)
    fit = partial(optsde.fit, keys=KEYS[:1], horizon=4, shards=8)
    wrong = re.escape("splits c of shape [16, 3] along axis 1: return one that 8")
    with pytest.raises(ValueError, match=wrong):
        fit(dynamics, sharded=lambda path, shape, shards: len(shape) - 1)
    law = from_covariance(jnp.sum, diagonal(lambda p: p), 1)
    with pytest.raises(ValueError, match="takes its parameters whole, as SDEs do"):
        fit(sde(plan, law, jnp.ones(2)), sharded=RULE)
