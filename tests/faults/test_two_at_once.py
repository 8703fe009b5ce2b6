"""One process at a time writes in a run directory, and a second is told who has it."""

import errno
import fcntl
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time

import pytest
from faults import directories
from helpers import ROOT, command, environment

from optsde.study import RunDir, UsageError, compare
from optsde.study.lock import Lock


@pytest.fixture
def place(tmp_path):
    return directories.prepared(tmp_path)


def test_a_second_process_is_refused_and_changes_nothing(place):
    held = Lock(place / "run")
    before = directories.tree(place)
    for arguments in ([], ["--fresh"]):
        code, out, err = directories.command(place, "--workdir=run", *arguments)
        assert (code, out.count("\n"), err.count("\n")) == (2, 1, 1)
        assert out.endswith("run directory: run\n")
        who = f"is in use by process {os.getpid()} on {socket.gethostname()} since 2"
        assert who in err
        assert f"({shlex.join(sys.argv)[:500]}); wait for it" in err
        assert directories.tree(place) == before
    assert compare.main([str(place / "run")] * 2) == 0  # reading needs no lock
    held.release()
    assert directories.command(place, "--workdir=run")[0] == 0
    assert not (place / "run" / "lock").exists()


def test_what_another_process_did_in_the_meantime_is_not_overwritten(tmp_path):
    """Both looked at an empty directory before either began."""
    config = directories.Settings().config()
    with config.unlocked():
        mine = RunDir.open(tmp_path / "run", "toy", config)
        config.seed = 1
        other = RunDir.open(tmp_path / "run", "toy", config)
    with other.running():
        other.once("arm", lambda: {"loss": directories.np.ones(2)})
        other.finish("done", [])
    before = directories.tree(tmp_path)
    with pytest.raises(UsageError, match=r"other settings \(seed\)"), mine.running():
        pass
    assert directories.tree(tmp_path) == before


def test_a_lock_that_was_removed_meanwhile_is_not_taken(tmp_path, monkeypatch):
    """The holder ends, and removes it, after the file was opened here."""
    held, calls = Lock(tmp_path), []

    def wait(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            held.release()
        flock(*arguments)

    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", wait)
    mine = Lock(tmp_path)
    assert len(calls) == 2
    with pytest.raises(UsageError, match="is in use by process"):
        Lock(tmp_path)
    mine.release()


def test_where_there_are_no_locks_the_file_tells(tmp_path, monkeypatch, capsys):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    def left_by(pid, host):
        (tmp_path / "lock").write_text(json.dumps({"pid": pid, "host": host}))

    monkeypatch.setattr(fcntl, "flock", none)
    here, ended = socket.gethostname(), 2**22 + 1  # above the largest there is
    for pid, host in ((os.getppid(), here), (ended, "another")):
        left_by(pid, host)
        with pytest.raises(UsageError, match=r"remove .*lock if that one has ended"):
            Lock(tmp_path)
    for pid in (ended, 2**80, os.getpid()):
        left_by(pid, here)
        Lock(tmp_path).release()
    says = "has no locks (No locks available), so that lock tells who is there"
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "3", "{}", "[" * 9999, '{"pid": "x"}', "\xff"])
def test_a_lock_of_any_content_is_taken_if_nobody_has_it(tmp_path, text):
    (tmp_path / "lock").write_text(text)
    mine = Lock(tmp_path)
    assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    mine.release()


@pytest.mark.full
def test_two_commands_at_once_and_one_that_is_killed(tmp_path):
    """One runs and the other is refused; a killed one leaves nobody locked out."""
    arguments = command(
        "svag", "--config=configs/svag.py:quadratic", "--config.paths=200000"
    )
    arguments.append(f"--workdir={tmp_path / 'run'}")
    options = dict(cwd=ROOT, env=environment(), text=True)
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = subprocess.Popen(arguments, **options, **pipes)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "summary.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second = subprocess.run(arguments, **options, capture_output=True, timeout=120)
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert f"is in use by process {first.pid} on " in second.stderr
    first.kill()
    first.communicate()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "running"
    third = subprocess.Popen(arguments, **options, **pipes)
    while f'"pid": {third.pid}' not in (tmp_path / "run" / "lock").read_text():
        assert third.poll() is None
        time.sleep(0.05)
    third.send_signal(signal.SIGTERM)
    _, errors = third.communicate(timeout=120)
    assert third.returncode == 130, errors
    assert not (tmp_path / "run" / "lock").exists()
