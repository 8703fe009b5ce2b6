"""The journal: whole or not at all, whatever has become of its files."""

import json
import resource
import shutil
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optsde
from optsde import measure
from optsde.gradients import FunctionOracle, epochs, minibatch
from optsde.run import Run, fit, journal, load_params
from optsde.run.journal import Journal, journals_in
from optsde.run.rows import Row

IDENTITY = {"replicas": 2, "dt": 1.0}
METRICS = {"loss": jax.ShapeDtypeStruct((2,), jnp.float32)}
ROWS = [Row(step, {"loss": np.float32([step, 0.1])}) for step in range(1, 31)]


def state(step):
    params = {"w": jnp.full((2, 3), float(step)), "none": jnp.zeros((2, 0))}
    return {"state": {"params": params, "key": jax.random.split(jax.random.key(step))}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A journal with saves at 10, 20 and 30, of which the last two are kept."""
    folder = tmp_path_factory.mktemp("saved") / "journal"
    made = Journal(folder)
    assert made.open(IDENTITY, METRICS) is None
    for step in (10, 20, 30):
        made.save(step, state(step), ROWS[:step], {"note": step})
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "journal")


def values(rows):
    return [(row.step, row.values["loss"].tolist()) for row in rows]


def test_what_is_saved_is_restored(folder):
    opened = Journal(folder)
    found = opened.open(IDENTITY, METRICS)
    assert (found.step, found.notes) == (30, {"note": 30})
    assert values(found.rows) == values(ROWS)
    assert sorted(x.name for x in folder.iterdir()) == ["20", "30", "rows"]
    where = jax.tree.leaves(state(0))[0].sharding
    restored = opened.restore(30, state(0), 2, where)
    for mine, theirs in zip(*map(jax.tree.leaves, (restored, state(30))), strict=True):
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        if jnp.issubdtype(mine.dtype, jax.dtypes.prng_key):
            mine, theirs = jax.random.key_data(mine), jax.random.key_data(theirs)
        np.testing.assert_array_equal(mine, theirs)


def one(folder, pattern):
    """The first file of that name."""
    return min(x for x in folder.rglob(pattern) if x.is_file())


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file):
    file.write_bytes(file.read_bytes()[:-7])


def becomes_folder(file):
    file.unlink()
    file.mkdir()


def becomes_link(file):
    kept = file.parent.parent.parent.parent / file.name
    file.rename(kept)
    file.symlink_to(kept)


def write_garbage(file):
    file.write_bytes(b'\xff\xfe[[{"')


NEWEST = {
    "flipped byte": (lambda f: flip(one(f / "30", "d/*")), "30 is damaged"),
    "cut state": (lambda f: cut(one(f / "30", "d/*")), "30 is damaged"),
    "empty _METADATA": (lambda f: metadata(f).write_text(""), "damaged"),
    "garbage": (lambda f: write_garbage(one(f, "30/**/_CHECK*")), "damaged"),
    "a file more": (lambda f: (f / "30/state/x").write_text(""), "other files"),
    "a folder for a file": (lambda f: becomes_folder(metadata(f)), "damaged"),
    "a link for a file": (lambda f: becomes_link(metadata(f)), "a link"),
    "flipped rows": (lambda f: flip(f / "rows/30.npz"), "damaged (rows/30.npz)"),
    "no rows": (lambda f: (f / "rows/30.npz").unlink(), "damaged (rows/30.npz)"),
    "no manifest": (lambda f: manifest(f).unlink(), "is not whole"),
    "garbage manifest": (lambda f: write_garbage(manifest(f)), "its manifest"),
    "cut manifest": (lambda f: cut(manifest(f)), "its manifest"),
    "flipped manifest": (lambda f: flip(manifest(f)), "its manifest"),
    "another manifest": (lambda f: manifest(f).write_text("3"), "its manifest"),
    "no state": (lambda f: shutil.rmtree(f / "30/state"), "is damaged"),
    "a stray empty step": (lambda f: (f / "40").mkdir(), "40 is not whole"),
}


def manifest(folder):
    return folder / "30" / "manifest.json"


def metadata(folder):
    return folder / "30" / "state" / "_METADATA"


@pytest.mark.parametrize("name", NEWEST)
def test_a_damaged_save_is_skipped_and_that_is_said(folder, capsys, name):
    damage, says = NEWEST[name]
    damage(folder)
    newest = 30 if name == "a stray empty step" else 20
    found = Journal(folder).open(IDENTITY, METRICS)
    assert found.step == newest
    assert values(found.rows) == values(ROWS[:newest])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert says in lines[0]
    assert "and is skipped" in lines[0]
    # What was skipped is gone, and the run can be saved there again.
    left = {x.name for x in folder.iterdir()}
    assert left == {"20", "rows"} | ({"30"} if newest == 30 else set())


def test_where_none_is_whole_the_run_begins_again(folder, capsys):
    flip(folder / "rows/10.npz")
    assert Journal(folder).open(IDENTITY, METRICS) is None
    *skipped, last = capsys.readouterr().err.splitlines()
    assert len(skipped) == 2
    assert last.endswith("has no whole save: the run begins again")
    assert not any(folder.rglob("*.npz"))


def test_every_flipped_byte_is_noticed(folder):
    """One in each file of the newest save, at a place drawn by lot."""
    random = np.random.RandomState(0)
    files = [x for x in (folder / "30").rglob("*") if x.is_file()]
    assert len(files) > 8
    for file in files:
        content = file.read_bytes()
        if content:
            changed = bytearray(content)
            changed[random.randint(len(content))] ^= 1 << random.randint(8)
            file.write_bytes(changed)
            with pytest.raises(journal._DamagedError):
                journal._content(folder, 30)
            file.write_bytes(content)
    assert journal._content(folder, 30)["step"] == 30


def test_somebody_s_files_are_left_alone(tmp_path, folder):
    for name in ("thesis.tex", "2024"):
        foreign = tmp_path / "foreign" / name
        foreign.mkdir(parents=True)
        (foreign / "mine").write_text("")
        with pytest.raises(ValueError, match="which is of no journal; name another"):
            Journal(tmp_path / "foreign").open(IDENTITY, METRICS)
        assert (foreign / "mine").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is no folder; name another folder"):
        Journal(tmp_path / "file").open(IDENTITY, METRICS)
    with pytest.raises(ValueError, match="of another run: dt differ; name another"):
        Journal(folder).open(IDENTITY | {"dt": 0.5}, METRICS)
    assert load_params(folder)[0] == 30


def test_one_of_our_own_is_made_anew(tmp_path, folder, capsys):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", folder):
        made = Journal(place, lasting=False)
        assert made.open(IDENTITY | {"dt": 0.5}, METRICS) is None
        assert "the run begins again" in capsys.readouterr().err
        assert not place.exists()


def test_parameters_are_those_of_the_newest_whole_save(folder, capsys):
    assert load_params(folder, 20)[0] == 20
    flip(one(folder / "30", "d/*"))
    step, params = load_params(folder)
    assert step == 20
    np.testing.assert_array_equal(params["w"], np.full((2, 3), 20))
    assert "30 is damaged" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"30 is damaged \(30/.*\); take step 20"):
        load_params(folder, 30)
    with pytest.raises(ValueError, match="no checkpoint of step 40; 20, 30"):
        load_params(folder, 40)
    flip(folder / "rows/20.npz")
    says = r"30 is damaged .*; .*20 is damaged .*; no other save is whole"
    with pytest.raises(ValueError, match=says):
        load_params(folder)


def test_a_full_disk_is_one_error_and_the_saves_before_are_whole(folder):
    made = Journal(folder)
    made.open(IDENTITY, METRICS)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
    try:
        big = {"state": {"params": {"w": jnp.asarray(np.random.randn(2, 9000))}}}
        with pytest.raises(
            OSError, match="cannot be written; what was saved"
        ) as caught:
            made.save(40, big, ROWS, {})
        assert "\n" not in str(caught.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not (folder / "40").exists()
    assert Journal(folder).open(IDENTITY, METRICS).step == 30


def test_what_is_no_error_of_the_system_stays_what_it_is(folder, monkeypatch):
    made = Journal(folder)
    made.open(IDENTITY, METRICS)

    def finish(*_):
        raise ValueError("Out of range float values")

    monkeypatch.setattr(made, "_finish", finish)
    with pytest.raises(ValueError, match="Out of range float values"):
        made.save(40, state(40), ROWS, {})
    assert not (folder / "40").exists()


def test_a_host_that_is_lost_after_the_manifest_leaves_the_save(folder, monkeypatch):
    opened = Journal(folder)
    opened.open(IDENTITY, METRICS)

    def lost(make):
        make()
        if (folder / "40" / "manifest.json").exists():
            raise ValueError("connection closed by peer")

    monkeypatch.setattr(journal, "broadcast", lost)
    with pytest.raises(ValueError, match="by peer"):
        opened.save(40, state(40), ROWS, {})
    monkeypatch.undo()
    assert Journal(folder).open(IDENTITY, METRICS).step == 40


def test_the_clock_of_saves(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(journal.time, "monotonic", lambda: now[0])
    made = Journal(tmp_path)
    made.start()
    for seconds, due, worth in (
        (0.9, False, False),
        (1.1, False, True),
        (31, True, True),
    ):
        now[0] = seconds
        assert (made.is_due(), made.is_worth_it()) == (due, worth)
    monkeypatch.setattr(made, "_finish", lambda *_: now.__setitem__(0, now[0] + 3))
    made.save(1, state(1), [], {})  # takes three seconds, and so is due after 100
    for seconds, due in ((99, False), (101, True)):
        now[0] = 34 + seconds
        assert made.is_due() == due


# ---- runs


class Both(NamedTuple):
    half: jax.Array
    key: dict


def probes():
    def observe(_, state):
        x = state.params
        both = Both(x.astype(jnp.bfloat16), {"twice": [2 * x, x > 0], "none": ()})
        return {"size": x**2, "both": both, "matrix": jnp.outer(x, x)}

    return [measure.probe(observe, times=3.0)]


@cache
def dynamics(lr=0.1):
    oracle = FunctionOracle(
        lambda source, x, draw: (
            jnp.sum(x**2) / 2,
            x + 0.1 * jax.random.normal(draw.key, x.shape),
        )
    )
    plan = optsde.Plan(optimizer=optsde.Adam(lr=lr), batch_size=1, horizon=20)
    return optsde.discrete(plan, lambda batch_size: oracle, jnp.ones(2))


KEYS = jax.random.split(jax.random.key(0), 3)


def train(folder=None, lr=0.1, horizon=20, keys=KEYS, writers=(), **options):
    options = dict(every=2.0, probes=probes()) | options
    if folder is not None:
        options = dict(checkpoint_every=5.0) | options
    return fit(dynamics(lr), keys, horizon, journal=folder, writers=writers, **options)


class StopsAt:
    """A writer whose disk is full at a step."""

    def __init__(self, step):
        self.step = step

    def begin(self, step, rows):
        self.rows = [*rows]

    def write(self, row):
        if row["step"] >= self.step:
            raise InterruptedError
        self.rows.append(row)

    def close(self): ...


def assert_same(a, b):
    mine, theirs = jax.tree.flatten(a), jax.tree.flatten(b)
    assert mine[1] == theirs[1]
    for x, y in zip(mine[0], theirs[0], strict=True):
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture(scope="module")
def whole():
    return train()


@pytest.mark.parametrize("stop", [4, 14])
def test_a_run_that_stopped_has_the_rows_of_one_that_did_not(tmp_path, whole, stop):
    """Metrics of every kind, the state and the last row, bit for bit."""
    with pytest.raises(InterruptedError):
        train(tmp_path, writers=[StopsAt(stop)])
    watcher = StopsAt(99)
    found = train(tmp_path, writers=[watcher])
    assert found.steps == 20 - (stop > 5) * (stop - stop % 5)
    assert_same((found.metrics, found.state), (whole.metrics, whole.state))
    assert found.row == whole.row
    due = {*range(2, 21, 2), *range(0, 21, 3)}
    assert [row["step"] for row in watcher.rows] == sorted(due)
    again = train(tmp_path)
    assert again.steps == 0
    assert_same((again.metrics, again.state), (whole.metrics, whole.state))


def test_a_journal_of_another_run_is_refused(tmp_path):
    train(tmp_path, horizon=4)
    for change, says in (
        (dict(lr=0.2), "plan"),
        (dict(keys=KEYS[::-1]), "keys"),
        (dict(keys=KEYS[:2]), "replicas, keys"),
        (dict(every=4.0), "every"),
        (dict(probes=probes()[:0]), "metrics, times of probes"),
        (dict(probes=[x.at(4.0) for x in probes()]), "times of probes"),
    ):
        with pytest.raises(ValueError, match=f"of another run: {says} differ"):
            train(tmp_path, **change)
    with pytest.raises(
        ValueError, match="horizon 2 lies before the end of the journal"
    ):
        train(tmp_path, horizon=2)


X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(6, 2)


def on(folder, horizon, *, x=X, start=None, schedule=None, sampler=None, **options):
    """Runs on examples; two runs with other options are two runs."""

    def losses(params, examples):
        return (examples @ params) ** 2

    def made(lr):
        plan = optsde.Plan(
            optimizer=optsde.SGD(lr=lr), batch_size=2, horizon=9, schedule=schedule
        )
        draws = sampler or partial(minibatch, group=None)
        begin = jnp.ones(2) if start is None else start
        return optsde.discrete(plan, draws(losses, x), begin)

    return fit(made, KEYS, horizon, every=1.0, members=RATES, journal=folder, **options)


RATES = jnp.array([0.1, 0.2, 0.3])


def linear(end):
    return lambda time: 1 - time / end


OTHERS = {
    "data": dict(x=X + np.float32(1e-6)),
    "initial params": dict(start=jnp.array([1.0, 1.5])),
    "schedule": dict(schedule=linear(60.0)),
    "oracle": dict(sampler=epochs),
    "changes": dict(changes={2.0: RATES / 4}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_journal_of_other_data_start_rates_or_draws_is_refused(tmp_path, name):
    given = dict(schedule=linear(50.0), changes={2.0: RATES / 2})
    if name == "changes":  # the second is of no number before the journal ends
        more = given | dict(changes={2.0: RATES / 2, 5.0: RATES})
    else:
        more = given | dict(sampler=partial(minibatch, group=None, at_once=2))
    on(tmp_path, 4, **given)
    with pytest.raises(ValueError, match=f"another run: {name} differ; name another"):
        on(tmp_path, 6, **given | OTHERS[name])
    assert on(tmp_path, 6, **more).steps == 2


def test_values_of_schedules_may_be_rounded_by_another_machine(folder):
    saved = json.loads((folder / "30/manifest.json").read_text())["content"]["identity"]
    assert journal._same(saved | {}, IDENTITY)
    one = [[1.0, 0.5, float("nan")]]
    assert journal._same(one, [[1.0, 0.5000001, float("nan")]])
    assert not journal._same(one, [[1.0, 0.501, float("nan")]])
    assert not journal._same(one, [])
    assert not journal._same([["metrics"]], [["others"]])


def test_a_state_that_the_journal_has_not_is_refused_in_words(tmp_path):
    run = Run(dynamics(), KEYS, every=2.0, journal=tmp_path)
    for end in (2, 4, 6):
        run.to(end)
    found = Run(dynamics(), KEYS, every=2.0, journal=tmp_path).to(4)
    assert found.metrics["loss"].times.tolist() == [2, 4]
    assert found.row["step"] == 4
    for name in ("state", "memory"):
        says = f"beyond the end of this call and has no {name} there.*by a probe"
        with pytest.raises(ValueError, match=says):
            getattr(found, name)


def test_saves_without_a_journal_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint_every=5.0: this run has no jour"):
        train(checkpoint_every=5.0)
    with journals_in(tmp_path):
        train(horizon=6, checkpoint_every=5.0)


def test_many_short_calls_are_saved_by_the_clock_too(tmp_path, monkeypatch):
    """Each takes 1/8 s: a save, of 0.3 s, is worth it after more than 10 s."""
    now = [0.0]
    monkeypatch.setattr(journal.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(journal, "GUESS", 0.3)
    saves = []

    def save(made, step, *_):
        made._tick, made._seconds = now[0], 0.3
        saves.append(step)

    monkeypatch.setattr(Journal, "save", save)
    with journals_in(tmp_path):
        run = Run(dynamics(), KEYS, every=1.0)
    for step in range(1, 251):
        now[0] += 0.125
        run.to(step)
    assert saves == [82, 163, 244]


def guided(folder=None, stop=99):
    """A run whose rates follow from what it measures, told so step by step."""

    def made(lr):
        oracle = FunctionOracle(lambda source, x, draw: (jnp.sum(x**2), 2 * x))
        plan = optsde.Plan(optimizer=optsde.SGD(lr=lr), batch_size=1, horizon=9)
        return optsde.discrete(plan, lambda batch_size: oracle, jnp.ones(2))

    lrs, losses = jnp.array([0.1, 0.2, 0.3]), []
    run = Run(made, KEYS, every=1.0, members=lrs, journal=folder)
    for step in range(1, 10):
        if step == stop:
            return losses
        found = run.to(step, stop_at_divergence=False)
        losses.append(found.metrics["loss"].values)
        run.set_members(lrs / (1 + losses[-1][:, -1]))
    return losses, np.asarray(found.state.params)


def test_a_run_told_in_pieces_is_told_the_same_again(tmp_path):
    expected = guided()
    assert len(guided(tmp_path, stop=6)) == 5
    assert_same(guided(tmp_path), expected)


def test_runs_inside_a_context_have_journals_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "SHARE", np.inf)  # any save is worth it
    found = []
    for _ in range(2):
        with journals_in(tmp_path):
            found.append([train(horizon=h, lr=lr) for h, lr in ((4, 0.1), (6, 0.2))])
    assert [x.steps for x in found[0]] == [4, 6]
    assert [x.steps for x in found[1]] == [0, 0]
    assert_same([x.metrics for x in found[0]], [x.metrics for x in found[1]])
    assert sorted(x.name for x in tmp_path.iterdir()) == ["1", "2"]
    content = json.loads((tmp_path / "2/6/manifest.json").read_text())["content"]
    assert content["notes"]["ends"] == []
