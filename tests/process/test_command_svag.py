"""experiments.svag as it is run: its directory, going on, diverging, the slopes."""

import json
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from helpers import ROOT, command, environment, run_study

pytestmark = pytest.mark.full
DIGITS = "--config=configs/svag.py:digits"
TINY = [
    "--config.seeds=3",
    "--config.sde_seeds=3",
    "--config.ells=1,2",
    "--config.times=10,20",
    "--config.substeps=2",
    "--config.widths=8",
]
ARMS = ("discrete", "ell2", "batch1", "batch2", "gaussian", "sde", "sde_coarse")
ARMS += ("sde_signal", "sde_signal_coarse")


def run(tmp_path, *arguments):
    return run_study("svag", *arguments, f"--workdir={tmp_path / 'run'}")


def test_a_run_and_its_directory(tmp_path):
    first = run(tmp_path, DIGITS, *TINY)
    assert first.returncode == 0, first.stderr
    out = tmp_path / "run"
    files = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert files == {
        "config.json",
        "made.jsonl",
        "meta.json",
        "metrics.jsonl",
        "report.html",
        "summary.json",
        "figures/svag.pdf",
        "figures/svag.png",
        *(f"curves/{name}.npz" for name in ARMS),
    }
    summary = json.loads((out / "summary.json").read_text())
    assert summary["status"] == "done"
    for verdict in summary["verdicts"]:
        assert verdict["low"] <= verdict["value"] <= verdict["high"]
    assert {v["claim"] for v in summary["verdicts"]} >= {
        "ell2_matches_sde",
        "discrete_above_ell2",
        "batch2_matches_ell2",
    }
    with np.load(out / "curves" / "sde.npz") as curves:
        sde = curves["sde/train_loss"]
        assert sde.shape == (3, 3)
        assert np.ptp(sde[:, 0]) == 0  # one initial point for all seeds
    rows = [json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 9 * 3
    assert "discrete, batch 8" in first.stdout
    assert "t = 20/20  100%" in first.stderr

    again = run(tmp_path, DIGITS, *TINY)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("read from") == 9
    assert len((out / "metrics.jsonl").read_text().splitlines()) == len(rows)
    other = run(tmp_path, DIGITS, *TINY, "--config.seed=1")
    assert other.returncode == 2
    assert "holds a run with other settings (seed)" in other.stderr


def test_a_directory_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    refused = run(tmp_path, DIGITS, *TINY)
    assert refused.returncode == 2
    assert "holds other files" in refused.stderr
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_divergence_is_a_status(tmp_path):
    ended = run(tmp_path, DIGITS, *TINY, "--config.optimizer.lr=1e30")
    assert ended.returncode == 1
    assert "diverged: discrete, batch 8 between t = 0 and 10" in ended.stderr
    assert "Traceback" not in ended.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "diverged"


@pytest.mark.skipif(shutil.which("kill") is None, reason="needs signals")
def test_interrupt_and_going_on(tmp_path):
    """SIGTERM once the first arm is stored; the same command reads it and goes on."""
    arguments = (DIGITS, *TINY, "--config.ells=1,64")  # the last one counts
    process = subprocess.Popen(
        command("svag", *arguments, f"--workdir={tmp_path / 'run'}"),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not any((tmp_path / "run").glob("curves/*.npz")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in errors
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert not (tmp_path / "run" / "curves" / "sde.npz").exists()


def test_quadratic(tmp_path):
    """The preset at a size for tests: runs, and the slopes are those of theory."""
    ended = run(
        tmp_path,
        "--config=configs/svag.py:quadratic",
        "--config.optimizers=rmsprop",
        "--config.paths=400000",
    )
    assert ended.returncode == 0, ended.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [v["holds"] for v in summary["verdicts"]] == [True, True]
