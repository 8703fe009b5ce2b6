"""python -m experiments: the list of studies, and the file to begin with."""

import dataclasses
import importlib.util
from importlib import metadata

import pytest
from helpers import ROOT, run_study

import experiments.__main__ as listing
from experiments import scaling, svag
from optsde.optimizers import EMA
from optsde.plans import Plan
from optsde.study import UsageError, own, provenance


@pytest.fixture
def example(tmp_path):
    """The module of the file that `new` writes."""
    listing.write(tmp_path / "mine.py")
    spec = importlib.util.spec_from_file_location("mine", tmp_path / "mine.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_study_is_listed_with_its_question(capsys):
    listing.main([])
    out = capsys.readouterr().out
    names = {file.parent.name for file in ROOT.glob("experiments/*/__main__.py")}
    lines = dict(line.split(maxsplit=1) for line in out.split("\n\n")[0].splitlines())
    assert set(lines) == names
    assert lines["svag"].startswith("Does the SDE describe training?")
    assert "python -m experiments new my_run.py" in out


def test_the_version(capsys):
    listing.main(["--version"])
    assert capsys.readouterr().out == f"optsde {metadata.version('optsde')}\n"


def test_the_version_where_it_is_not_installed(capsys, monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert provenance._versions()["optsde"] == "not installed"
    listing.main(["--version"])
    assert capsys.readouterr().out == "optsde not installed\n"


def test_a_file_is_written_once(tmp_path, capsys):
    file = tmp_path / "mine.py"
    listing.main(["new", str(file)])
    assert f"experiments.svag --config={file}:adamw" in capsys.readouterr().out
    assert f"--config={file}:adamw" in file.read_text()
    file.write_text("edited")
    for name, says in (
        (file, "is there already: name another, or remove it"),
        (tmp_path / "mine.txt", "needs a name that ends with .py"),
        (tmp_path / "none" / "mine.py", "no such folder"),
    ):
        with pytest.raises(SystemExit, match="2"):
            listing.main(["new", str(name)])
        err = capsys.readouterr().err
        assert says in err
        assert err.count("\n") == 1
    assert file.read_text() == "edited"
    assert [x.name for x in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.parametrize("package", ["svag", "scaling", "fullbatch", "intrinsic_lr"])
def test_the_example_suits_every_study(example, package):
    assert own.is_own(example)
    studies = importlib.import_module(f"experiments.{package}").PACKAGE.studies
    for preset in example.PRESETS.values():
        _, s = own.settings_for(package, studies, "mine.py", preset.settings, None)
        s.checked()


TAKEN = {
    "batches": {"critical", "growing"},
    "catapults": {"batch_edge", "edge"},
    "descent": {"l2_vs_weight_decay", "lengths", "schedules"},
    "fullbatch": {"batches", "growth", "orders", "row", "sharpness", "table"},
    "intrinsic_lr": {
        "equilibrium",
        "same_product",
        "decay",
        "only_the_last",
        "swa",
        "full_batch",
        "momentum",
        "early",
        "mixing",
        "rotation",
    },
    "landscape": {"around", "between"},
    "scaling": {"classes", "families", "half_life", "optimum", "rows", "rule"},
    "svag": {"curves", "whole"},
    "sweep": {"grid", "timescale"},
}


@pytest.mark.parametrize(("package", "names"), TAKEN.items())
def test_which_studies_take_a_task_of_ones_own(package, names):
    studies = importlib.import_module(f"experiments.{package}").PACKAGE.studies
    for study in studies:
        if study.key in names:
            own.refuse(study, studies, "mine.py")
        else:
            with pytest.raises(UsageError, match=r"takes no task: .*[^\n]$"):
                own.refuse(study, studies, "mine.py")
    assert names <= {study.key for study in studies}


def test_a_note_tells_only_of_what_a_study_has_not(example, capsys):
    settings = example.PRESETS["adamw"].settings
    own.settings_for("svag", svag.PACKAGE.studies, "mine.py", settings, None)
    assert capsys.readouterr().err == ""
    with pytest.raises(UsageError, match="did you mean scaling"):
        own.settings_for(
            "svag", svag.PACKAGE.studies, "m", {"scalling": {"seeds": 3}}, None
        )


SCALING = dict(evaluations=4, kappas=(2,), ells=(), seeds=3, rules=("rule", "fixed"))
SCALING |= dict(probe_seeds=2, draws=32)
SVAG = dict(ells=(1, 2), small_batches=(), seeds=2, sde_seeds=2, curve_every=4)


def half(t):
    """A schedule that no setting can say."""
    return 1 - t / 32


def test_every_arm_is_of_the_plan_that_is_given(example):
    plan = Plan(optimizer=example.ADAMW, batch_size=4, horizon=16, schedule=half)
    arms = scaling.rule.arms(scaling.rule.of_plan(plan, **SCALING).checked())
    assert {arm.name: arm.plan.schedule(16) for arm in arms} == {
        "base": 0.5,
        "kappa2/rule": 0.5,
        "kappa2/fixed": 0.5,
    }
    s = svag.curves.of_plan(plan, times=(4, 8), **SVAG).checked()
    for made in svag.curves.plans(s).values():
        assert (made.schedule(16), made.horizon) == (0.5, 8)
    with pytest.raises(UsageError, match="clip: is the plan or the task's"):
        scaling.rule.of_plan(plan, clip=1.0)
    averaged = dataclasses.replace(plan, average=EMA(0.9))
    with pytest.raises(UsageError, match=r"plan.average=EMA\(.*average=None\)"):
        scaling.rule.of_plan(averaged)
    with pytest.raises(UsageError, match="times=20: needs at most the horizon 16"):
        svag.curves.of_plan(plan, times=(20,))


@pytest.mark.full
def test_studies_as_functions(example):
    plan = Plan(optimizer=example.ADAMW, batch_size=4, horizon=16, schedule=half)
    task = example.task(None)
    found = scaling.run(task, plan, **SCALING)
    assert found.runs.foreseen.kappa > 0
    assert "rule_holds_at_2" in {verdict.claim for verdict in found.verdicts}
    for words in ("predicted: up to κ", "rule_holds_at_2", "foreseen", "noise scale"):
        assert words in str(found)
    found = svag.run(task, plan, times=(4, 8), **SVAG)
    assert found.runs["ell2"].shape == (2, 3)
    assert "discrete_matches_sde" in str(found)


@pytest.mark.full
@pytest.mark.parametrize(
    ("study", "preset"),
    [("svag", "adamw"), ("scaling", "momentum"), ("fullbatch", "adamw")],
)
def test_the_example_runs_as_it_is(tmp_path, study, preset):
    listing.write(tmp_path / "mine.py")
    run = run_study(study, f"--config=mine.py:{preset}", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    (place,) = (tmp_path / "runs" / study).glob(f"{preset}-*")
    assert (place / "summary.json").is_file()


@pytest.mark.full
def test_other_studies_train_the_example_too(tmp_path):
    listing.write(tmp_path / "mine.py")
    small = "--config.seeds=2", "--config.steps=60", "--config.every=20"
    run = run_study("catapults", "--config=mine.py", *small, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    run = run_study("intrinsic_lr", "--config=mine.py", cwd=tmp_path)
    assert run.returncode == 2
    assert "augment=edges: needs none or live: the inputs are no images" in run.stderr
    assert run.stderr.count("\n") == 2  # and the note
    none = "--config.augment=none"
    run = run_study("intrinsic_lr", "--config=mine.py", none, cwd=tmp_path)
    assert run.returncode == 2
    assert "are not scale invariant" in run.stderr
