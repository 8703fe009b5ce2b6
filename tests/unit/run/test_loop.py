"""The loop: rows, resuming bit for bit, interruption, divergence, streams."""

import os
import signal
import threading
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import lowered

import optsde
from optsde import data, gradients, measure, models, run
from optsde.run.writers import read

STEPS = 60
IMAGES, LABELS = data.digits()
EXAMPLES = jnp.asarray(IMAGES[:300]), jnp.asarray(LABELS[:300])
HELD_OUT = jnp.asarray(IMAGES[300:400]), jnp.asarray(LABELS[300:400])
TASK = run.Task(
    model=models.MLP((16, 10)),
    loss=models.cross_entropy,
    train=EXAMPLES,
    test=HELD_OUT,
    plain=EXAMPLES[0],
)


def jitter(keys, examples):
    x, y = examples
    noise = jax.vmap(lambda k: jax.random.normal(k, x.shape[1:], x.dtype))(keys)
    return x + 0.1 * noise, y


def plan(lr=3e-3, **options):
    adam = optsde.Adam(lr=lr)
    return optsde.Plan(optimizer=adam, batch_size=20, horizon=STEPS, **options)


@cache
def dynamics():
    """Epochs, augmentation and an average of the weights: all that could be lost."""
    sampler = gradients.epochs(TASK.losses, EXAMPLES, augment=jitter)
    return optsde.discrete(plan(average=optsde.EMA(0.9)), sampler, TASK.init)


def keys(replicas):
    return jax.random.split(jax.random.key(0), replicas)


def fit(folder, horizon=STEPS, made=None, replicas=1, writers=(), **options):
    defaults = dict(every=10, probes=[TASK.evaluation(times=20)], checkpoint_every=7)
    return optsde.fit(
        made or dynamics(),
        keys(replicas),
        horizon,
        writers=[run.JsonLines(folder / "metrics.jsonl"), *writers],
        journal=folder / "journal",
        **(defaults | options),
    )


def text(folder):
    return (folder / "metrics.jsonl").read_text()


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


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Makes (result, text of the rows) of runs that are not stopped, each once."""

    @cache
    def never_stopped(replicas=1, **options):
        folder = tmp_path_factory.mktemp("whole")
        options = {k: v() for k, v in options.items()}
        result = fit(folder, replicas=replicas, **options)
        return result, text(folder)

    return never_stopped


class At:
    """A progress line that calls a function when the run is at a time."""

    def __init__(self, time, function):
        self.time, self.function = time, function

    def writers(self):
        return ()

    def compiling(self):
        pass

    def begin(self, at, resumed):
        self.update(at, None)

    def update(self, now, end, row=None):
        if now == self.time:
            self.function()


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def change_probe(times=20):
    """How far the parameters have moved since the last time; how many times."""

    def observe(scale, state, memory):
        before, count = memory
        moved = optax.tree.norm(optax.tree.sub(state.params, before))
        return {"moved": scale * moved, "count": count + 1}, (state.params, count + 1)

    def init(state):
        return state.params, jnp.int32(0)

    return measure.Probe(observe, init, jnp.float32(2), times)


def remembering():
    return [change_probe()]


@pytest.mark.parametrize("stop", [0, 40])
def test_probes_remember_through_an_interruption(whole, tmp_path, stop):
    one, written = whole(replicas=3, probes=remembering)
    options = dict(replicas=3, probes=remembering())
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, **options, progress=At(stop, terminate))
    two = fit(tmp_path, **options)
    assert two.row == one.row
    assert text(tmp_path) == written
    rows = read(tmp_path / "metrics.jsonl")
    counts = [x for x in rows["count"] if x is not None]
    assert counts == [[k] * 3 for k in (1, 2, 3, 4)]
    assert rows["moved"][0] == [0, 0, 0]
    assert min(rows["moved"][2]) > 0


def test_rows_tell_what_happened(tmp_path):
    rate = measure.probe(lambda _, state: {"lr": plan().rate(state.time)})
    result = fit(tmp_path, probes=[TASK.evaluation(times=20), rate])
    rows = read(tmp_path / "metrics.jsonl")
    assert rows["step"] == list(range(0, STEPS + 1, 10))
    due = [k % 20 == 0 for k in rows["step"]]
    assert [x is not None for x in rows["test_loss"]] == due
    np.testing.assert_allclose(rows["lr"], 3e-3)
    assert rows["loss"][0] is None
    assert rows["loss"][1] > rows["loss"][-1]
    assert result.row["test_accuracy"] == rows["test_accuracy"][-1] > 0.5
    # Means over the steps of a row, against a plain loop.
    made, infos = dynamics(), []
    step, state = jax.jit(made.step), made.init(keys(1)[0])
    for _ in range(20):
        state, info = step(state, made.source)
        infos.append([float(info.loss), float(info.grad_norm)])
    means = np.mean(infos[10:], axis=0)
    np.testing.assert_allclose([rows["loss"][2], rows["grad_norm"][2]], means, 1e-4)
    # The series of the result are the rows.
    for name in ("loss", "test_loss"):
        series = result.metrics[name]
        pairs = zip(rows["step"], rows[name], strict=True)
        known = [(at, value) for at, value in pairs if value is not None]
        np.testing.assert_array_equal(series.times, [at for at, _ in known])
        np.testing.assert_allclose(series.values[0], [x for _, x in known], rtol=1e-6)


def test_a_measurement_between_two_rows_has_a_row_of_its_own(tmp_path):
    fit(tmp_path, 20, probes=[TASK.evaluation(times=15)])
    rows = read(tmp_path / "metrics.jsonl")
    assert rows["step"] == [0, 10, 15, 20]
    assert [x is None for x in rows["loss"]] == [True, False, True, False]
    assert [x is None for x in rows["test_loss"]] == [False, True, False, False]


@pytest.mark.parametrize("replicas", [pytest.param(1, marks=pytest.mark.full), 3])
def test_going_on_is_not_having_stopped(whole, tmp_path, replicas):
    """State, random keys, data order and metrics file, bit for bit."""
    one, written = whole(replicas)

    class Full:
        def begin(self, step, rows): ...
        def close(self): ...

        def write(self, row):
            if row["step"] == 40:
                raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        fit(tmp_path, replicas=replicas, writers=[Full()])
    assert run.load_params(tmp_path / "journal")[0] == 35
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 40, "loss": 1.0}\n{"step": 5')
    two = fit(tmp_path, replicas=replicas)
    assert_identical(one.state, two.state)
    assert one.row == two.row
    assert text(tmp_path) == written


def test_a_finished_run_can_be_made_longer(whole, tmp_path):
    one, _ = whole()
    fit(tmp_path, 35)
    assert_identical(one.state, fit(tmp_path).state)
    rows = read(tmp_path / "metrics.jsonl")
    assert rows["step"] == [0, 10, 20, 30, 35, 40, 50, 60]


def test_sigterm_saves_and_the_run_goes_on(whole, tmp_path):
    """And a finished run is not run again."""
    one, written = whole()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, progress=At(30, terminate))
    assert signal.getsignal(signal.SIGTERM) is before
    assert read(tmp_path / "metrics.jsonl")["step"][-1] == 30
    assert run.load_params(tmp_path / "journal")[0] == 30
    for steps in (30, 0):
        result = fit(tmp_path)
        assert result.steps == steps
        assert_identical(one.state, result.state)
        assert text(tmp_path) == written


def test_divergence_names_the_steps_and_saves_nothing(tmp_path):
    with pytest.raises(run.DivergedError, match="between step 10 and 20"):
        fit(tmp_path, made=diverging(12), checkpoint_every=5)
    rows = read(tmp_path / "metrics.jsonl")
    assert np.isnan(rows["loss"][-1])  # null in the file: JSON has no NaN
    assert run.load_params(tmp_path / "journal")[0] <= 15


def diverging(at):
    def step(state, source):
        state, info = dynamics().step(state, source)
        bad = jnp.where(state.step > at, jnp.nan, 0.0)
        return state, info._replace(loss=info.loss + bad)

    return dynamics()._replace(step=step)


def test_nothing_moves_between_host_and_device_in_the_loop():
    """Sampling, augmentation and steps: the only argument is the length of a chunk."""
    engine = run.Engine(dynamics(), 1, with_info=True)
    state = engine.init(keys(1))
    loop = lowered(engine, state).compile()
    arguments = engine.arguments(state, engine.zeros(state), 5)
    with jax.transfer_guard("disallow"):
        state, *_ = loop(*arguments)
    assert int(state.step[0]) == 5


@cache
def stream():
    return data.Stream(data.Arrays(*map(np.asarray, EXAMPLES)))


@pytest.mark.parametrize(
    ("kind", "ell"),
    [
        (gradients.minibatch, 1),
        pytest.param(gradients.minibatch, 2, marks=pytest.mark.full),
        pytest.param(gradients.epochs, 1, marks=pytest.mark.full),
    ],
)
def test_a_streamed_run_is_the_resident_run(kind, ell):
    """Parameters bit for bit; chunks cross windows, and one state is not followed.

    What a step says of its loss is a sum that XLA may order anew.
    """

    def params(examples, *lengths):
        sampler = kind(TASK.losses, examples, augment=jitter)
        made = optsde.discrete(optsde.svag(plan(), ell), sampler, TASK.init)
        engine = run.Engine(made, 3, with_info=True)
        state = engine.init(keys(3))
        total = engine.zeros(state)
        for length in lengths:
            state, total = engine.advance(state, total, length)
            state = jax.tree.map(jnp.copy, state) if length == 50 else state
        return engine.kept((state.params, total))

    mine, total = params(EXAMPLES, 90)
    theirs, other = params(stream(), 3, 50, 37)
    assert_identical(mine, theirs)
    np.testing.assert_allclose(total.loss, other.loss, rtol=1e-6)


@pytest.mark.full
def test_a_streamed_run_goes_on_from_its_checkpoint(tmp_path):
    sgd = optsde.Plan(optimizer=optsde.SGD(lr=0.1), batch_size=20, horizon=STEPS)
    sampler = gradients.epochs(TASK.losses, stream())
    made = optsde.discrete(sgd, sampler, TASK.init)
    whole = fit(tmp_path / "whole", made=made)
    fit(tmp_path / "parts", 30, made=made)
    assert_identical(whole.state, fit(tmp_path / "parts", made=made).state)


def test_what_cannot_be_streamed_is_refused():
    with pytest.raises(ValueError, match="needs its data on the device"):
        gradients.full_batch(TASK.losses, stream())
    oracle = gradients.minibatch(TASK.losses, stream())(4)
    with pytest.raises(ValueError, match="which a run reads ahead"):
        oracle(None, gradients.Draw(jax.random.key(0), jnp.int32(0)))
    with pytest.raises(ValueError, match="give it arrays on the device"):
        gradients.heavy_tailed(oracle, 1.5, 0.1)
    twice = gradients.signed_mix(oracle, 2.0)
    with pytest.raises(ValueError, match="give it arrays on the device"):
        gradients.signed_mix(twice, 2.0)


def test_the_loop_works_outside_the_main_thread(tmp_path):
    """Notebooks may run it so; there are no signals to take care of."""
    failures = []

    def work():
        try:
            fit(tmp_path, 10)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures


@pytest.mark.full
def test_changes_probes_of_members_and_memories_resume_bit_for_bit(tmp_path):
    """Interrupted between two changes, and at one."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    lrs = jnp.array([1e-3, 3e-3, 1e-2])
    changes = {20.0: lrs / 2, 35.0: 0 * lrs}

    def of_member(lr):
        sampler = gradients.minibatch(TASK.losses, EXAMPLES)
        return optsde.discrete(plan(lr), sampler, TASK.init)

    def probes(lr):
        rate = measure.probe(lambda _, state: {"lr": plan(lr).rate(state.time)})
        return [change_probe([0, 20, 35, 50, 60]), rate, TASK.evaluation(times=15)]

    options = dict(
        made=of_member, probes=probes, members=lrs, changes=changes, replicas=3
    )
    one = fit(whole, **options, checkpoint_every=5)
    for stop in (28, 35):
        with pytest.raises(KeyboardInterrupt):
            fit(parts, **options, progress=At(stop, terminate))
        assert run.load_params(parts / "journal")[0] == stop
    two = fit(parts, **options)
    assert_identical(one.state, two.state)
    assert text(whole) == text(parts)
    rows = read(whole / "metrics.jsonl")
    by_step = dict(zip(rows["step"], rows["lr"], strict=True))
    np.testing.assert_allclose(by_step[20], lrs)
    np.testing.assert_allclose(by_step[30], lrs / 2)
    moved = dict(zip(rows["step"], rows["moved"], strict=True))
    assert moved[60] == [0, 0, 0] != moved[35]
