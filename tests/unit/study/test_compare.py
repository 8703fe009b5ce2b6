"""compare: two run directories side by side, paired where seeds are the same."""

import json
import re

import numpy as np
import pytest
from scipy import stats

from optsde.analysis import Estimate, above
from optsde.study.compare import main
from optsde.study.parts import Parts


@pytest.fixture
def made(tmp_path):
    """Writes a run directory as a study leaves it; returns its path."""

    def make(name, losses, seed=0, mean=9.0, study="toy", times=(5.0, 10.0), **more):
        folder = tmp_path / name
        folder.mkdir()
        config = {"study": "digits", "seed": seed, "seeds": len(losses), **more}
        (folder / "config.json").write_text(json.dumps(config))
        verdict = above("rises", Estimate(mean, 1.0, 9), 0.0, "%").to_json()
        summary = {"experiment": study, "status": "done", "verdicts": [verdict]}
        (folder / "summary.json").write_text(json.dumps(summary))
        sgd = {
            "loss": np.stack([np.ones(len(losses)), losses], axis=1),
            "loss@times": np.array(times),
            "test_accuracy": np.full((len(losses), 2), 0.5),
        }
        sde = {"loss": np.ones((len(losses) + 1, 2))}
        Parts(folder / "curves").write({"sgd": sgd, "sde": sde})
        return str(folder)

    return make


def test_it_says_what_differs(made, capsys):
    rng = np.random.default_rng(0)
    first = rng.normal(size=16)
    second = first + 1 + 0.01 * rng.normal(size=16)
    a = made("a", first, optimizer={"lr": 0.1, "b1": 0.9})
    b = made("b", second, mean=0.1, optimizer={"lr": 0.2, "b1": 0.9}, ells=[1, 2])
    assert main([a, b]) == 0
    out = capsys.readouterr().out
    assert re.search(r"optimizer.lr +0.1 +0.2\n", out)
    assert re.search(r"ells +— +1,2\n", out)
    assert "b1" not in out
    assert re.search(r"rises +9 \[.*\] +holds +0.1 \[.*\] +open +differs\n", out)
    row = next(line for line in out.splitlines() if "sgd/loss" in line)
    low, high = map(float, re.search(r"\[(\S+), (\S+)\]", row).groups())
    exact = stats.ttest_rel(second, first).confidence_interval(0.95)
    np.testing.assert_allclose([low, high], exact, rtol=6e-3)
    assert "95%, paired by seed" in out
    assert "the same, bit for bit: sgd/test_accuracy" in out
    assert "sde" not in out
    assert "made at a revision that is not recorded" in out


def test_other_seeds_are_not_paired(made, capsys):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=16), rng.normal(size=16) + 1
    assert main([made("a", first), made("b", second, seed=1)]) == 0
    out = capsys.readouterr().out
    assert "seeds not paired" in out
    row = next(line for line in out.splitlines() if "sgd/loss" in line)
    low, high = map(float, re.search(r"\[(\S+), (\S+)\]", row).groups())
    welch = stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose([low, high], welch, rtol=6e-3)


def test_ends_at_other_times_are_not_compared(made, capsys):
    a, b = made("a", np.ones(4)), made("b", np.zeros(4), times=(5.0, 20.0))
    assert main([a, b]) == 0
    out = capsys.readouterr().out
    assert "not compared, they end at other times: sgd/loss" in out
    assert "all 3 settings are the same" in out


def test_a_verdict_of_an_older_version_is_no_outcome(made, tmp_path, capsys):
    a, b = made("a", np.ones(4)), made("b", np.ones(4), mean=-9.0)
    file = tmp_path / "b" / "summary.json"
    summary = json.loads(file.read_text())
    del summary["verdicts"][0]["fails"]
    file.write_text(json.dumps(summary))
    assert main([a, b]) == 0
    assert re.search(r"holds .* does not hold +differs", capsys.readouterr().out)


def test_bad_input_is_one_line(made, tmp_path, capsys):
    a, other = made("a", np.ones(4)), made("b", np.ones(4), study="svag")
    (tmp_path / "empty").mkdir()
    for argv, says in (
        ([a], "the following arguments are required: DIR"),
        ([a, str(tmp_path / "empty")], "empty has no config.json: needs the directory"),
        ([a, str(tmp_path / "nowhere")], "nowhere has no config.json"),
        ([a, other], "is a run of toy.digits, "),
    ):
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert error.startswith("experiments.compare: ")
        assert (says in error, error.count("\n")) == (True, 1), error
