"""The command line of experiments.svag: bad input, the run directory, going on."""

import sys

import pytest
from helpers import ROOT

from experiments import svag

DIGITS = "--config=configs/svag.py:digits"


def argv(tmp_path, *arguments):
    return ["svag", *arguments, f"--workdir={tmp_path / 'run'}"]


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
    monkeypatch.setattr(sys, "argv", argv(tmp_path, *arguments))
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


def test_damaged_files_are_named(tmp_path, monkeypatch, capsys):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "config.json").write_text("{")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", argv(tmp_path, DIGITS))
    with pytest.raises(SystemExit) as leaving:
        svag.main()
    assert leaving.value.code == 2
    assert "config.json is damaged" in capsys.readouterr().err
    (run_dir / "config.json").unlink()
    config = tmp_path / "broken.py"
    config.write_text("def get_config(:")
    monkeypatch.setattr(sys, "argv", argv(tmp_path, f"--config={config}"))
    with pytest.raises(SystemExit) as leaving:
        svag.main()
    assert leaving.value.code == 2
    assert "SyntaxError" in capsys.readouterr().err
