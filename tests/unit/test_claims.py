"""The ledger: questions have presets, the page is of the records, runs are checked."""

import json
import runpy

import pytest

from experiments import claims
from experiments.sources import SOURCES, Question, Source
from optsde.analysis import Verdict
from tests.helpers import ROOT

QUESTIONS = [question for source in SOURCES for question in source.questions]


@pytest.fixture
def place(tmp_path):
    """The directory of a finished run of a preset, made by hand."""
    preset = runpy.run_path(str(ROOT / "configs" / "sweep.py"))["PRESETS"]["adam"]
    verdict = Verdict("best_below_x", 1.0, 0.5, 1.5, 0.0, "%", holds=True)
    summary = {"experiment": "sweep", "status": "done", "seconds": 7.2}
    summary["verdicts"] = [verdict.to_json()]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "config.json").write_text(preset.settings.config().to_json())
    return tmp_path


def changed(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    "study", sorted({q.preset.partition(":")[0] for q in QUESTIONS})
)
def test_every_command_exists(study):
    known = runpy.run_path(str(ROOT / "configs" / f"{study}.py"))["PRESETS"]
    asked = {
        q.preset.partition(":")[2] for q in QUESTIONS if q.preset.startswith(study)
    }
    assert asked <= known.keys()


def test_the_page_is_of_the_records_and_answers_every_question():
    records = json.loads(claims.RECORDS.read_text())
    assert claims.PAGE.read_text() == claims.page(SOURCES, records)
    for question in QUESTIONS:
        assert claims.answers(question, records)


def test_a_run_is_taken_up_under_its_preset(place):
    preset, record = claims.taken_up(place)
    assert preset == "sweep:adam"
    source = Source("A 2022", "*B*", (Question("Yes.", preset, "best_*", known=True),))
    page = claims.page([source], {preset: record})
    assert "| `best_below_x` | 1 [0.5, 1.5] | 0 | % | holds |" in page
    assert "| [A 2022](#a-2022) | Yes. | 1 holds | known |" in page
    assert "`python -m experiments.sweep --config=configs/sweep.py:adam`" in page
    twice = Question("Yes.", preset, "best_* *_below_x", known=True)
    both = source._replace(questions=(twice, *source.questions))
    assert claims.total([both], {preset: record}) == "1 holds"
    assert json.loads(claims.written({preset: record})) == {preset: record}
    wrong = source._replace(questions=(Question("No.", preset, "worst_*"),))
    with pytest.raises(ValueError, match="no claim like 'worst_"):
        claims.page([wrong], {preset: record})


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("config.json", {"seeds": 3}, "settings of no preset"),
        ("summary.json", {"status": "diverged"}, "needs a run that is done"),
        ("summary.json", {"status": "running"}, "has not ended"),
    ],
)
def test_other_runs_are_refused_and_nothing_is_written(
    place, file, changes, words, capsys, monkeypatch
):
    monkeypatch.setattr(claims, "PAGE", place / "claims.md")
    monkeypatch.setattr(claims, "RECORDS", place / "claims.json")
    changed(place / file, **changes)
    assert claims.main([str(place)]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not claims.PAGE.exists()
