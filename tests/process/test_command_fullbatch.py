"""experiments.fullbatch as it is run: again, diverging, and without its data."""

import json

import jax
import numpy as np
import pytest
from helpers import run_study

from optsde.run import load_params, read

pytestmark = pytest.mark.full


def command(tmp_path, *arguments):
    return run_study("fullbatch", *arguments, f"--workdir={tmp_path / 'run'}")


TINY = ["--config.seeds=2", "--config.train_size=48", "--config.test_size=64"]


def test_a_run_and_the_same_command_again(tmp_path):
    arguments = (*TINY, "--config.steps=20", "--config.evaluate_every=10")
    preset = "--config=configs/fullbatch.py:digits_fb_practice"
    first = command(tmp_path, preset, *arguments)
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "run"
    rows = read(folder / "metrics.jsonl")
    assert rows["step"] == [0, 10, 20]
    assert np.shape(rows["test_loss"]) == (3, 2)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "done"
    assert (folder / "figures" / "run.png").stat().st_size > 10_000
    step, params = load_params(folder / "checkpoints")
    assert step == 20
    assert {x.shape[0] for x in jax.tree.leaves(params)} == {2}
    again = command(tmp_path, preset, *arguments)
    assert again.returncode == 0, again.stderr
    assert "read from" in again.stdout
    assert "the penalty's finite difference is not the Hessian" in first.stderr


def test_split_parameters_train_as_whole_ones(tmp_path):
    """Two seeds on four devices each, among which the first layer is split."""
    preset = "--config=configs/fullbatch.py:digits_fb_clipped"
    net = "--config.model=mlp", "--config.options.hidden=(64,)"
    arguments = (preset, *net, *TINY, "--config.steps=10", "--devices=8")
    losses = []
    for split in ("false", "true"):
        ended = command(tmp_path / split, *arguments, f"--config.sharded={split}")
        assert ended.returncode == 0, ended.stderr
        folder = tmp_path / split / "run"
        _, params = load_params(folder / "checkpoints")
        losses.append((read(folder / "metrics.jsonl")["loss"][1:], params))
    whole, parts = losses
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-4)
    for one, two in zip(*map(jax.tree.leaves, (whole[1], parts[1])), strict=True):
        np.testing.assert_allclose(two, one, rtol=0, atol=1e-4)


def test_divergence_is_a_status(tmp_path):
    preset = "--config=configs/fullbatch.py:digits_fb"
    ended = command(tmp_path, preset, *TINY, "--config.lr=1e30")
    assert ended.returncode == 1
    assert "diverged: between step" in ended.stderr
    assert "Traceback" not in ended.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "diverged"


def test_dry_run_says_what_a_step_costs(tmp_path):
    """CIFAR-10 at full size on 8 devices, of which there is no data here."""
    preset = "--config=configs/fullbatch.py:fb_strong"
    model = ("--config.model=preresnet20", "--dry_run", "--devices=8")
    ended = command(tmp_path, preset, *model)
    assert ended.returncode == 0, ended.stderr
    line = ended.stdout.splitlines()[2]
    assert "272,282" in line
    assert "1 all-reduce" in line
    assert not (tmp_path / "run").exists()
