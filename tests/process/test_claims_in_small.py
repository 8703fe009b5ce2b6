"""Commands of the ledger run in their small form, and end in claims.

CI takes one of each package, since tests/studies run the studies themselves; `make
ledger` takes all.
"""

import json
import os

import pytest

from benchmarks.record import run
from experiments.sources import SOURCES

pytestmark = pytest.mark.full
ALL = os.environ.get("LEDGER") == "all"
AGAIN = pytest.mark.skipif(
    not ALL, reason="one of its package has run; make ledger runs all"
)


def presets():
    """Yields the presets of the ledger, as AGAIN after the first of a package."""
    packages = set()
    for preset in sorted({q.preset for s in SOURCES for q in s.questions}):
        package, _, _ = preset.partition(":")
        yield pytest.param(preset, marks=[AGAIN] if package in packages else [])
        packages.add(package)


@pytest.mark.parametrize("preset", list(presets()))
def test_a_command_of_the_ledger(preset, tmp_path, monkeypatch):
    flags = "--xla_backend_optimization_level=0"  # nearly all of it is compiling
    monkeypatch.setenv("XLA_FLAGS", flags)
    ended = run(preset, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "summary.json").read_text())["verdicts"]
