"""The command line of experiments.svag: bad input, the run directory, going on."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import ROOT, environment

from experiments import svag

DIGITS = "--config=configs/svag.py:digits"
TINY = [
    "--config.seeds=3",
    "--config.sde_seeds=3",
    "--config.ells=1,2",
    "--config.times=10,20",
    "--config.substeps=1",
    "--config.widths=8",
]


def command(tmp_path, *arguments):
    out = f"--workdir={tmp_path / 'run'}"
    return [sys.executable, "-m", "experiments.svag", *arguments, out]


def run(tmp_path, *arguments):
    return subprocess.run(
        command(tmp_path, *arguments),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config=configs/svag.py:digitz"], "one of: digits, digits_rmsprop"),
        (["--config=configs/nope.py"], "no such file"),
        (["--config.sedes=3"], "did you mean seeds? allowed: batch_size"),
        (["--config.optimizer.b3=1"], "did you mean optimizer.b2?"),
        (["--config.optimizer=3"], "set one of optimizer.absolute_decay, optimizer.b1"),
        (["--config.optimizer.name=adamw"], "one of: adagrad, adam"),
        (["--config.optimizer.name=sgd"], "it has the settings lr, l2"),
        (["--config.optimizer.lr=fast"], "needs a number, such as the default 0.001"),
        (["--config.optimizer.lr=-1"], "needs a positive number"),
        (["--config.seeds=many"], "needs an integer, such as the default 96"),
        (["--config.seeds=1"], "at least 2"),
        (["--config.ells=1,x"], "needs a list of integers"),
        (["--config.ells=2,4"], "1 among them"),
        (["--config.times=0,50"], "positive, rising times"),
        (["--config.times=55"], "multiples of curve_every=10"),
        (["--config.small_batches=3"], "whole steps in curve_every=10"),
        (["--config.small_batches=100"], "kappa ≤ 10"),
        (["--config.optimizer.b1=1.5"], "needs 0 ≤ decay < 1"),
        (["--config.optimizer.eps=-1"], "needs a number ≥ 0"),
        (["--config.ells=1,2,2"], "two or more, distinct"),
        (["--config.times=100,50"], "positive, rising times"),
        (["--config=configs/svag.py:quadratic", "--config.horizon=0"], "multiple of"),
        (["--config.batch_size=0"], "an integer ≥ 1"),
        (["--nope=1"], "allowed: --config"),
        (["stray"], "'stray' is not a flag"),
        (["--config=configs/svag.py:quadratic", "--config.eta=2"], "0 < eta ≤ 0.577"),
        (
            ["--config=configs/svag.py:quadratic", "--config.optimizers=sgd"],
            "one of adagrad, adam, rmsprop",
        ),
        (["--config=configs/svag.py:quadratic", "--config.paths=10"], "at least 1000"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments, says, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", command(tmp_path, *arguments)[2:])
    with pytest.raises(SystemExit) as leaving:
        svag.main()
    lines = capsys.readouterr().err.strip().splitlines()
    assert leaving.value.code == 2
    assert len(lines) == 1
    assert says in lines[0]
    assert not (tmp_path / "run").exists()


def test_help_lists_presets_and_settings(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["svag", "--help"])
    with pytest.raises(SystemExit) as leaving:
        svag.main()
    text = capsys.readouterr().out
    assert not leaving.value.code
    for word in ("digits_sgd", "quadratic", "--config.optimizer.lr=0.001", "--workdir"):
        assert word in text


def test_a_run_and_its_directory(tmp_path):
    first = run(tmp_path, DIGITS, *TINY)
    assert first.returncode == 0, first.stderr
    out = tmp_path / "run"
    files = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert files == {
        "config.json",
        "meta.json",
        "metrics.jsonl",
        "curves.npz",
        "summary.json",
        "figures/svag.png",
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
    with np.load(out / "curves.npz") as curves:
        assert curves["sde"].shape == (3, 3)
        assert np.ptp(curves["sde"][:, 0]) == 0  # one initial point for all seeds
    rows = [json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 6 * 3
    assert "discrete, batch 8" in first.stdout
    assert "t = 20/20  100%" in first.stderr

    again = run(tmp_path, DIGITS, *TINY)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("read from") == 6
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


def test_damaged_files_are_named(tmp_path, monkeypatch, capsys):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "config.json").write_text("{")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", command(tmp_path, DIGITS)[2:])
    with pytest.raises(SystemExit) as leaving:
        svag.main()
    assert leaving.value.code == 2
    assert "config.json is damaged" in capsys.readouterr().err
    (run_dir / "config.json").unlink()
    config = tmp_path / "broken.py"
    config.write_text("def get_config(:")
    monkeypatch.setattr(sys, "argv", command(tmp_path, f"--config={config}")[2:])
    with pytest.raises(SystemExit) as leaving:
        svag.main()
    assert leaving.value.code == 2
    assert "SyntaxError" in capsys.readouterr().err


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
        command(tmp_path, *arguments),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "curves.npz").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in errors
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    with np.load(tmp_path / "run" / "curves.npz") as curves:
        assert "sde" not in curves


def test_quadratic(tmp_path):
    """The preset at a size for tests: runs, and the slopes are those of theory."""
    ended = run(
        tmp_path,
        "--config=configs/svag.py:quadratic",
        "--config.optimizers=rmsprop",
        "--config.paths=100000",
    )
    assert ended.returncode == 0, ended.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [v["holds"] for v in summary["verdicts"]] == [True, True]
