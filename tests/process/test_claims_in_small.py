"""Commands of the ledger run in their small form, and end in claims.

CI takes one preset of each study, since others of it differ in settings alone; `make
ledger` takes all.
"""

import json
import os
import runpy

import pytest

from benchmarks.record import run
from experiments.sources import SOURCES
from tests.helpers import ROOT

pytestmark = pytest.mark.full
ALL = os.environ.get("LEDGER") == "all"
AGAIN = pytest.mark.skipif(not ALL, reason="its study has run; make ledger runs all")


def presets():
    """Yields the presets of the ledger, those of a study that was there as AGAIN."""
    studies = set()
    for preset in sorted({q.preset for s in SOURCES for q in s.questions}):
        package, _, name = preset.partition(":")
        known = runpy.run_path(str(ROOT / "configs" / f"{package}.py"))["PRESETS"]
        study = type(known[name].settings)
        yield pytest.param(preset, marks=[AGAIN] if study in studies else [])
        studies.add(study)


@pytest.mark.parametrize("preset", list(presets()))
def test_a_command_of_the_ledger(preset, tmp_path, monkeypatch):
    flags = "--xla_backend_optimization_level=0"  # nearly all of it is compiling
    monkeypatch.setenv("XLA_FLAGS", flags)
    ended = run(preset, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "summary.json").read_text())["verdicts"]
