"""A run directory that is torn or foreign is refused in one line, or made whole."""

import pytest
from faults import directories


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return directories.prepared(tmp_path_factory.mktemp("pristine"))


@pytest.mark.parametrize("case", directories.cases(), ids=lambda case: case.name)
def test_nothing_is_torn_or_foreign_in_silence(case, pristine, tmp_path):
    found = directories.outcome(case, pristine, tmp_path / "place")
    assert found.kind in case.expected, found.words


def test_there_are_as_many_as_in_the_campaign():
    assert len({case.name for case in directories.cases()}) >= 52
