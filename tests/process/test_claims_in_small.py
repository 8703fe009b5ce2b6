"""Every command of the ledger runs in its small form, and makes the claims asked."""

import fnmatch
import json

import pytest

from benchmarks.record import run
from experiments.sources import SOURCES

pytestmark = pytest.mark.full
QUESTIONS = [question for source in SOURCES for question in source.questions]


@pytest.mark.parametrize("preset", sorted({q.preset for q in QUESTIONS}))
def test_a_command_of_the_ledger(preset, tmp_path):
    ended = run(preset, tmp_path)
    assert ended.returncode == 0, ended.stderr
    made = json.loads((tmp_path / "summary.json").read_text())["verdicts"]
    names = [verdict["claim"] for verdict in made]
    for question in QUESTIONS:
        if question.preset == preset:
            assert any(
                fnmatch.filter(names, pattern) for pattern in question.claims.split()
            ), (question.claims, names)
