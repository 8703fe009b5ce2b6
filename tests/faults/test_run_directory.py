"""A run directory that is torn or foreign is refused in one line, or made whole."""

import shutil

import pytest
from faults import directories

from optsde.study import compare


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
