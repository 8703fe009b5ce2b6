"""experiments.descent as it is run: the shortest command, also of `make test`."""

import json

from helpers import run_study


def test_command(tmp_path):
    arguments = ["--config.methods=gd,adam", "--config.steps=3"]
    ended = run_study("descent", *arguments, f"--workdir={tmp_path}")
    assert ended.returncode == 0, ended.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "done"
    assert [v["claim"] for v in summary["verdicts"]][-1] == "adam_longest_step"
    assert (tmp_path / "figures" / "trajectories.png").stat().st_size > 10_000
