"""The compiled loop: what is an argument of it, and how deep it lies."""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT, compiling, lowered

import optsde
from optsde import gradients, measure, models, run

SIZE = 400
X = np.random.default_rng(0).normal(size=(SIZE, 5)).astype(np.float32)
LRS = jnp.array([0.1, 0.2, 0.4])
KEYS = jax.random.split(jax.random.key(0), len(LRS))


def losses(w, examples):
    return 0.5 * jnp.sum((w[None] - examples) ** 2, axis=-1)


def plan(lr=0.1, batch_size=8):
    optimizer = optsde.SGD(lr=lr)
    return optsde.Plan(optimizer=optimizer, batch_size=batch_size, horizon=6)


def largest_constant(lowered):
    """The length of the longest line; a constant is written out within one."""
    return max(map(len, lowered.as_text().splitlines()))


def distance(examples):
    """A probe that reads all examples."""

    def observe(source, state):
        return {"distance": jnp.mean(losses(state.params, source))}

    return measure.probe(observe, examples, times=[0, 6])


@pytest.mark.parametrize("place", [np.asarray, jnp.asarray], ids=["host", "device"])
def test_data_that_members_close_over_are_arguments(place):
    """Of the loop and of probes, wherever the data lie; a control shows a constant."""
    examples = place(X)

    def dynamics(lr):
        sampler = gradients.minibatch(losses, examples)
        return optsde.discrete(plan(lr), sampler, jnp.zeros(5))

    def constant(lr):
        data = jnp.asarray(X)
        oracle = gradients.FunctionOracle(
            lambda _, w, draw: (0.0, jnp.mean(w[None] - data, axis=0))
        )
        return optsde.discrete(plan(lr), lambda batch_size: oracle, jnp.zeros(5))

    def text(made):
        engine = run.Engine(made, 3, members=LRS)
        return lowered(engine, engine.init(KEYS))

    assert largest_constant(text(constant)) > X.nbytes
    assert largest_constant(text(dynamics)) < 2000
    engine = run.Engine(dynamics, 3, members=LRS)

    def observing(lr):
        probe = distance(examples)
        return probe.observe, probe.source

    each = engine.each(observing)
    assert largest_constant(each.lower(engine.init(KEYS), ())) < 2000


def test_members_with_data_of_one_kind_are_their_separate_runs():
    """Shared data, and data of each replica; bit for bit but for vmap's own order."""
    shared = optsde.fit(
        lambda lr: optsde.discrete(
            plan(lr), gradients.minibatch(losses, X), jnp.zeros(5)
        ),
        KEYS,
        6,
        every=2,
        members=LRS,
        probes=lambda lr: [distance(X)],
    )
    own = jnp.stack([X, 2 * X, X - 1])
    each = optsde.fit(
        lambda data: optsde.discrete(
            plan(), gradients.minibatch(losses, data), jnp.zeros(5)
        ),
        KEYS,
        6,
        every=2,
        members=own,
        probes=lambda data: [distance(data)],
    )
    for i in range(3):
        for stacked, lr, data in ((shared, LRS[i], X), (each, 0.1, own[i])):
            made = optsde.discrete(
                plan(lr), gradients.minibatch(losses, data), jnp.zeros(5)
            )
            alone = optsde.fit(made, KEYS[i][None], 6, every=2, probes=[distance(data)])
            for name in ("loss", "grad_norm", "distance"):
                np.testing.assert_allclose(
                    stacked.metrics[name].values[i],
                    alone.metrics[name].values[0],
                    rtol=1e-5,
                )
            np.testing.assert_allclose(
                stacked.state.params[i], alone.state.params[0], rtol=1e-5, atol=1e-6
            )


def test_a_probe_may_give_plain_numbers_and_pairs():
    """Of one replica, which is not vmapped, and of several; in rows go numbers."""

    def observe(_, state):
        return {"half": 0.5, "pair": (state.params, jnp.sum(state.params))}

    made = optsde.discrete(plan(), gradients.minibatch(losses, X), jnp.ones(5))
    for keys in (KEYS[:1], KEYS):
        found = optsde.fit(made, keys, 6, probes=[measure.probe(observe, times=[0, 6])])
        np.testing.assert_array_equal(found.metrics["half"].values, 0.5)
        vector, total = found.metrics["pair"].values
        assert vector.shape == (len(keys), 2, 5)
        np.testing.assert_allclose(vector.sum(-1), total, rtol=1e-6)
        assert sorted(found.row) == ["half", "step"]


FRAMES = []


class Recorder(nn.Module):
    """A linear net that notes in FRAMES from where it is called."""

    takes_mask = True

    @nn.compact
    def __call__(self, x, mask=None):
        frame, names = sys._getframe(), []
        while frame is not None:
            if frame.f_code.co_filename.startswith(str(ROOT / "optsde")):
                names.append(frame.f_code.co_qualname)
            frame = frame.f_back
        FRAMES.append(names)
        return nn.Dense(3)(x)


@pytest.mark.parametrize("at_once", [1, 2, 100])
@pytest.mark.parametrize("members", [False, True])
def test_eight_frames_from_a_run_to_the_model(members, at_once):
    """A full batch in groups, in several passes and in one, with BatchNorm's mask."""
    model = Recorder()
    data = jnp.asarray(X[:11]), jnp.zeros(11, jnp.int32)
    params = models.init_params(model, jax.random.key(0), data[0])
    task_losses = models.supervised(model, models.cross_entropy)
    sampler = gradients.full_batch(task_losses, data, 2, at_once=at_once)

    def dynamics(lr):
        return optsde.discrete(plan(lr, 11), sampler, params)

    made = dynamics if members else dynamics(0.1)
    runs = run.Run(made, KEYS, every=1, members=LRS if members else None)
    FRAMES.clear()
    runs.to(6)
    below = [names[: names.index("Run.to")] for names in FRAMES if "Run.to" in names]
    assert below
    assert max(map(len, below)) <= 8 + 1, below  # the one is Linen's adapter
    assert len(FRAMES) == len(below) <= 4  # nothing is traced at each row


def test_a_full_batch_is_all_examples():
    sampler = gradients.full_batch(losses, jnp.asarray(X))
    for batch_size in (None, SIZE):
        assert sampler(batch_size).size == SIZE
    for make in (lambda: sampler(8), lambda: optsde.discrete(plan(), sampler, 0.0)):
        with pytest.raises(ValueError, match="batch_size=8: a full batch is all 400"):
            make()


def test_a_run_is_three_programs():
    """The start, the loop and the probe, once what is shared by all runs is there."""

    def trained(lr):
        dynamics = optsde.discrete(
            plan(lr), gradients.minibatch(losses, X), jnp.zeros(5)
        )
        return optsde.fit(dynamics, KEYS, 6, probes=[distance(X)])

    trained(0.1)
    with compiling() as names:
        trained(0.2)
    assert sorted(names) == ["jit(_chunk)", "jit(init)", "jit(of_all)"]


@pytest.mark.full
@pytest.mark.optimized
def test_a_start_compiled_in_less_time_is_the_same_bit_for_bit():
    model = models.build("digitsnet", 10)

    def init(key):
        return models.init_params(model, key, np.zeros((1, 8, 8, 1), np.float32))

    dynamics = optsde.discrete(plan(), gradients.minibatch(losses, X), init)
    found = run.Engine(dynamics, 3).init(KEYS).params
    keys = jax.vmap(lambda key: jax.random.fold_in(key, 2**31))(KEYS)
    expected = jax.jit(jax.vmap(init))(keys)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
