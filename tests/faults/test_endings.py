"""How a run ended is in summary.json, in the exit code, and on one line."""

import json
import os
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from faults import directories

from optsde.analysis import above, estimate
from optsde.run.loop import DivergedError
from optsde.study import Numbers, Seeds, Study, UsageError, setting


class Settings(Seeds):
    fails: Numbers = setting((), "what the parts come to")
    lr: float = setting(0.1, "of all parts", above=0)


ERRORS = {
    1: lambda: DivergedError("between step 0 and 5"),
    2: lambda: UsageError("--config.lr=0.1: needs another"),
    3: lambda: TypeError("unsupported operand:\n  a matrix " + "x" * 1000),
    4: lambda: KeyboardInterrupt(),
    5: lambda: SystemExit("enough"),
    6: lambda: ExceptionGroup("of threads", [ValueError("one"), OSError("two")]),
}


def simulate(s, rundir):
    for number, error in enumerate(s.fails):
        rundir.once(f"part {number}", lambda x=error: part(x))
    found = json.loads((rundir.path / "summary.json").read_text())
    assert found["status"] == "running"
    return {"loss": s.lr * np.arange(4.0)}


def part(error):
    if error in ERRORS and not os.environ.get("MENDED"):
        raise ERRORS[error]()
    return {"loss": np.ones(2)}


def claims(s, runs):
    yield above("rises", estimate(runs["loss"]), 0.0, "of loss")


STUDY = Study(__name__, Settings, simulate, claims=claims)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(directories, "STUDY", STUDY)
    (tmp_path / "toy.py").write_text(directories.CONFIG)

    def call(fails, *more, workdir="run"):
        arguments = f"--workdir={workdir}", f"--config.fails={fails}", *more
        return directories.command(tmp_path, *arguments)

    return call


def summary(tmp_path):
    return json.loads((tmp_path / "run" / "summary.json").read_text())


def test_a_crash_is_one_line_with_the_reason(run, tmp_path, monkeypatch):
    code, _, err = run("3")
    assert (code, err.count("\n")) == (3, 1)
    assert "failed: TypeError: unsupported operand: a matrix xxx" in err
    assert len(err) < 1000
    assert "test_endings.py:" in err
    assert "the traceback is in run/crash.log" in err
    found = summary(tmp_path)
    assert (found["status"], found["verdicts"]) == ("failed", [])
    assert found["reason"].startswith("TypeError: unsupported operand: a matrix")
    assert "test_endings.py:" in found["where"]
    assert "Traceback" in (tmp_path / "run" / "crash.log").read_text()
    monkeypatch.setenv("OPTSDE_TRACEBACK", "1")
    code, _, err = run("3")
    assert (code, "Traceback" in err) == (3, True)
    monkeypatch.setenv("MENDED", "1")
    assert run("3")[0] == 0
    assert summary(tmp_path)["status"] == "done"
    assert not (tmp_path / "run" / "crash.log").exists()


@pytest.mark.parametrize(
    ("fails", "code", "status", "says"),
    [
        ("0,1", 1, "diverged", "diverged: between step 0 and 5"),
        ("0,3", 3, "failed", "failed: TypeError"),
        ("0,4", 130, "interrupted", "interrupted; the same command goes on"),
        ("0,6", 3, "failed", "failed: ExceptionGroup: of threads (2 sub-exceptions)"),
    ],
)
def test_no_older_summary_is_left(
    fails, code, status, says, run, tmp_path, monkeypatch
):
    monkeypatch.setenv("MENDED", "1")
    assert run(fails)[0] == 0
    next((tmp_path / "run" / "curves").glob("part_1~*")).unlink()
    monkeypatch.delenv("MENDED")
    ended, _, err = run(fails)
    assert ended == code
    assert says in err
    assert len(err.strip().splitlines()) == 1
    assert summary(tmp_path)["status"] == status
    monkeypatch.setenv("MENDED", "1")
    code, out, _ = run(fails)
    assert (code, "part 0: read from run" in out) == (0, True)


def test_a_refusal_leaves_the_summary_that_was_there(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MENDED", "1")
    assert run("0,2")[0] == 0
    next((tmp_path / "run" / "curves").glob("part_1~*")).unlink()
    before = (tmp_path / "run" / "summary.json").read_bytes()
    monkeypatch.delenv("MENDED")
    assert run("0,2")[0] == 2
    assert (tmp_path / "run" / "summary.json").read_bytes() == before


@pytest.mark.parametrize("fails", ["1", "3", "4"])
def test_a_corrected_command_may_use_a_directory_with_nothing_in_it(
    fails, run, tmp_path
):
    assert run(fails)[0] not in (0, 2)
    code, _, err = run("0", "--config.lr=0.2")
    assert code == 0, err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    meta = json.loads((tmp_path / "run" / "meta.json").read_text())
    assert config["lr"] == 0.2
    assert "--config.lr=0.2" in meta["argv"]
    assert {x.name for x in (tmp_path / "run").iterdir()} == {
        *("config.json", "meta.json", "made.jsonl", "summary.json", "report.html"),
        *("curves", "figures"),
    }


def test_a_directory_with_a_finished_part_keeps_to_its_settings(run):
    assert run("0,3")[0] == 3
    code, _, err = run("0,3", "--config.lr=0.2")
    assert (code, "holds a run with other settings (lr)" in err) == (2, True)


def test_whoever_exits_has_failed(run, tmp_path):
    assert run("5")[0] == "enough"
    assert summary(tmp_path)["reason"] == "SystemExit: enough"


def test_an_error_before_the_run_begins(tmp_path, monkeypatch, run):
    def task(s):
        raise RuntimeError("no such backend")

    study = Study(__name__, Settings, lambda s, rundir, task: 0, task=task)
    monkeypatch.setattr(directories, "STUDY", study)
    code, _, err = run("0")
    assert (code, err.count("\n")) == (3, 1)
    assert "failed: RuntimeError: no such backend" in err
    assert "OPTSDE_TRACEBACK=1 shows the traceback" in err
    assert not (tmp_path / "run").exists()


def test_what_other_threads_fail_of_is_not_on_the_screen(tmp_path, monkeypatch, run):
    def simulate(s, rundir):
        other = threading.Thread(target=lambda: part(3))
        other.start()
        other.join()
        error = ValueError("of a thread in C")
        sys.unraisablehook(
            SimpleNamespace(exc_type=ValueError, exc_value=error, exc_traceback=None)
        )
        part(s.fails[0])

    monkeypatch.setattr(directories, "STUDY", Study(__name__, Settings, simulate))
    for fails, ended in (("0", 0), ("6", 3)):
        code, _, err = run(fails, workdir=fails)
        assert (code, err.count("\n")) == (ended, 1), err
        assert f"{fails}/crash.log" in err
        log = (tmp_path / fails / "crash.log").read_text()
        assert "TypeError: unsupported" in log
        assert "ValueError: of a thread in C" in log


def test_help_names_the_codes(run):
    code, out, _ = run("0", "--help")
    assert code == 0
    assert "2 the command was wrong, 3 failed, 130 interrupted" in out
