"""Three kills, as the program beside this file gives them to every study."""

import pytest
from faults import kills

pytestmark = pytest.mark.full


def test_killed_runs_come_to_what_undisturbed_ones_do(tmp_path):
    (found,) = kills.campaign(["fullbatch:digits_fb"], 3, seed=0, folder=tmp_path)
    assert found.kills == 3
    assert not found.differences
    assert found.resumed


def test_what_differs_is_noticed(tmp_path):
    for name, loss in (("a", "1"), ("b", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(f'{{"loss": {loss}}}\n')
        (tmp_path / name / "summary.json").write_text(f'{{"seconds": {loss}}}')
    (tmp_path / "a" / "more.json").write_text("{}")
    found = kills.differing(tmp_path / "a", tmp_path / "b")
    assert found == ["metrics.jsonl", "more.json is missing"]
