"""What a user waits for before the first word: no more is imported than is used."""

import sys

from helpers import ROOT, run_child

LATER = "diffrax grain matplotlib orbax pandas PIL pyarrow requests scipy sklearn"
PROGRAM = f"""
import sys
from importlib import import_module
from optsde import data
packages = [import_module("experiments." + name) for name in STUDIES]
sys.argv = ["-", "--help"]
try:
    packages[0].main()
except SystemExit as end:
    assert not end.code
data.load("digits")
print(*sorted(set("{LATER}".split()) & set(sys.modules)))
"""


def test_help_and_digits_need_little():
    """All studies in one program: to import one is what its --help takes."""
    studies = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    program = PROGRAM.replace("STUDIES", repr(studies))
    done = run_child([sys.executable, "-c", program])
    assert done.returncode == 0, done.stderr
    assert "presets:\n" in done.stdout
    assert done.stdout.splitlines()[-1] == ""
