"""experiments.scaling as it is run: again, without verification, diverging."""

import json
import sys

import pytest
from helpers import run_child, run_study

pytestmark = pytest.mark.full


def command(tmp_path, *arguments):
    return run_study("scaling", *arguments, f"--workdir={tmp_path / 'run'}")


FLAGS = [
    "--config.seeds=3",
    "--config.horizon=32",
    "--config.evaluations=4",
    "--config.kappas=2,4",
    "--config.ells=",
    "--config.draws=32",
    "--config.probe_seeds=2",
    "--config.train_size=100",
]


COUNTED = """
import runpy, sys, jax
names = []
def note(event, seconds, **about):
    if event == "/jax/core/compile/backend_compile_duration":
        names.append(about["fun_name"])
jax.monitoring.register_event_duration_secs_listener(note)
try:
    runpy.run_module("experiments.scaling", run_name="__main__", alter_sys=True)
finally:
    print("programs", names.index("jit(_chunk)") + 1, len(names))
"""


def test_few_programs_before_the_first_step_and_in_all(tmp_path):
    """At most 20 to the first loop; then 12 for the prediction, 3 to 5 an ensemble."""
    rmsprop = ("--config=configs/scaling.py:digits_rmsprop", *FLAGS)
    place = f"--workdir={tmp_path / 'run'}"
    ran = run_child([sys.executable, "-c", COUNTED, *rmsprop, place])
    assert ran.returncode == 0, ran.stderr
    first, total = map(int, ran.stdout.splitlines()[-1].split()[1:])
    assert first <= 20
    assert total <= 20 + 15 + 3 * 5


def test_a_study_and_the_same_command_again(tmp_path):
    sgd = ("--config=configs/scaling.py:digits_sgd", *FLAGS, "--config.kappas=4")
    first = command(tmp_path, *sgd)
    assert first.returncode == 0, first.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "done"
    assert summary["prediction"]["kappa"] > 0
    held = json.loads((tmp_path / "run" / "prediction.json").read_text())
    assert held["kappa"] == summary["prediction"]["kappa"]
    assert "seen: the linear rule" in first.stdout
    assert (tmp_path / "run" / "figures" / "scaling.png").stat().st_size > 10_000
    again = command(tmp_path, *sgd)
    assert again.returncode == 0, again.stderr
    for part in ["prediction", "base", "kappa4/rule", "kappa4/fixed"]:
        assert again.stdout.count(f"{part}: read from") == 1
    assert "compiling" not in again.stderr

    def results(run):
        return run.stdout.partition("held-out loss")[2].partition("figures:")[0]

    assert results(again) == results(first) != ""


def test_only_a_prediction_and_a_base_run_that_diverges(tmp_path):
    sgd = ("--config=configs/scaling.py:digits_sgd", *FLAGS, "--config.verify=False")
    one, two = tmp_path / "one", tmp_path / "two"
    ended = command(one, *sgd)
    assert ended.returncode == 0, ended.stderr
    assert "linear rule expected to hold up to" in ended.stdout
    assert not (one / "run" / "arms").exists()
    ended = command(two, *sgd, "--config.optimizer.lr=1e30")
    assert ended.returncode == 1
    assert "diverged: the base run between t = 0 and 1, 2 of 2 replicas" in ended.stderr
    summary = json.loads((two / "run" / "summary.json").read_text())
    assert summary["status"] == "diverged"
