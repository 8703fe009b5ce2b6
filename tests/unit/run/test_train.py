"""The loop: rows, going on bit for bit, interruption, divergence, evaluation."""

import os
import signal
import threading
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optsde
from optsde import data, gradients, measure, models, train
from optsde.dynamics import Engine
from optsde.train.metrics import read

STEPS = 60
IMAGES, LABELS = data.digits()
EXAMPLES = jnp.asarray(IMAGES[:300]), jnp.asarray(LABELS[:300])
HELD_OUT = jnp.asarray(IMAGES[300:400]), jnp.asarray(LABELS[300:400])
MODEL = models.MLP((16, 10))
LOSSES = models.supervised(MODEL, models.cross_entropy)


def jitter(keys, examples):
    x, y = examples
    noise = jax.vmap(lambda k: jax.random.normal(k, x.shape[1:], x.dtype))(keys)
    return x + 0.1 * noise, y


@cache
def engine(replicas=1):
    """Epochs, augmentation and an average of the weights: all that could be lost."""
    plan = optsde.Plan(
        optimizer=optsde.Adam(lr=3e-3),
        batch_size=20,
        horizon=STEPS,
        average=optsde.EMA(0.9),
    )
    sampler = partial(gradients.epochs, LOSSES, EXAMPLES, augment=jitter)
    start = partial(models.init_params, MODEL, inputs=EXAMPLES[0])
    dynamics = optsde.discrete(plan, lambda b: sampler(b), lambda key: start(key))
    return Engine(dynamics, replicas, with_info=True)


@cache
def evaluation(engine):
    def held_out(shared, state):
        inputs, test = shared
        return train.evaluate(MODEL, models.cross_entropy, state.params, inputs, test)

    each = engine.each(held_out, (EXAMPLES[0], HELD_OUT))
    return lambda state: {f"test_{k}": v for k, v in each(state).items()}


def fit(folder, steps=STEPS, built=None, replicas=1, **options):
    built = built or engine(replicas=replicas)
    keys = jax.random.split(jax.random.key(0), replicas)
    defaults = dict(
        evaluate=evaluation(built),
        log_every=10,
        evaluate_every=20,
        writers=[train.JsonLines(folder / "metrics.jsonl")],
        checkpoints=train.Checkpoints(folder / "checkpoints"),
        checkpoint_every=7,
    )
    return train.fit(built, keys, steps, **(defaults | options))


def content(tree):
    leaves, structure = jax.tree.flatten(tree)
    leaves = [
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        for x in leaves
    ]
    return [np.asarray(x) for x in leaves], structure


def assert_identical(a, b):
    (mine, structure), (other, theirs) = content(a), content(b)
    assert structure == theirs
    for x, y in zip(mine, other, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def change_probe():
    """How far the parameters have moved since the last look; how many looks."""

    def look(scale, state, memory):
        before, count = memory
        moved = optax.tree.norm(optax.tree.sub(state.params, before))
        return {"moved": scale * moved, "looks": count + 1}, (state.params, count + 1)

    def init(state):
        return state.params, jnp.int32(0)

    return measure.Probe(look, init, jnp.float32(2))


def test_probes_remember_through_an_interruption(tmp_path):
    options = dict(probes=[change_probe()], probe_every=20, replicas=3)
    whole = fit(tmp_path / "whole", **options)
    fit(tmp_path / "parts", **options, steps=40)
    parts = fit(tmp_path / "parts", **options)
    assert parts.row == whole.row
    rows = read(tmp_path / "whole" / "metrics.jsonl")
    seen = [x for x in rows["looks"] if x is not None]
    assert seen == [[k] * 3 for k in (1, 2, 3, 4)]
    assert rows["moved"][0] == [0, 0, 0]
    assert min(rows["moved"][2]) > 0


def test_rows_say_what_happened(tmp_path):
    folder = tmp_path
    result = fit(folder, describe=lambda step: {"lr": 3e-3})
    rows = read(folder / "metrics.jsonl")
    assert rows["step"] == list(range(0, STEPS + 1, 10))
    due = [k % 20 == 0 for k in rows["step"]]
    assert [x is not None for x in rows["test_loss"]] == due
    assert rows["lr"] == [3e-3] * len(due)
    assert rows["loss"][0] is None
    assert rows["loss"][1] > rows["loss"][-1]
    assert result.row["test_accuracy"] == rows["test_accuracy"][-1] > 0.5
    # Means over the steps of a row, against a plain loop.
    built = engine()
    dynamics = built.dynamics
    step, seen = jax.jit(dynamics.step), []
    keys = jax.random.split(jax.random.key(0), 1)
    state = dynamics.init(keys[0])
    for _ in range(20):
        state, info = step(state, dynamics.source)
        seen.append([float(info.loss), float(info.grad_norm)])
    means = np.mean(seen[10:], axis=0)
    np.testing.assert_allclose([rows["loss"][2], rows["grad_norm"][2]], means, 1e-4)


@pytest.mark.parametrize("replicas", [1, 3])
def test_going_on_is_not_having_stopped(tmp_path, replicas):
    """State, random keys, data order and metrics file, bit for bit."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    one = fit(whole, replicas=replicas)

    def crash_at_40(step):
        if step == 40:
            raise OSError("no space left")
        return {}

    with pytest.raises(OSError, match="no space"):
        fit(parts, replicas=replicas, describe=crash_at_40)
    assert train.load_params(parts / "checkpoints")[0] == 35
    with open(parts / "metrics.jsonl", "a") as file:
        file.write('{"step": 40, "loss": 1.0}\n{"step": 5')
    two = fit(parts, replicas=replicas)
    assert_identical(one.state, two.state)
    assert one.row == two.row
    files = [(f / "metrics.jsonl").read_text() for f in (whole, parts)]
    assert files[0] == files[1]


def test_a_finished_run_can_be_made_longer(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    one = fit(whole)
    fit(parts, steps=35)
    assert_identical(one.state, fit(parts).state)
    rows = read(parts / "metrics.jsonl")
    assert rows["step"] == [0, 10, 20, 30, 35, 40, 50, 60]


def test_sigterm_saves_and_the_run_goes_on(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    one = fit(whole)
    seen = []

    def stop_at_30(step):
        seen.append(step)
        if step == 30:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        fit(parts, describe=stop_at_30)
    assert signal.getsignal(signal.SIGTERM) is before
    assert seen[-1] == 30
    assert train.load_params(parts / "checkpoints")[0] == 30
    assert_identical(one.state, fit(parts).state)
    files = [(f / "metrics.jsonl").read_text() for f in (whole, parts)]
    assert files[0] == files[1]


def test_finished_runs_are_not_run_again(tmp_path):
    one = fit(tmp_path)
    text = (tmp_path / "metrics.jsonl").read_text()
    again = fit(tmp_path)
    assert again.steps == 0
    assert_identical(one.state, again.state)
    assert (tmp_path / "metrics.jsonl").read_text() == text


def test_divergence_names_the_steps_and_saves_nothing(tmp_path):
    with pytest.raises(train.DivergedError, match="between step 10 and 20"):
        fit(tmp_path, built=diverging(12), checkpoint_every=5)
    rows = read(tmp_path / "metrics.jsonl")
    assert rows["loss"][-1] is None  # null: JSON has no NaN
    assert train.load_params(tmp_path / "checkpoints")[0] <= 15


def diverging(at):
    built = engine()
    dynamics = built.dynamics

    def step(state, source):
        state, info = dynamics.step(state, source)
        bad = jnp.where(state.step > at, jnp.nan, 0.0)
        return state, info._replace(loss=info.loss + bad)

    return Engine(dynamics._replace(step=step), 1, with_info=True)


def test_nothing_moves_between_host_and_device_in_the_loop():
    """Sampling, augmentation and steps: the only argument is the length of a chunk."""
    built = engine()
    state = built.init(jax.random.split(jax.random.key(0), 1))
    built.compile(state)
    total, count = built.no_info(state), built._count(5)
    with jax.transfer_guard("disallow"):
        state, total = built._loop(*built._given, state, total, count)
    assert int(state.step[0]) == 5


@pytest.mark.parametrize(
    ("kind", "ell"), [(gradients.minibatch, 2), (gradients.epochs, 1)]
)
def test_a_streamed_run_is_the_resident_run(kind, ell):
    """Parameters bit for bit; chunks cross windows, and one state is not followed.

    What a step says of its loss is a sum that XLA may order anew.
    """
    plan = optsde.Plan(optimizer=optsde.Adam(lr=3e-3), batch_size=20, horizon=STEPS)

    replicas = 3

    def params(examples, *lengths):
        dynamics = optsde.discrete(
            optsde.svag(plan, ell),
            partial(kind, LOSSES, examples, augment=jitter),
            lambda key: models.init_params(MODEL, key, EXAMPLES[0]),
        )
        built = Engine(dynamics, replicas, with_info=True)
        state = built.init(jax.random.split(jax.random.key(0), replicas))
        total = built.no_info(state)
        for length in lengths:
            state, total = built.advance(state, total, length)
            state = jax.tree.map(jnp.copy, state) if length == 50 else state
        return built.kept((state.params, total))

    mine, total = params(EXAMPLES, 90)
    stream = data.Stream(data.Arrays(*map(np.asarray, EXAMPLES)))
    theirs, other = params(stream, 3, 50, 37)
    assert_identical(mine, theirs)
    np.testing.assert_allclose(total.loss, other.loss, rtol=1e-6)


def test_a_streamed_run_goes_on_from_its_checkpoint(tmp_path):
    stream = data.Stream(data.Arrays(*map(np.asarray, EXAMPLES)))
    plan = optsde.Plan(optimizer=optsde.SGD(lr=0.1), batch_size=20, horizon=STEPS)
    dynamics = optsde.discrete(
        plan,
        partial(gradients.epochs, LOSSES, stream),
        lambda key: models.init_params(MODEL, key, EXAMPLES[0]),
    )
    built = Engine(dynamics, 1, with_info=True)
    whole = fit(tmp_path / "whole", built=built)
    fit(tmp_path / "parts", built=built, steps=30)
    parts = fit(tmp_path / "parts", built=built)
    assert_identical(whole.state, parts.state)


def test_a_full_batch_cannot_be_streamed():
    stream = data.Stream(data.Arrays(*map(np.asarray, EXAMPLES)))
    with pytest.raises(ValueError, match="needs its data on the device"):
        gradients.full_batch(LOSSES, stream)
    oracle = gradients.minibatch(LOSSES, stream, 4)
    with pytest.raises(ValueError, match="which an Engine feeds"):
        oracle(None, gradients.Draw(jax.random.key(0), jnp.int32(0)))


def test_evaluation_against_numpy():
    """The plain forward of an MLP."""
    built = engine()
    state = built.init(jax.random.split(jax.random.key(0), 1))
    got = evaluation(built)(state)
    params = jax.tree.map(lambda x: np.asarray(x[0], np.float64), state.params)
    x, y = (np.asarray(part) for part in HELD_OUT)
    first, last = params["Dense_0"], params["Dense_1"]
    hidden = np.maximum(x @ first["kernel"] + first["bias"], 0)
    logits = hidden @ last["kernel"] + last["bias"]
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(
        got["test_loss"], -log_p[np.arange(100), y].mean(), rtol=1e-5
    )
    np.testing.assert_allclose(
        got["test_accuracy"], (logits.argmax(1) == y).mean(), rtol=1e-6
    )


def test_statistics_of_one_group_are_that_group_s():
    model = models.build("digitsnet", 10)
    x = EXAMPLES[0][:150].reshape(-1, 8, 8, 1)
    params = models.init_params(model, jax.random.key(1), x)

    @partial(jax.jit, static_argnums=1)
    def of_groups(x, group):
        return train.statistics(model, params, x, group, lambda x: x)

    apply = jax.jit(model.apply)
    seen = of_groups(x, len(x))
    own = apply({"params": params}, x)
    given = apply({"params": params, "statistics": seen}, x)
    np.testing.assert_allclose(own, given, atol=2e-5)
    # Means and mean squares over groups of the first layer are those of the whole.
    split = of_groups(x, 64)
    first = min(seen)
    for name in ("mean", "square"):
        np.testing.assert_allclose(seen[first][name], split[first][name], rtol=1e-4)


def test_the_loop_works_outside_the_main_thread(tmp_path):
    """Notebooks may run it so; there are no signals to take care of."""
    failures = []

    def run():
        try:
            fit(tmp_path, steps=10)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failures


def test_rows_of_evaluation_must_be_rows():
    built = engine()
    with pytest.raises(ValueError, match="multiple of log_every=10"):
        train.fit(built, jax.random.key(0)[None], 60, log_every=10, evaluate_every=15)


def test_tensorboard_writes_scalars(tmp_path):
    pytest.importorskip("tensorboardX")
    writer = train.TensorBoard(tmp_path / "board")
    writer.begin(0)
    writer.write({"step": 3, "loss": [1.0, 2.0]})
    writer.close()
    (events,) = (tmp_path / "board").iterdir()
    assert events.stat().st_size > 50
