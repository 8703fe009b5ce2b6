"""A config file of one's own: what of it a study takes, and what is refused."""

import dataclasses
import sys
import types

import numpy as np
import pytest

from optsde.analysis import above, estimate, table
from optsde.optimizers import SGD, Adam, Optimizer
from optsde.plans import Plan, scale
from optsde.study import (
    LabelSettings,
    Package,
    Result,
    Seeds,
    Study,
    UsageError,
    build_task,
    setting,
)
from optsde.study.results import call, of_plan


class Settings(LabelSettings, Seeds):
    optimizer: Optimizer = setting(SGD(lr=0.1), "what is run")
    batch_size: int = setting(4, "examples of a step", at_least=1)
    train_size = 32


def simulate(s, rundir, task):
    print(f"{s.optimizer} on {len(task.train[0])}")
    return np.arange(s.seeds) + s.batch_size


def tables(s, runs):
    yield table(["runs"], [[f"{x}"] for x in runs], "r")


def claims(s, runs):
    yield above("positive", estimate(runs), 0.0, "of nothing")


STUDY = Study(
    "pack.first", Settings, simulate, tables=tables, claims=claims, task=build_task
)
FIXED = dataclasses.replace(STUDY, name="pack.second", fixed_task="its net is it")
NONE = dataclasses.replace(STUDY, name="pack.third", task=None)
OWN = """
import numpy as np
import optsde
from optsde import data, models
from optsde.study import Preset, task_of

def task(config):
    x = np.random.RandomState(config.seed).randn(40, 3)
    return task_of(data.from_arrays(x, (x[:, 0] > 0).astype(int)), models.MLP((4, 2)))

PRESETS = {
    "adam": Preset("mine", dict(optimizer=optsde.Adam(lr=0.01), seeds=3, horizon=8.0,
                                pack=dict(batch_size=2))),
    "typo": Preset("", dict(paks=dict(batch_size=2))),
    "wrong": Preset("", dict(pack=dict(size=2))),
    "bare": Preset("", dict(pack=3)),
    "old": "a text",
}
"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs a package's command in an empty folder; returns (code, stdout, stderr)."""
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("optsde.study.launch._prepare_devices", lambda *_: None)

    for study in (STUDY, FIXED, NONE):
        module = types.ModuleType(study.name, "A question.")
        monkeypatch.setitem(sys.modules, study.name, module)

    def run(*arguments, studies=(FIXED, STUDY, NONE)):
        monkeypatch.setattr(sys, "argv", ["pack", "--workdir=run", *arguments])
        try:
            Package("pack", "A pack.", studies).main()
            code = 0
        except SystemExit as leaving:
            code = leaving.code or 0
        return code, *capsys.readouterr()

    return run


def test_a_preset_sets_what_the_study_has_and_says_what_it_has_not(command):
    code, out, err = command("--config=mine.py:adam", "--config.train_size=9")
    assert code == 0, err
    assert "Adam(lr=0.01" in out
    assert "on 32\n" in out  # of its own 40 examples, four fifths
    rows = [line.strip() for line in out.partition("runs\n")[2].splitlines()]
    assert rows[1:4] == ["2", "3", "4"]
    assert "pack (first) has no setting horizon; mine.py:adam sets it for others" in err
    assert "note: net and data are those of mine.py: train_size counts only" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--config=mine.py:none"],
            "no such preset; one of: adam, typo, wrong, bare",
        ),
        (["--config=mine.py:typo"], "paks is no setting and no study; studies: pack"),
        (["--config=mine.py:wrong"], "--config.size: no such setting"),
        (["--config=mine.py:bare"], "pack=3: needs the settings of that study, as pac"),
        (["--config=mine.py:old"], "mine.py:old: needs Preset(text, dict(…))"),
        (
            ["--config=mine.py", "--config.study=second"],
            "the study second takes no task: its net is it; these do: first",
        ),
        (
            ["--config=mine.py", "--config.study=third"],
            "the study third takes no task: it trains no net on data; these do: first",
        ),
        (["--config=mine.py", "--config.study=x"], "study=x: needs one of second, fir"),
    ],
)
def test_what_is_refused_is_one_line_and_leaves_nothing(
    command, tmp_path, arguments, says
):
    code, _, err = command(*arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert says in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return None", "task(config) returns NoneType: needs an optsde.run.Task"),
        ("return data.load('x.csv')", "task(config): x.csv: no such file or folder"),
    ],
)
def test_a_task_that_is_none_is_refused(command, tmp_path, body, says):
    lines = OWN.partition("    x = np")[0] + f"    {body}\n\nPRESETS = "
    (tmp_path / "mine.py").write_text(lines + OWN.partition("PRESETS = ")[2])
    code, _, err = command("--config=mine.py")
    assert (code, says in err) == (2, True), err
    assert not (tmp_path / "run").exists()


def test_a_file_without_either_is_told_how_to_begin(command, tmp_path):
    (tmp_path / "mine.py").write_text("PRESETS = {}")
    code, _, err = command("--config=mine.py")
    assert code == 2
    assert "`python -m experiments new FILE.py` writes an example" in err


def test_accuracy_needs_labels(command, tmp_path):
    numbers = OWN.replace("(x[:, 0] > 0).astype(int)", "x[:, 0]").replace(
        "4, 2", "4, 1"
    )
    (tmp_path / "mine.py").write_text(numbers)
    code, out, _ = command("--config=mine.py")
    assert code == 0
    assert out.startswith("pack, preset adam, on ")  # the first of the file
    judging = dataclasses.replace(STUDY, by_accuracy=True)
    code, _, err = command("--config=mine.py", "--workdir=b", studies=(judging,))
    assert (code, "the study first judges by accuracy" in err) == (2, True)
    assert not (tmp_path / "b").exists()


# ---- as functions


def test_a_call_returns_what_is_printed_and_the_numbers(capsys):
    plan = Plan(optimizer=Adam(lr=0.01), batch_size=8, horizon=10)
    given = of_plan(plan, dict(seeds=3), ("optimizer", "batch_size"))
    found = call(STUDY, Settings(**given), build_task(Settings()))
    assert isinstance(found, Result)
    np.testing.assert_array_equal(found.runs, [8, 9, 10])
    assert [verdict.claim for verdict in found.verdicts] == ["positive"]
    assert str(found).startswith("Adam(lr=0.01")
    assert "runs\n" in str(found)
    assert "positive" in str(found)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("plan", "given", "says"),
    [
        (dict(), dict(batch_size=3), "batch_size: is the plan or the task's"),
        (dict(), dict(dataset="a"), "dataset: is the task's; set it there"),
        (
            dict(kappa=2),
            dict(),
            "has dt=2 and noise_gain=1; needs the plan",
        ),
    ],
)
def test_what_the_plan_says_is_not_said_twice(plan, given, says):
    base = Plan(optimizer=SGD(lr=0.1), batch_size=8, horizon=10)
    made = scale(base, **plan) if plan else base
    with pytest.raises(UsageError, match=says.replace("(", r"\(")):
        of_plan(made, given, ("optimizer", "batch_size"))
