"""experiments.fullbatch: its numbers, its presets, and the command as it is run."""

import json
import sys

import jax
import numpy as np
import pytest
from helpers import ROOT

from configs import fullbatch as configs
from experiments import tasks
from experiments.fullbatch import costs, recipe


def test_published_learning_rates():
    """Step 0: 0. Step 2999: .273 of the peak, since the cosine stops early."""
    config = configs.get_config("fb_regularized")
    plan = recipe.build_plan(config, 50_000)
    assert plan.rate(0) == 0
    np.testing.assert_allclose(plan.rate(400), 0.8, rtol=1e-6)
    np.testing.assert_allclose(plan.rate(2999) / 0.8, 0.273, atol=1e-3)
    sgd = recipe.build_plan(configs.get_config("sgd"), 50_000)
    assert sgd.steps == 300 * (50_000 // 128)
    np.testing.assert_allclose(sgd.rate(sgd.steps), 0, atol=1e-6)


@pytest.mark.parametrize("preset", list(configs.PRESETS))
def test_every_preset_is_well_formed(preset):
    recipe.check(configs.get_config(preset))


def test_the_optimizer_is_the_published_one():
    """Clip, then L2, then Nesterov's momentum, against the recipe written out."""
    config = configs.get_config("fb_clipped")
    plan = recipe.build_plan(config, 50_000)
    transform = plan.transform()
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
        (["--config.model=resnet19"], "model 'resnet19' is none of mlp, "),
        (["--config.augment=some"], "live, none or frozen"),
        (["--config.evaluate_every=15"], "a multiple of log_every=10"),
        (["--config.dataset=cifar10"], "python -m optsde.data.prepare cifar10"),
        (["--config.batch_size=32", "--config.shuffle=true"], "a full batch"),
        (["--config.penalty_form=backward"], "one of forward, central, exact"),
        (["--config.options.dtype=single_precision"], "float32, bfloat16 or float16"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, says):
    from experiments import fullbatch

    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OPTSDE_DATA", str(tmp_path / "no-data"))
    argv = ["fullbatch", "--config=configs/fullbatch.py:digits_fb", *arguments]
    monkeypatch.setattr(sys, "argv", [*argv, f"--workdir={tmp_path / 'run'}"])
    with pytest.raises(SystemExit) as leaving:
        fullbatch.main()
    assert leaving.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_who_is_warned_of_kinks():
    def warned(preset, **options):
        config = configs.get_config(preset).unlock()
        config.options.update(options)
        model = tasks.build_model(config, 10)
        return recipe.differences_cross_kinks(config, model)

    assert warned("digits_fb_strong")
    assert warned("fb_strong")
    assert not warned("digits_fb_strong", activation="silu")
    assert not warned("digits_fb_clipped")
    assert not warned("text_fb_strong")


def test_the_table_judges_what_the_rows_ended_with(tmp_path, monkeypatch, capsys):
    """Rows of known outcome: every verdict, its sign and its unit."""
    from experiments import fullbatch
    from experiments.rundir import RunDir

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

    def ended(row, dataset, folder, name):
        last = 1 - (errors[name] + seeds) / 100
        loss = (errors[name] + seeds) / 20
        first = np.full(6, 0.1)
        return {
            "step": [0, row.steps],
            "test_accuracy": [first.tolist(), last.tolist()],
            "test_loss": [(10 * first).tolist(), loss.tolist()],
        }

    monkeypatch.setattr(fullbatch, "train_row", ended)
    config = configs.get_config("digits_table")
    fullbatch.run(config, RunDir.open(tmp_path / "run", "fullbatch", config))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    found = {v["claim"]: (v["value"], v["holds"]) for v in summary["verdicts"]}
    expected = {
        "longer_above_full_batch": (17.0, True),
        "clipped_above_longer": (3.0, True),
        "penalty_lowers_loss": (0.03, True),
        "penalty_lowers_loss_at_that_lr": (0.0, False),
        "new_blocks_lower_loss": (0.06, True),
        "strong_is_as_good_as_sgd": (-0.2, True),
    }
    assert found.keys() == expected.keys()
    for claim, (value, holds) in expected.items():
        np.testing.assert_allclose(found[claim][0], value, atol=1e-9)
        assert found[claim][1] == holds
    assert (tmp_path / "run" / "figures" / "table.png").stat().st_size > 10_000
    assert "control: clip at that lr" in capsys.readouterr().out


def test_counted_operations_of_resnet_18():
    """0.56 G multiply-adds forward (He et al.'s count for 32×32), three passes."""
    config = configs.get_config("fb_longer").unlock()
    config.train_size = 256
    dataset = costs.stand_in(config)
    built = recipe.build_run(config, tasks.build_task(config, dataset))
    keys = jax.random.split(jax.random.key(0), 1)
    state = jax.eval_shape(jax.vmap(built.dynamics.init), keys)
    counted = costs._flops(config, built, state) / 256
    assert 0.75 < counted / (6 * 0.556e9) < 1.1
