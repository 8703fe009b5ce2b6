"""What a user waits for before the first word: no more is imported than is used."""

import subprocess
import sys

from helpers import ROOT, command, environment, run_child

LATER = "diffrax grain matplotlib orbax pandas PIL pyarrow requests scipy sklearn"
PROGRAM = f"""
import gc
import sys
from importlib import import_module
from optsde import data
packages = [import_module("experiments." + name) for name in STUDIES]
sys.argv = ["-", "--help"]
try:
    packages[0].main()
except SystemExit as end:
    assert not end.code and gc.get_freeze_count()  # for a quick exit
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


def test_the_first_words_come_before_the_first_program_is_compiled(tmp_path):
    """They name study, preset, devices and directory; to compile writes lines too."""
    child = subprocess.Popen(
        command("svag", f"--workdir={tmp_path}"),
        cwd=ROOT,
        env=environment() | {"JAX_LOG_COMPILES": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with child:
        assert child.stdout is not None
        words, log = child.stdout.readline(), child.stdout.readline()
        child.kill()
    assert words.startswith("svag, preset digits, on ")
    assert words.endswith(f"; run directory: {tmp_path}\n")
    assert log.startswith("Finished tracing")
