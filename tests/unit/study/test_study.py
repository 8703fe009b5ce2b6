"""A study in a test: command line, cache, resuming, verdict table and figure."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from optsde.analysis import above, estimate, table
from optsde.analysis.plots import new_figure, save
from optsde.gradients import diagonal, gaussian
from optsde.optimizers import SGD, Optimizer
from optsde.optimizers.base import REGISTRY
from optsde.plans import Plan
from optsde.run.loop import DivergedError
from optsde.study import (
    Arm,
    Group,
    Numbers,
    Package,
    Seeds,
    Study,
    UsageError,
    launch,
    provenance,
    setting,
    train,
)
from optsde.study.shapes import HYPERPARAMETERS


class Settings(Seeds):
    rates: Numbers = setting(
        (0.1, 0.5), "learning rate of each arm", above=0, entries=1
    )
    steps: int = setting(20, "steps of a run", at_least=1)
    every: int = setting(5, "steps between measurements", at_least=1)
    optimizer: Optimizer = setting(SGD(lr=0.1), "what is run")
    options: dict = setting({"hidden": (8,), "dtype": ""}, "of the model")
    shuffle: bool = setting(False, "drawn anew")
    seeds = 4

    def demands(self):
        yield from super().demands()
        yield self.steps % self.every == 0, "steps", f"a multiple of every={self.every}"


def run_arm(s, rate):
    noise = np.random.RandomState(s.seed).rand(s.seeds)
    return {"loss": (1 - rate) ** s.steps * (1 + noise)}


def simulate(s, rundir):
    return {r: rundir.once(f"lr {r:g}", lambda r=r: run_arm(s, r)) for r in s.rates}


def tables(s, runs):
    rows = [[rate, f"{arm['loss'].mean():.3g}"] for rate, arm in runs.items()]
    yield table(["lr", "loss"], rows, "rr")


def claims(s, runs):
    first, *others = runs
    for rate in others:
        gain = estimate(runs[first]["loss"] - runs[rate]["loss"])
        yield above(f"{rate:g}_ends_lower", gain, 0.0, "of loss")


def figure(s, runs, path):
    drawing, (ax,) = new_figure(1)
    ax.plot(list(runs), [arm["loss"].mean() for arm in runs.values()])
    save(drawing, path)


STUDY = Study(
    __name__, Settings, simulate, tables=tables, claims=claims, figures={"loss": figure}
)
CONFIG = """
from test_study import Settings
from optsde.study import Preset, presets

PRESETS = {
    "two": Preset("two arms", Settings(known_false=("0.01_ends_lower",))),
    "three": Preset("three arms", Settings(rates=(0.1, 0.5, 0.01), shuffle=True)),
}
DEFAULT = "two"
get_config = presets(PRESETS, DEFAULT)
"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs the study by a command line; returns (exit code, stdout, stderr)."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "toy.py").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("optsde.study.launch._prepare_devices", lambda *_: None)

    def call(*arguments, study=STUDY):
        monkeypatch.setattr(sys, "argv", ["toy", *arguments])
        try:
            Package("toy", "A toy.", (study,)).main()
            code = 0
        except SystemExit as leaving:
            code = leaving.code or 0
        return code, *capsys.readouterr()

    return call


def test_a_run_leaves_a_table_verdicts_a_figure_and_a_summary(command, tmp_path):
    code, out, err = command("--workdir=run", "--config=configs/toy.py:three")
    assert code == 0, err
    words = ("────", "0.5_ends_lower", "holds", "fails")
    assert all(word in out for word in words)
    places = (
        "figures: run/figures\nsummary: run/summary.json\nreport: run/report.html\n"
    )
    assert out.endswith(f"\n\n{places}")
    run = tmp_path / "run"
    assert {file.name for file in run.iterdir()} == {
        "config.json",
        "curves",
        "figures",
        "made.jsonl",
        "meta.json",
        "report.html",
        "summary.json",
    }
    assert (run / "figures" / "loss.png").exists()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "done"
    assert [v["holds"] for v in summary["verdicts"]] == [True, False]
    assert [v["fails"] for v in summary["verdicts"]] == [False, True]
    assert json.loads((run / "config.json").read_text())["study"] == "test_study"


def test_what_is_known_to_fail_is_not_expected(command):
    rates, known = "--config.rates=0.1,0.01", "--config.known_false="
    _, out, err = command("--workdir=known", rates)
    assert "fails, as expected\n" in out
    assert "note" not in err
    _, out, _ = command("--workdir=unknown", rates, known)
    assert "fails\n" in out
    _, _, err = command("--workdir=other", rates, f"{known}0.01_ends_lower,typo")
    assert "known_false names no claim of this run: typo" in err


def test_an_interrupted_run_goes_on_with_the_missing_arms(
    command, tmp_path, monkeypatch
):
    ran, finish = [], run_arm

    def failing(s, rate):
        ran.append(rate)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return finish(s, rate)

    monkeypatch.setattr(sys.modules[__name__], "run_arm", failing)
    code, _, err = command("--workdir=run")
    assert code == 130
    assert "interrupted; the same command goes on" in err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    code, out, _ = command("--workdir=run")
    assert code == 0
    assert ran == [0.1, 0.5, 0.5]
    assert "lr 0.1: read from run" in out
    code, out, _ = command("--workdir=run")
    assert out.count("read from") == 2
    assert len(ran) == 3


@pytest.fixture
def edited(monkeypatch):
    """Returns a function after which the code is that of another revision."""

    def edit(revision, **changes):
        other = {**provenance._code(), "revision": revision, "code": revision}
        monkeypatch.setattr(provenance, "_code", lambda: other | changes)

    return edit


def test_old_curves_remember_the_code_that_made_them(command, tmp_path, edited):
    def stored(file):
        return json.loads((tmp_path / "run" / file).read_text())

    edited("aaa")
    _, out, _ = command("--workdir=run")
    assert "note" not in out
    before = stored("meta.json")
    assert before["revision"] == stored("summary.json")["judged"]["revision"] == "aaa"
    edited("bbb")
    _, out, _ = command("--workdir=run")
    assert "note: 2 parts made at aaa, judged at bbb; --fresh makes all anew" in out
    assert stored("meta.json") == before
    assert stored("summary.json")["judged"]["revision"] == "bbb"
    edited("bbb", versions={"optsde": "1", "jax": "0.0"})
    assert "2 parts made at aaa with jax" in command("--workdir=run")[1]
    (tmp_path / "run" / "made.jsonl").unlink()
    _, out, _ = command("--workdir=run")
    assert "2 parts made at a revision that is not recorded, judged at bbb" in out


def test_a_repository_around_an_installed_package_is_not_its_revision(
    tmp_path, monkeypatch
):
    """git tracks the file in the one place, and in the other it lies untracked."""

    def git(*arguments):
        given = ["-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
        subprocess.run(["git", *given], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    for name in ("tracked", "untracked"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "provenance.py").touch()
    git("add", "tracked")
    git("commit", "-m", "a file")
    found = []
    for name in ("tracked", "untracked"):
        place = str(tmp_path / name / "provenance.py")
        monkeypatch.setattr(provenance, "__file__", place)
        found.append(provenance._revision())
    assert found[0]
    assert found[1] is None


def test_an_edit_within_one_revision_is_told(command, edited):
    edited("aaa", code="x")
    command("--workdir=run")
    edited("aaa", code="y")
    assert "2 parts made at aaa, then edited, judged" in command("--workdir=run")[1]


def test_fresh_moves_the_old_run_aside_and_begins_anew(command, tmp_path, edited):
    edited("aaa")
    command("--workdir=run")
    edited("bbb")
    code, out, err = command("--workdir=run", "--fresh", "--config.steps=25")
    assert code == 0, err
    assert "the run that was here is moved to run.1" in out
    assert "read from" not in out
    assert "note" not in out
    revisions = [
        json.loads((tmp_path / place / "meta.json").read_text())["revision"]
        for place in ("run.1", "run")
    ]
    assert revisions == ["aaa", "bbb"]
    assert "moved to run.2" in command("--workdir=run", "--fresh")[1]
    assert command("--workdir=new", "--fresh")[0] == 0
    assert not (tmp_path / "new.1").exists()


def test_fresh_moves_no_other_files_and_takes_back_what_comes_to_nothing(
    command, tmp_path
):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    code, _, err = command("--workdir=mine", "--fresh")
    assert (code, "holds other files" in err) == (2, True)
    assert command("--workdir=run")[0] == 0

    def refusing(s, rundir):
        raise UsageError("--config.model=mlp: needs another")

    study = Study(__name__, Settings, refusing)
    assert command("--workdir=run", "--fresh", study=study)[0] == 2
    assert (tmp_path / "run" / "summary.json").exists()
    assert sorted(x.name for x in tmp_path.iterdir()) == ["configs", "mine", "run"]


def test_a_task_that_was_edited_is_another_run(command, tmp_path):
    def simulate(s, rundir, task):
        rundir.once("arm", lambda: {"loss": np.zeros(1)})

    study = Study(__name__, Settings, simulate, task=lambda s: 0)
    own = tmp_path / "own.py"
    text = CONFIG + "\nfrom types import SimpleNamespace as Net\ndef task(config):\n"
    own.write_text(text + "    return Net(losses=1)\n")
    call = ("--config=own.py", "--workdir=run")
    assert command(*call, study=study)[0] == 0
    assert command(*call, study=study)[0] == 0
    own.write_text(text + "    return Net(losses=2)\n")
    code, _, err = command(*call, study=study)
    assert (code, err.count("\n")) == (2, 1)
    assert f"run holds a run made with another {own}; name another directory" in err
    assert command(*call, "--fresh", study=study)[0] == 0
    assert command("--config=own.py", study=study)[0] == 0
    own.write_text(text + "    return Net(losses=3)\n")
    assert "read from" not in command("--config=own.py", study=study)[1]


@pytest.mark.parametrize("name", ["photos", "~/photos", "./photos"])
def test_data_that_changed_is_another_run(tmp_path, monkeypatch, name):
    class Named(Settings):
        dataset: str = setting("digits", "a set, or a path")

    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "photos" / "cat" / "0.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"one")
    monkeypatch.chdir(tmp_path)
    first = launch._sources(Named(dataset=name), "")
    assert list(first) == [str(tmp_path / "photos")]
    file.write_bytes(b"two")
    assert launch._sources(Named(dataset=name), "") != first
    assert launch._sources(Named(), "") == {}


def test_a_large_folder_is_told_by_times(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "SMALL", 2)
    file = tmp_path / "0.png"
    file.write_bytes(b"one")
    first = provenance.digest(tmp_path)
    assert provenance.digest(tmp_path) == first
    os.utime(file, ns=(0, 0))
    assert provenance.digest(tmp_path) != first


def test_a_place_that_can_be_made_by_nobody_is_refused(command, tmp_path):
    """Even root makes no directory in /proc, and no access bit says so."""
    code, _, err = command("--workdir=/proc/optsde/run")
    assert (code, err.count("\n")) == (2, 1), err
    assert "--workdir=/proc/optsde/run cannot be written" in err


def test_writers_that_are_missing_are_refused_before_anything(
    command, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    code, out, err = command("--writers=wandb")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--writers: writer 'wandb' needs wandb: pip install optsde[wandb]" in err
    code, _, err = command("--writers=visdom")
    assert (code, "needs one of tensorboard, wandb" in err) == (2, True)
    assert not (tmp_path / "runs").exists()


def test_an_error_of_the_simulation_leaves_no_parents_either(command, tmp_path):
    def refusing(s, rundir):
        raise UsageError("--config.model=mlp: needs another")

    assert command(study=Study(__name__, Settings, refusing))[0] == 2
    assert not (tmp_path / "runs").exists()


def test_writers_take_the_rows_of_every_run(command, tmp_path):
    pytest.importorskip("tensorboardX")
    plan = Plan(optimizer=SGD(lr=0.1), batch_size=1, horizon=4)

    def simulate(s, rundir):
        arms = [
            Arm(f"lr {x:g}", dataclasses.replace(plan, optimizer=SGD(lr=x)))
            for x in s.rates
        ]
        sampler = gaussian(lambda x: jnp.sum(x**2), diagonal(jnp.ones_like))
        start = jnp.ones(2)
        train(
            arms, sampler, start, s.keys(), keep=rundir.once_all, every=2, label="both"
        )

    study = Study(__name__, Settings, simulate)
    assert command("--workdir=run", "--writers=tensorboard", study=study)[0] == 0
    (events,) = (tmp_path / "run" / "tensorboard" / "both").iterdir()
    content = events.read_bytes()
    assert b"lr 0.1/loss" in content or b"lr_0.1/loss" in content
    assert b"lr 0.5/loss" in content or b"lr_0.5/loss" in content


def test_a_place_that_cannot_be_written_is_refused(command, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place in ("file", "file/below", "loop", "loop/below"):
        code, out, err = command(f"--workdir={place}")
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert "name a" in err
    monkeypatch.setattr("os.access", lambda path, mode: False)
    code, out, err = command("--workdir=run")
    assert (code, out) == (2, "")
    assert f"{tmp_path} cannot be written; name another place" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("file", ["config.json", "meta.json", "made.jsonl"])
@pytest.mark.parametrize("content", ["[]", "3", "{", "\\x00"])
def test_a_damaged_file_is_named(file, content, command, tmp_path):
    command("--workdir=run")
    (tmp_path / "run" / file).write_text(content + "\n")
    code, _, err = command("--workdir=run")
    assert (code, err.count("\n")) == (2, 1), err
    assert f"run/{file} is damaged" in err


def test_a_run_directory_keeps_to_its_settings(command):
    assert command("--workdir=run")[0] == 0
    code, _, err = command("--workdir=run", "--config.steps=25")
    assert code == 2
    assert "holds a run with other settings (steps)" in err


def test_a_run_is_judged_again_where_a_claim_is_known_false(command, tmp_path):
    rates = "--config.rates=0.1,0.01"
    assert command("--workdir=run", rates, "--config.known_false=")[0] == 0
    code, out, err = command("--workdir=run", rates)
    assert (code, err) == (0, "")
    assert "read from" in out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    expected = {v["claim"]: v["expected"] for v in summary["verdicts"]}
    assert expected["0.01_ends_lower"] is False


def test_divergence_is_a_status(command, tmp_path):
    def diverging(s, rundir):
        raise DivergedError("lr 0.1 between t = 0 and 5")

    study = Study(__name__, Settings, diverging)
    code, _, err = command("--workdir=run", study=study)
    assert code == 1
    assert err == "experiments.toy: diverged: lr 0.1 between t = 0 and 5\n"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "diverged"


def test_an_error_of_the_simulation_withdraws_the_directory(command, tmp_path):
    def refusing(s, rundir):
        raise UsageError("--config.model=mlp: needs another")

    code, _, err = command("--workdir=run", study=Study(__name__, Settings, refusing))
    assert (code, err.count("\n")) == (2, 1)
    assert not (tmp_path / "run").exists()


def test_a_config_file_may_bring_its_own_task(command, tmp_path):
    tasks = []

    def simulate(s, rundir, task):
        tasks.append(getattr(task, "losses", task))

    study = Study(__name__, Settings, simulate, task=lambda s: f"seed {s.seed}")
    own = "\nfrom types import SimpleNamespace\ndef task(config):\n"
    own += "    return SimpleNamespace(losses=f'own, seed {config.seed}')\n"
    (tmp_path / "own.py").write_text(CONFIG + own)
    assert command("--workdir=a", study=study)[0] == 0
    assert command("--workdir=b", "--config=own.py", study=study)[0] == 0
    assert tasks == ["seed 0", "own, seed 0"]
    code, _, err = command("--config=own.py")
    assert code == 2
    assert "defines task(config), and the study test_study takes no task" in err


def test_dry_run(command, tmp_path):
    study = Study(__name__, Settings, simulate, dry_run=lambda s: print(s.rates))
    assert command("--dry_run", study=study)[:2] == (0, "(0.1, 0.5)\n")
    code, _, err = command("--dry_run")
    assert code == 2
    assert "--dry_run: the study test_study has none; of experiments.toy these" in err
    assert "--dry_run" not in command("--help")[1]
    assert "--dry_run" in command("--help", study=study)[1]
    assert "--flops" not in command("--help", study=study)[1]
    for argument in ("--dry_run", "--nodry_run"):
        code, _, err = command(argument, "--flops=1e14", study=study)
        assert (code, err.count("\n")) == (2, 1)
        assert "--flops: is for --dry_run of a study that says its costs" in err
    machines = []
    says = dict(dry_run=lambda s, **machine: machines.append(machine), says_costs=True)
    study = Study(__name__, Settings, simulate, **says)
    assert command("--dry_run", "--flops=1e14", study=study)[0] == 0
    assert command("--dry_run", "--pod=256", study=study)[0] == 0
    assert command("--dry_run", study=study)[0] == 0
    assert machines == [{"flops": 1e14}, {"pod": 256}, {}]
    wire = "--bandwidth=5e10", "--share=.3", "--memory=8e10"
    assert command("--dry_run", *wire, study=study)[0] == 0
    assert machines[-1] == {"bandwidth": 5e10, "share": 0.3, "memory": 8e10}
    assert command("--dry_run", "--share=2", study=study)[0] == 2
    assert command("--dry_run", "--flops=fast", study=study)[0] == 2
    assert command("--dry_run", "--pod=0", study=study)[0] == 2
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config=configs/toy.py:too"], "such preset; one of: two, three"),
        (["--config=configs/nope.py"], "--config=configs/nope.py: no such file"),
        (["--config"], "Missing value for flag --config"),
        (["--config.sedes=3"], "did you mean seeds? allowed: known_false, seed"),
        (["--config.optimizer.lt=1"], "did you mean optimizer.lr?"),
        (["--config.optimizer=3"], "set one of optimizer.name, optimizer.lr"),
        (["--config.optimizer.name=adamw"], "one of: ada"),
        (["--config.optimizer.name=adam"], "it has the settings lr, l2"),
        (["--config.optimizer.lr=fast"], "needs a number, such as the default 0.1"),
        (["--config.optimizer.lr=-1"], "optimizer.lr=-1.0: needs a positive number"),
        (["--config.seeds=many"], "=many: needs an integer, such as the default 4"),
        (["--config.seeds=2.5"], "needs an integer"),
        (["--config.seeds=1"], "--config.seeds=1: needs at least 2, for standard"),
        (["--config.seed=-1"], "an integer from 0 to 2³¹ − 1"),
        (["--config.seed=2147483648"], "an integer from 0 to 2³¹ − 1"),
        (
            ["--config.rates=1,x"],
            "needs a list of numbers, such as the default 0.1,0.5",
        ),
        (["--config.rates="], "needs one or more positive numbers"),
        (["--config.rates=0.1,nan"], "0.1,nan: needs one or more positive numbers"),
        (["--config.rates=inf"], "needs one or more positive numbers"),
        (["--config.steps=21"], "--config.steps=21: needs a multiple of every=5"),
        (["--config.shuffle=maybe"], "--config.shuffle=maybe: "),
        (["--config.options.hidden=a"], "needs a list of integers"),
        (["--config.options.hiden.size=3"], "did you mean"),
        (["--config.study=other"], "--config.study=other: is set by the preset"),
        (["--nope=1"], "allowed: --config"),
        (["stray"], "'stray' is not a flag"),
        (["--devices=0"], "--devices=0"),
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_and_leaves_nothing(arguments, says, command, tmp_path):
    code, out, err = command("--workdir=run", *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("experiments.toy: ")
    assert says in err
    assert not (tmp_path / "run").exists()


def test_flags_are_read_by_the_type_of_the_setting(command, tmp_path):
    arguments = ["--config.rates=(1,0.5)", "--config.seeds", "3", "--config.seeds=5"]
    arguments += ["--noconfig.shuffle", "--config.options.hidden=4,4"]
    arguments += ["--config.options.depth=3", "--config.options.bias=False"]
    preset = ["--config", "configs/toy.py:three", "--workdir", "run"]
    code, _, err = command(*preset, *arguments, "--config.optimizer.lr=1")
    assert code == 0, err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["rates"] == [1.0, 0.5]
    assert config["seeds"] == 5
    assert config["shuffle"] is False
    options = {"hidden": [4, 4], "dtype": "", "depth": 3, "bias": False}
    assert config["options"] == options
    assert config["optimizer"]["lr"] == 1.0


def test_help_has_presets_settings_and_meanings(command):
    code, out, _ = command("--help", "--config=configs/toy.py:three")
    assert code == 0
    for line in (
        "A toy.",
        "  two   two arms",
        "  --config.rates=0.1,0.5,0.01          learning rate of each arm; one or more",
        "  --config.seeds=4                     runs of each arm; at least 2",
        "  --config.optimizer.lr=0.1            learning rate; a positive number",
        "  --config.options.dtype=''            of the model",
        "--workdir=DIR",
    ):
        assert line in out


def test_help_has_what_matters_first(command):
    _, out, _ = command("--help")
    _, first, others = re.split("that matter first.*|the others:", out)
    assert [*re.findall(r"--config\.([\w.]+)=", first)] == [
        *("seeds", "steps", "optimizer.name", "optimizer.lr"),
    ]
    assert "--config.known_false" in others


def test_help_shows_a_table_once(command):
    class Row(Group):
        clip: float = setting(0.0, "largest norm", zero="any", at_least=0)
        depth: int = setting(2, "layers", at_least=1)

    class Many(Settings):
        rows: dict[str, Row] = setting({"a": Row(), "b": Row(depth=3)}, "what is run")

        @classmethod
        def study(cls):
            return "test_study"

    _, out, _ = command("--help", study=Study(__name__, Many, simulate))
    table = out.split("of each NAME among a, b:\n")[1].splitlines()
    assert [" ".join(line.split()) for line in table] == [
        "--config.rows.NAME.clip=0.0 largest norm; 0, as here, means any; a number ≥ 0",
        "--config.rows.NAME.depth=… layers; an integer ≥ 1",
    ]
    assert "rows.a" not in out


def test_every_hyperparameter_is_explained():
    for name, family in REGISTRY.items():
        for field in dataclasses.fields(family):
            assert field.name in HYPERPARAMETERS, name


def test_a_config_file_may_be_written_by_hand(command, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from ml_collections import ConfigDict\n"
        "PRESETS = {'mine': 'by hand'}\n"
        "def get_config(preset='mine'):\n"
        "    return ConfigDict({'rates': [0.2, 0.3], 'seed': 1})\n"
    )
    code, _, err = command("--config=mine.py", "--workdir=run", "--config.steps=10")
    assert code == 0, err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["rates"], config["seed"], config["steps"]) == ([0.2, 0.3], 1, 10)
    (tmp_path / "bad.py").write_text("def get_config(:")
    assert "SyntaxError" in command("--config=bad.py")[2]
