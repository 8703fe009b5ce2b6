"""A full disk is one line and exit code 3, and once there is room the run goes on."""

import asyncio
import errno
import gc
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
from faults import directories
from helpers import ROOT, command, environment

from optsde.run import files
from optsde.study import Study, failure

DIGITS = ("--config=configs/svag.py:digits", "--config.seeds=3", "--config.ells=1,2")


@pytest.fixture
def disk(tmp_path):
    """Makes a file system of some bytes in memory; skips where that is not allowed."""
    made = []

    def make(size):
        place = tmp_path / "disk"
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        try:
            subprocess.run(mount, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs the right to mount")
        made.append(place)
        return place

    yield make
    for place in made:
        subprocess.run(["umount", str(place)], check=True)


def refused(code, err):
    assert code == 3, err
    assert err.count("\n") == 1, err
    assert "failed: the disk is full" in err
    return True


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("moment", range(12))
def test_at_any_moment(moment, number, tmp_path, monkeypatch):
    """From the n-th file on none can be written, then all can."""
    wanted = directories.told(directories.prepared(tmp_path))
    shutil.rmtree(tmp_path / "run")
    whole, written = os.replace, []

    def full(source, target):
        written.append(target)
        if len(written) > moment:
            raise OSError(number, os.strerror(number), str(target))
        whole(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        code, _, err = directories.command(tmp_path, "--workdir=run")
    assert (code, err.count("\n")) == (3, 1), err
    says = {
        errno.ENOSPC: "the disk is full: ",
        errno.EDQUOT: "the disk quota is used up: ",
        errno.EIO: "cannot be written (Input/output error); mend that",
        errno.EROFS: "cannot be written (Read-only file system); mend that",
    }
    assert says[number] in err
    assert directories.command(tmp_path, "--workdir=run")[0] == 0
    assert directories.told(tmp_path) == wanted


@pytest.mark.parametrize("kilobytes", [100, 200, 500])
def test_a_disk_that_is_full(kilobytes, disk, monkeypatch):
    """The last words have their room, which the lock has kept for them."""

    def simulate(s, rundir):
        made = np.random.RandomState(0).rand(5, 12_500)  # 100 kB each
        for number, array in enumerate(made):
            rundir.once(f"{number}", lambda x=array: {"loss": x})

    def claims(s, runs):
        return ()

    study = Study(directories.__name__, directories.Settings, simulate, claims=claims)
    monkeypatch.setattr(directories, "STUDY", study)
    place = disk(f"{kilobytes}k")
    (place / "toy.py").write_text(directories.CONFIG)
    code, _, err = directories.command(place, "--workdir=run")
    assert refused(code, err)
    summary = json.loads((place / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "the disk is full" in summary["reason"]
    assert "No space left" in (place / "run" / "crash.log").read_text()
    subprocess.run(["mount", "-o", "remount,size=2m", str(place)], check=True)
    code, out, err = directories.command(place, "--workdir=run")
    assert code == 0, err
    assert out.count("read from") == (kilobytes - 70) // 101


def test_a_disk_that_takes_nothing(disk):
    place = disk("8k")
    (place / "toy.py").write_text(directories.CONFIG)
    (place / "filled").write_bytes(b"x")
    code, _, err = directories.command(place, "--workdir=run")
    assert (code, err.count("\n")) == (2, 1)
    assert "--workdir=run cannot be written (No space left on device)" in err
    assert not (place / "run").exists()


def test_what_libraries_say_of_a_full_disk_is_understood(tmp_path):
    words = "INTERNAL: Error writing: No space left on device [OS error 28: ENOSPC]"
    inside = ExceptionGroup("threads", [ValueError("x"), ValueError(words)])
    chained = RuntimeError("a save failed")
    chained.__cause__ = inside
    for error in (ValueError(words), inside, chained):
        assert failure.reason(error, tmp_path).startswith("the disk is full: ")
    unrelated = ValueError("bad")
    unrelated.__context__, unrelated.__suppress_context__ = inside, True
    assert failure.reason(unrelated, tmp_path) == "ValueError: bad"


def test_an_error_of_a_task_that_nobody_awaits_is_overheard(capfd, monkeypatch):
    monkeypatch.setattr(failure.TASKS, "filters", [])  # of processes that ended here

    async def fail():
        raise OSError(errno.ENOSPC, "No space left on device")

    async def begin():
        task = asyncio.create_task(fail())
        await asyncio.sleep(0.01)
        del task

    with failure.overheard() as others:
        asyncio.run(begin())
        gc.collect()
    assert "No space left" in "".join(others)
    assert capfd.readouterr().err == ""


def test_what_is_half_written_is_removed(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    files.write(tmp_path / "a.json", "old")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        files.write(tmp_path / "a.json", "new")
    assert [x.name for x in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


@pytest.mark.full
@pytest.mark.parametrize("kilobytes", [120])  # a part, and not the next save
def test_a_study_on_a_full_disk(kilobytes, disk):
    place = disk(f"{kilobytes}k")
    ended = subprocess.run(
        command("svag", *DIGITS, f"--workdir={place / 'run'}"),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 3
    errors = [x for x in ended.stderr.splitlines() if x.startswith("experiments.svag")]
    assert len(errors) == 1, ended.stderr
    assert "the disk is full" in errors[0]
    assert "Traceback" not in ended.stderr
    summary = json.loads((place / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
