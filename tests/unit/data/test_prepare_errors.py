"""What the command that prepares a set refuses, and what it leaves behind."""

import numpy as np
import pytest

from optsde.data import prepare


def test_other_errors_and_help(tmp_path, capsys):
    with pytest.raises(ValueError, match="'digits' is always at hand"):
        prepare.prepare("digits")
    with pytest.raises(ValueError, match=r"--from .*nowhere is not a folder"):
        prepare.prepare("mnist", tmp_path, tmp_path / "nowhere")
    with pytest.raises(SystemExit, match="0"):
        prepare.main(["--help"])
    assert "optsde.data.prepare cifar10 --from" in capsys.readouterr().out


def test_an_unfinished_file_is_taken_away(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare._write(tmp_path / "mnist.npz", {"train_images": np.zeros(3)})
    assert not list(tmp_path.iterdir())
