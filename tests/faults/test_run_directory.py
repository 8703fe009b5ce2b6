"""A run directory that is torn or foreign is refused in one line, or made whole."""

import os
import shutil
import threading

import numpy as np
import pytest
from faults import directories

from optsde.run import files
from optsde.study import RunDir, compare, provenance


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return directories.prepared(tmp_path_factory.mktemp("pristine"))


@pytest.mark.parametrize("case", directories.cases(), ids=lambda case: case.name)
def test_nothing_is_torn_or_foreign_in_silence(case, pristine, tmp_path):
    found = directories.outcome(case, pristine, tmp_path / "place")
    assert found.kind in case.expected, found.words


@pytest.mark.parametrize("case", [*directories.damages()], ids=lambda case: case.name)
def test_what_compares_reads_it_or_says_why_not(case, pristine, tmp_path, capsys):
    place = tmp_path / "place"
    shutil.copytree(pristine, place)
    case.do(place)
    before = directories.tree(place)
    with directories.at_most(directories.SECONDS):
        code = compare.main([str(place / "run"), str(pristine / "run")])
    out, err = capsys.readouterr()
    assert (code, err.count("\n")) in ((0, 0), (2, 1)), err
    if code == 0:
        says = "the same, bit for bit: rate 0.1/loss", "settings that differ"
        assert any(x in out for x in says) or "a part" in case.name
    assert directories.tree(place) == before


@pytest.mark.parametrize("left", [["lock"], ["lock", "config.json.partial"]])
def test_a_run_that_was_killed_as_it_began_is_begun_again(left, pristine, tmp_path):
    (tmp_path / "toy.py").write_text(directories.CONFIG)
    (tmp_path / "run").mkdir()
    for name in left:
        (tmp_path / "run" / name).write_text("{")
    code, _, err = directories.command(tmp_path, "--workdir=run")
    assert code == 0, err
    assert directories.told(tmp_path) == directories.told(pristine)


def test_there_are_as_many_as_in_the_campaign():
    assert len({case.name for case in directories.cases()}) >= 52


@pytest.mark.parametrize("left", [["config.json"], ["config.json", "made.jsonl"]])
def test_what_no_run_has_written_is_not_removed(left, tmp_path):
    """A folder of weights has a config.json too."""
    (tmp_path / "toy.py").write_text(directories.CONFIG)
    (tmp_path / "run").mkdir()
    for name in left:
        (tmp_path / "run" / name).write_text('{"architectures": ["Bert"]}\n')
    before = directories.tree(tmp_path)
    code, _, err = directories.command(tmp_path, "--workdir=run")
    assert (code, err.count("\n")) == (2, 1), err
    assert "run holds a run with other settings (architectures" in err
    assert directories.tree(tmp_path) == before


@pytest.fixture
def rundir(tmp_path):
    return RunDir.open(tmp_path / "run", "toy", directories.Settings().config())


PARTS = {name: {"loss": np.ones(2)} for name in ("a", "b")}


def test_a_kill_after_the_parts_were_kept_leaves_no_journals(rundir, monkeypatch):
    with rundir.running(), monkeypatch.context() as killed:
        killed.setattr(rundir, "_finished", lambda part: None)
        rundir.once_all(["a", "b"], lambda: PARTS)
    assert rundir.made().keys() == {"a", "b", "unfinished/a/a"}
    with rundir.running():
        rundir.once_all(["a", "b"], dict)
    assert rundir.made().keys() == {"a", "b"}
    assert not (rundir.path / "unfinished").exists()


def test_parts_that_run_together_have_one_folder_of_journals(rundir):
    def make():
        assert [x.name for x in (rundir.path / "unfinished").iterdir()] == ["a"]
        return PARTS

    with rundir.running():
        rundir.keep("a", PARTS["a"])
        rundir.once_all(["a", "b"], make)


def test_other_threads_errors_are_written_by_who_has_the_lock(rundir, capsys):
    """Of several processes the first has it."""

    def fail():
        raise OSError("of another thread")

    for locked in (True, False):
        with rundir.running():
            if not locked:
                rundir.close()
            thread = threading.Thread(target=fail)
            thread.start()
            thread.join()
        crash = rundir.path / "crash.log"
        assert crash.exists() == locked
        assert ("OSError: of another thread" in capsys.readouterr().err) != locked
        crash.unlink(missing_ok=True)


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        note = lambda *given, n=name, call=call: (done.append(n), call(*given))  # noqa: E731
        monkeypatch.setattr(files.os, name, note)
    files.write(tmp_path / "summary.json", "{}")
    assert done == ["fsync", "replace", "fsync"]


def test_a_stamp_has_the_devices_of_all_processes(monkeypatch):
    monkeypatch.setattr(provenance.jax, "devices", lambda: ["cpu:0", "cpu:1"])
    monkeypatch.setattr(provenance.jax, "local_devices", lambda: ["cpu:0"])
    monkeypatch.setattr(provenance.jax, "process_count", lambda: 2)
    stamp = provenance.present()
    assert (stamp["devices"], stamp["processes"]) == (["cpu:0", "cpu:1"], 2)
