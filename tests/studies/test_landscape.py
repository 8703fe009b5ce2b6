"""Loss slices: directions against numpy, values against evaluations, the command."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import fullbatch as fullbatch_configs
from configs import landscape as configs
from experiments.fullbatch import row
from experiments.landscape import around, between, drawing, slices, trained
from optsde import models
from optsde.run import Task, load_params
from optsde.study import RunDir, UsageError
from optsde.study.study import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The run directory of four steps."""
    s = dataclasses.replace(
        fullbatch_configs.PRESETS["digits_sgd"].settings,
        steps=4,
        train_size=64,
        log_every=2,
        evaluate_every=2,
    )
    path = tmp_path_factory.mktemp("trained")
    run(row.study, s.checked(), RunDir.open(path, "fullbatch", s.config()))
    return path


def settings(preset, **changes):
    return dataclasses.replace(configs.PRESETS[preset].settings, **changes)


def opened(place, s):
    return RunDir.open(place, "landscape", s.config())


def test_a_net_of_ones_own_is_asked_for(folder):
    """Its file is among the sources; the built-in net would be another."""
    meta = folder / "meta.json"
    before = meta.read_text()
    assert trained.task_of(settings("line", run=str(folder))).size == 64
    meta.write_text(json.dumps({"sources": {"a.csv": "12", "mine.py": "34"}}))
    with pytest.raises(UsageError, match=r"give that too, as --config=mine\.py:PRESET"):
        trained.task_of(settings("line", run=str(folder)))
    meta.write_text(before)


# ---- directions


def test_filters_have_the_norms_of_the_parameters():
    rng = np.random.default_rng(0)
    shapes = {"conv": (3, 3, 2, 5), "dense": (7, 4), "bias": (4,), "scale": (5,)}
    params = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    drawn = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    found = around.filter_normalised(drawn, params)
    for name in ("conv", "dense"):
        for i in range(shapes[name][-1]):
            d, x = drawn[name][..., i], params[name][..., i]
            wanted = d / np.linalg.norm(d) * np.linalg.norm(x)
            np.testing.assert_allclose(found[name][..., i], wanted, rtol=1e-5)
    for name in ("bias", "scale"):
        np.testing.assert_array_equal(found[name], np.zeros(shapes[name]))


def test_a_filter_of_norm_zero_stays():
    params = {"dense": np.zeros((3, 2), np.float32)}
    found = around.random_direction(jax.random.key(0), params)
    np.testing.assert_array_equal(found["dense"], np.zeros((3, 2)))


# ---- the slice


def linear_task():
    """½|x·w − y|², whose slices are parabolas."""
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(20, 3)), jnp.float32)
    y = jnp.asarray(rng.normal(size=(20, 2)), jnp.float32)

    def loss(outputs, targets):
        # evaluate() counts hits by labels: the targets of example i are row i of y
        return models.squared_error(outputs, jnp.take(y, targets, axis=0))

    labels = jnp.arange(20)
    task = Task(
        model=NoMask(),
        loss=loss,
        train=(x, labels),
        test=(x[:8], labels[:8]),
        plain=x,
    )
    return task, np.asarray(x), np.asarray(y)


class NoMask(nn.Module):
    @nn.compact
    def __call__(self, x, mask=None):
        return nn.Dense(2, use_bias=False, name="dense")(x)


@pytest.mark.parametrize("directions", [1, 2])
def test_slice_of_a_quadratic(tmp_path, directions):
    task, x, y = linear_task()
    rng = np.random.default_rng(2)
    params, *along = (
        {"dense": {"kernel": rng.normal(size=(3, 2)).astype(np.float32)}}
        for _ in range(1 + directions)
    )
    rundir = opened(tmp_path / "out", settings("line"))
    rundir.begin()
    distance = np.linspace(-1, 1, 5)
    found = slices.evaluate_slice(rundir, task, [4], params, along, distance).values
    for place in np.ndindex(*[5] * directions):
        w = params["dense"]["kernel"] + sum(
            distance[i] * d["dense"]["kernel"]
            for i, d in zip(place, along, strict=True)
        )
        of_each = 0.5 * np.sum((x @ w - y) ** 2, axis=1)
        np.testing.assert_allclose(
            [found["train_loss"][place], found["held_out_loss"][place]],
            [of_each.mean(), of_each[:8].mean()],
            rtol=1e-4,
        )


def test_an_interrupted_slice_goes_on(tmp_path, monkeypatch):
    task, _, _ = linear_task()
    params = {"dense": {"kernel": np.ones((3, 2), np.float32)}}
    distance = np.linspace(-1, 1, 2 * slices.CHUNK + 1)
    whole, part = (opened(tmp_path / n, settings("line")) for n in ("whole", "part"))
    for rundir in (whole, part):
        rundir.begin()
    wanted = slices.evaluate_slice(whole, task, [4], params, [params], distance).values
    first = {n: wanted[n][: slices.CHUNK] for n in slices.COLUMNS}
    part.keep("slice", {"steps": np.asarray([4]), **first})
    found = slices.evaluate_slice(part, task, [4], params, [params], distance).values
    for name in slices.COLUMNS:
        np.testing.assert_array_equal(found[name], wanted[name])
    monkeypatch.setattr(slices, "compiled_points", None)  # nothing left to run
    again = slices.evaluate_slice(part, task, [4], params, [params], distance).values
    np.testing.assert_array_equal(again["train_loss"], wanted["train_loss"])


def test_barrier_is_above_the_higher_end():
    assert between.barrier(np.array([1.0, 4.0, 2.0])) == 2.0
    assert between.barrier(np.array([3.0, 1.0, 2.0])) == 0.0


@pytest.mark.parametrize(
    ("losses", "first", "ratio"), [([1.0, 100.0], 1, 1.52), ([1.0, 2.0], 1, 1.08)]
)
def test_levels_follow_the_range_of_losses(losses, first, ratio):
    levels = drawing.contour_levels(np.array(losses))
    assert len(levels) == 10
    np.testing.assert_allclose(levels[0], first * ratio, rtol=0.02)
    assert not len(drawing.contour_levels(np.ones(3)))


# ---- of a run


def test_run_end_to_end(folder, tmp_path):
    """The centre is the checkpoint's evaluation."""
    s = settings("around", run=str(folder), points=3).checked()
    run(around.study, s, opened(tmp_path / "slice", s))
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    summary = json.loads((tmp_path / "slice/summary.json").read_text())
    assert summary["steps"] == [4]
    centre = summary["held_out_loss"]["centre"]
    np.testing.assert_allclose(centre, last["test_loss"], rtol=1e-5)
    with np.load(tmp_path / "slice/curves/slice.npz") as curves:
        assert curves["slice/train_loss"].shape == (3, 3)
        np.testing.assert_allclose(
            curves["slice/held_out_accuracy"][1, 1], last["test_accuracy"], rtol=1e-5
        )
    assert (tmp_path / "slice/figures/slice.png").stat().st_size > 10_000


def test_no_barrier_from_a_run_to_itself(folder, tmp_path):
    s = settings("between", run=str(folder), other=str(folder), points=3).checked()
    run(between.study, s, opened(tmp_path / "out", s))
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["train_loss"]["barrier"] == 0
    assert summary["held_out_loss"]["barrier"] == 0


def test_a_run_that_went_on_is_not_mixed(tmp_path):
    rundir = opened(tmp_path / "out", settings("line"))
    rundir.begin()
    rundir.keep("slice", {"steps": np.asarray([2])})
    with pytest.raises(UsageError, match=r"slice at step \[2\].* of step \[4\]"):
        slices.keep_to_one_checkpoint(rundir, [4])


def test_a_row_of_a_table(tmp_path):
    """Its settings are those of the table."""
    config = fullbatch_configs.get_config("digits_table").to_dict()
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "rows/fb/checkpoints/30").mkdir(parents=True)
    source = trained.settings_of(tmp_path / "rows/fb")
    assert (source.seeds, source.train_size) == (12, 256)
    with pytest.raises(UsageError, match=r"one of its rows: .*rows/fb, "):
        trained.settings_of(tmp_path)
    with pytest.raises(UsageError, match="has no checkpoint yet"):
        trained.settings_of(tmp_path / "rows/sgd")
    del config["study"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"holds another study, or .* older version"):
        trained.settings_of(tmp_path / "rows/fb")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match=r"config\.json is damaged"):
        trained.settings_of(tmp_path / "rows/fb")


@pytest.mark.parametrize(
    ("preset", "changes", "says"),
    [
        ("line", {"run": ""}, "names no run; needs a run directory.*to make one"),
        ("line", {"run": "tests"}, "run=tests: needs a run directory"),
        ("line", {"points": 4}, "points=4: needs an odd integer ≥ 3"),
        ("line", {"step": -1}, "0 for the newest"),
        ("line", {"replica": 1}, "replica=1: needs 0 to 0, the replicas of"),
        ("around", {"directions": 3}, "1 or 2"),
        ("between", {}, "other=: needs a run to go to, or another replica"),
        ("between", {"other_replica": 1}, "other_replica=1: needs 0 to 0"),
        ("between", {"other": "nowhere"}, "other=nowhere: needs a run directory"),
    ],
)
def test_bad_input(folder, preset, changes, says):
    with pytest.raises(UsageError, match=says) as caught:
        settings(preset, **{"run": str(folder)} | changes).checked()
    assert "\n" not in str(caught.value)


def test_other_run_of_another_model(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text()) | {"model": "mlp"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "checkpoints/4").mkdir(parents=True)
    s = settings("between", run=str(folder), other=str(tmp_path))
    with pytest.raises(UsageError, match="needs the same model"):
        s.checked()


def test_no_such_checkpoint(folder):
    with pytest.raises(UsageError, match="no checkpoint of step 3; 4"):
        trained.point(str(folder), 0, step=3)
    step, params = trained.point(str(folder), 0)
    assert step == 4
    _, stacked = load_params(folder / "checkpoints")
    assert jax.tree.leaves(stacked)[0][0].shape == jax.tree.leaves(params)[0].shape
