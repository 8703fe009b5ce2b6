"""Each notebook runs as a script, and prints its answers."""

import re
import sys

import pytest
from helpers import ROOT, environment, run_child

pytestmark = pytest.mark.full
SPAN = r"\[[+-]?[\d.]+%?, [+-]?[\d.]+%?\]"
ANSWERS = {
    "01_scaling_rule": (
        r"refused: .*memory='power'",
        r"batch size +256 +8192 +κ ",
        rf"random labels +κ = 8 +\S+ {SPAN} +holds +holds",
        rf"clean labels +κ = 32 +\S+ {SPAN} +fails +fails",
        rf"κ = 8, all as before +\S+ {SPAN} +fails",
        r"Of [4-8] that both prediction and runs decide, [4-8] agree",
        r"With clean labels the rule fails sooner",
    ),
    "02_svag_and_the_sde": (
        rf"SVAG\(ℓ\) .*slope in 1/ℓ² (0\.[89]|1\.[01])\d {SPAN}",
        rf"batch 16/ℓ² .*slope in 1/ℓ² 0\.[5-7]\d {SPAN}",
        rf"SVAG\(1\) .*\n +and ends \S+ {SPAN} from the SDE's loss: apart from it",
        rf"SVAG\(4\) .*\n +and ends \+?-?[012]\.\d% {SPAN} from the SDE's loss",
    ),
    "03_your_own_optimizer": (
        r"lr +0\.001 +0\.002 +√κ +√s shrinks",
        rf"to its SDE: slope \S+ {SPAN}, 1/ℓ² or faster",
        rf"to the wrong SDE: slope \S+ {SPAN}, slower than 1/ℓ²",
    ),
    "04_catapults": (
        r"at 0\.8 of it: no spike",
        r"at 1\.5 of it: a spike, up to \S+ times the loss and back",
        r"at 1\.5: λ_max ends at 0\.[2-5]\d .*, and lr at 0\.\d+ of critical",
        r"at 3: λ_max ends at 0\.[01]\d .*, and lr at 0\.\d+ of critical",
        r"one step lowers the loss up to \d\d+ times critical",
        r"up to there the bound holds",
        r"AdaGrad at 3 times its critical rate: that becomes [2-4](\.\d)? times itself",
        r"and λ_max\(H\) 0\.[6-9]\d times",
    ),
}


def test_every_notebook_is_run():
    found = {path.stem for path in (ROOT / "notebooks").glob("*.py")}
    assert found == set(ANSWERS)


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_notebook_answers_its_question(name, tmp_path):
    done = run_child(
        [sys.executable, ROOT / "notebooks" / f"{name}.py"],
        cwd=tmp_path,
        env=environment() | {"MPLBACKEND": "Agg"},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    for answer in ANSWERS[name]:
        assert re.search(answer, done.stdout), (answer, done.stdout)
