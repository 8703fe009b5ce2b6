"""experiments.fullbatch: its numbers, its presets, and the command as it is run."""

import dataclasses
import json
import re
import sys

import flax.linen as nn
import numpy as np
import pytest
from helpers import ROOT

from configs import fullbatch as configs
from experiments import fullbatch
from experiments.fullbatch import costs, growth, recipe, row, table
from optsde.dynamics import discrete
from optsde.run import Series, cost
from optsde.study import RunDir, tasks
from optsde.study.runs import ArmRuns
from optsde.study.study import run

TINY = dict(model="mlp", options={"hidden": (8,)}, train_size=16, seeds=2)


def settings(preset, **changes):
    return dataclasses.replace(configs.PRESETS[preset].settings, **changes)


def plan_of(preset):
    s = settings(preset)
    return recipe.build_plan(s, s, 50_000)


def test_published_learning_rates():
    """Step 0: 0. Step 2999: .273 of the peak, since the cosine stops early."""
    plan = plan_of("fb_regularized")
    assert plan.rate(0) == 0
    np.testing.assert_allclose(plan.rate(400), 0.8, rtol=1e-6)
    np.testing.assert_allclose(plan.rate(2999) / 0.8, 0.273, atol=1e-3)
    sgd = plan_of("sgd")
    assert sgd.steps == 300 * (50_000 // 128)
    np.testing.assert_allclose(sgd.rate(sgd.steps), 0, atol=1e-6)


@pytest.mark.parametrize("preset", list(configs.PRESETS))
def test_every_preset_is_well_formed(preset):
    settings(preset).checked()
    known = {study.key for study in fullbatch.PACKAGE.studies}
    assert configs.get_config(preset).study in known


def test_the_optimizer_is_the_published_one():
    """Clip, then L2, then Nesterov's momentum, against the recipe written out."""
    transform = plan_of("fb_clipped").transform()
    params = np.array([3.0, -2.0], np.float32)
    grads = np.array([1.0, 2.0], np.float32)
    state = transform.init(params)
    expected, velocity = params.astype(np.float64), np.zeros(2)
    for step in range(3):
        updates, state = transform.update(grads, state, params)
        params = params + np.asarray(updates)
        clipped = grads * 0.25 / np.linalg.norm(grads) + 5e-4 * expected
        velocity = 0.9 * velocity + clipped
        expected = expected - 0.4 * step / 400 * (clipped + 0.9 * velocity)
    np.testing.assert_allclose(params, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config.lr=-1"], "--config.lr=-1.0: needs a positive number"),
        (["--config.augment=some"], "live, none or frozen"),
        (["--config.model=transformer"], "--config.augment=live: needs none for text"),
        (["--config.evaluate_every=15"], "a multiple of log_every=10"),
        (["--config.probes=spikes", "--config.probe_every=15"], "a multiple of log_"),
        (["--config.dataset=cifar10"], "python -m optsde.data.prepare cifar10"),
        (["--config.batch_size=32", "--config.shuffle=true"], "a full batch"),
        (["--config.stream=true"], "rows with a batch_size above 0, not a full batch"),
        (["--writers=wandb"], "--writers: writer 'wandb' needs wandb: pip install"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OPTSDE_DATA", str(tmp_path / "no-data"))
    monkeypatch.setattr("optsde.study.launch._prepare_devices", lambda *_: None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    argv = ["fullbatch", "--config=configs/fullbatch.py:digits_fb", *arguments]
    monkeypatch.setattr(sys, "argv", [*argv, f"--workdir={tmp_path / 'run'}"])
    with pytest.raises(SystemExit) as leaving:
        fullbatch.main()
    assert leaving.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_table_has_the_rows_that_it_compares():
    with pytest.raises(tasks.UsageError, match="rows=fb: needs the rows sgd, fb, "):
        table.Settings(rows={"fb": recipe.Row()}, **configs.ON_DIGITS).checked()


def test_who_is_warned_of_kinks():
    def warned(preset, **options):
        s = settings(preset)
        s = dataclasses.replace(s, options=s.options | options)
        return recipe.differences_cross_kinks(s, s, tasks.build_model(s, 10))

    assert warned("digits_fb_strong")
    assert warned("fb_strong")
    assert not warned("digits_fb_strong", activation="silu")
    assert not warned("digits_fb_clipped")
    assert not warned("text_fb_strong")
    strong = settings("digits_fb_strong")
    assert not recipe.differences_cross_kinks(strong, strong, nn.Dense(2))


def test_the_table_judges_what_the_rows_ended_with(tmp_path, monkeypatch, capsys):
    """Rows of known outcome: every verdict, its sign and its unit."""
    errors = {
        "sgd": 4.0,
        "fb": 25.0,
        "fb_longer": 8.0,
        "fb_clipped": 5.0,
        "fb_regularized": 4.4,
        "fb_strong": 4.2,
        "fb_practice": 3.0,
        "clipped_at_that_lr": 4.4,
        "practice_without_penalty": 3.0,
    }
    seeds = np.linspace(-0.1, 0.1, 6)

    def ended(s, row, task, rundir, folder, name):
        times, first = np.array([0, row.steps]), np.full(6, 0.1)
        last = 1 - (errors[name] + seeds) / 100
        loss = (errors[name] + seeds) / 20
        accuracy = Series(times, np.stack([first, last], axis=1))
        losses = Series(times, np.stack([10 * first, loss], axis=1))
        return ArmRuns(name, {"test_accuracy": accuracy, "test_loss": losses})

    monkeypatch.setattr(recipe, "train", ended)
    s = settings("digits_table", seeds=6, train_size=32)
    run(table.study, s, RunDir.open(tmp_path / "run", "fullbatch", s.config()))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    verdicts = {v["claim"]: (v["value"], v["holds"]) for v in summary["verdicts"]}
    expected = {
        "longer_above_full_batch": (17.0, True),
        "clipped_above_longer": (3.0, True),
        "penalty_lowers_loss": (0.03, True),
        "penalty_lowers_loss_at_that_lr": (0.0, False),
        "new_blocks_lower_loss": (0.06, True),
        "strong_is_as_good_as_sgd": (-0.2, True),
    }
    assert verdicts.keys() == expected.keys()
    assert s.known_false == ("penalty_lowers_loss_at_that_lr",)
    for claim, (value, holds) in expected.items():
        np.testing.assert_allclose(verdicts[claim][0], value, atol=1e-9)
        assert verdicts[claim][1] == holds
    assert (tmp_path / "run" / "figures" / "table.png").stat().st_size > 10_000
    assert "control: clip at that lr" in capsys.readouterr().out


@pytest.mark.full
def test_a_row_is_measured_and_then_read(tmp_path, capsys):
    """Sharpness and spikes of a small net; the second call trains nothing."""
    s = settings(
        "digits_fb_practice",
        **TINY,
        steps=4,
        log_every=2,
        evaluate_every=2,
        probes=("sharpness", "spikes"),
        probe_every=4,
        probe_examples=8,
    ).checked()
    for _ in range(2):
        run(row.study, s, RunDir.open(tmp_path / "run", "fullbatch", s.config()))
    printed = capsys.readouterr()
    assert "train: read from" in printed.out
    assert recipe.KINKS in printed.err
    last = json.loads((tmp_path / "run" / "summary.json").read_text())["last"]
    assert last["step"] == 4
    assert last["preconditioned_sharpness_of_8"][0] > 0
    assert last["spike"] == [0, 0]
    assert (tmp_path / "run" / "figures" / "run.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("preset", "passes"),
    [("fb_longer", 1), pytest.param("fb_strong", 2, marks=pytest.mark.full)],
)
def test_counted_operations_of_resnet_18(preset, passes):
    """Layer by layer: 0.556 G multiply-adds forward (He et al.), .48 off the rims.

    The derivatives are two more passes, of which the inputs need none, and a penalty's
    finite difference is a second gradient.
    """
    stem, padded = 3 * 64 * (3 * 32 - 2) ** 2, 3 * 64 * 9 * 32**2
    forward = stem + 4 * 64**2 * (3 * 32 - 2) ** 2 + 512 * 10
    padded += 4 * 64**2 * 9 * 32**2 + 512 * 10
    for channels, size in ((128, 16), (256, 8), (512, 4)):
        shortcut = channels * channels // 2 * size**2
        first, rest = channels * channels // 2, 3 * channels**2
        forward += first * (3 * size - 1) ** 2 + rest * (3 * size - 2) ** 2 + shortcut
        padded += (first + rest) * 9 * size**2 + shortcut
    np.testing.assert_allclose(padded, 0.556e9, rtol=2e-3)
    s = settings(preset, train_size=256, options=dict(form="direct"))
    task = recipe.build_task(s, costs.stand_in(s))
    plan = recipe.build_plan(s, s, task.size)
    run = discrete(plan, recipe.build_sampler(s, s, plan, task), task.init)
    assert cost(run, 1).flops == 256 * passes * 2 * (3 * forward - stem)


def test_a_dry_run_compiles_the_step(capsys, monkeypatch):
    monkeypatch.setattr(costs, "matmul_rate", lambda dtype: 1e9)
    s = settings("digits_fb_practice", **TINY)
    costs.report(s)
    header, _, line, _, note, _ = capsys.readouterr().out.splitlines()
    assert "FLOPs a step" in header
    assert f"{64 * 8 + 8 + 8 * 10 + 10}" in line
    cells = re.split(r"\s{2,}", line)
    assert float(cells[8]) == pytest.approx(float(cells[4]) / 1e9, rel=0.01)
    assert "what is sent takes no time without --bandwidth" in note
    # Two seeds: each has 128 devices, to sum the gradient and the loss.
    wire = dict(pod=256, bandwidth=1e3, memory=1e3)
    costs.report(s, flops=1e9, **wire)
    _, _, line, _, note, sent, memory = capsys.readouterr().out.splitlines()
    cells = re.split(r"\s{2,}", line)
    sum_of = 2 * 127 / 128 * 4 * (64 * 8 + 8 + 8 * 10 + 10 + 1)
    assert cells[7] == f"{sum_of / 2**20:.3g} MiB"
    assert float(cells[8].split(" to ")[0]) == float(f"{sum_of / 1e3:.3g}")
    assert cells[10].startswith("! ")
    assert "of which a net reaches 0.4 (--share)" in note
    assert "each of the 256 devices of --pod=256" in sent
    assert "! marks what may not fit" in memory
    with pytest.raises(tasks.UsageError, match=r"share=0\.3: is of a peak"):
        costs.report(s, share=0.3)
    with pytest.raises(tasks.UsageError, match="dataset=places: its shape is not"):
        costs.stand_in(settings("digits_fb", dataset="places"))


SMALL = dict(
    model="mlp", options={"hidden": (8,)}, shape=(64,), classes=10, train_size=100
) | dict(batch_size=32, horizon=10.0, group=4, devices=(2, 4, 16), full_batch_steps=5)


def priced(tmp_path, **changes):
    s = settings("growth_imagenet", **SMALL, **changes).checked()
    place = RunDir.open(tmp_path / "run", "fullbatch", s.config())
    run(growth.study, s, place)
    return s, json.loads((tmp_path / "run" / "summary.json").read_text())


def test_growth_of_a_small_net(tmp_path, capsys):
    """Products, bytes and times of an MLP as formulas have them."""
    s, found = priced(tmp_path, flops=1e6, share=0.5, bandwidth=1e5)
    weights = 64 * 8 + 8 * 10
    each = 2 * (2 * 64 * 8 + 3 * 8 * 10)  # the inputs have no derivative
    gradient = 4 * (weights + 8 + 10 + 1)  # with the loss
    examples = {"base": 32, "svag": 64, "full": 100}
    for name, count in examples.items():
        for devices, of_each in found[name]["of each device"].items():
            n = int(devices)
            groups = -(-count // 4)
            assert of_each["flops"] == -(-groups // n) * 4 * each
            assert of_each["sent"] == 2 * (n - 1) / n * gradient
            assert of_each["compute"] == of_each["flops"] / 5e5
            assert of_each["wire"] == of_each["sent"] / 1e5
            assert of_each["state"] > 2 * 4 * weights  # and momentum
            assert of_each["data"] >= 100 * (64 + 4)
    steps = [found[name]["steps"] for name in examples]
    assert steps == [10, 40, 5]  # SVAG of momentum: ℓ times as many
    out = capsys.readouterr().out
    assert "base, batch 32: no more than 8 devices have work" in out
    assert "SVAG, ℓ = 4: the wire takes longer than the products from 16 devices" in out
    assert (tmp_path / "run" / "figures" / "growth.png").is_file()
    with pytest.raises(tasks.UsageError, match="train_size=0: needs how many"):
        growth.build_task(dataclasses.replace(s, train_size=0))
    with pytest.raises(tasks.UsageError, match="model=resnet999: model"):
        growth.build_task(dataclasses.replace(s, model="resnet999"))
