"""The wheel, installed away from the checkout: studies and presets from any folder.

It is built by the setuptools that is installed, without a network.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser

import pytest
from helpers import ROOT, environment

pytestmark = pytest.mark.full
SOURCES = ("optsde", "experiments", "configs")
FILES = ("setup.py", "pyproject.toml", "README.md", "LICENSE")
TINY = [
    "--config.seeds=3",
    "--config.sde_seeds=3",
    "--config.ells=1,2",
    "--config.times=10",
    "--config.substeps=2",
    "--config.widths=8",
    "--config.small_batches=2",
]
HIDE = """
import runpy, sys
from importlib.machinery import PathFinder
class Hidden(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split(".")[0] not in {hidden}:
            return PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Hidden
"""
STUDIES = ("diffrax", "grain", "matplotlib", "sklearn")


def build(folder, source=None):
    """The wheel of a copy of the checkout, with an address of the project's."""
    for name in SOURCES:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    if source:
        project = folder / "pyproject.toml"
        urls = f'[project.urls]\nSource = "{source}"\n'
        project.write_text(project.read_text().replace("[project.urls]\n", urls))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", *options, "-w", folder, folder], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder of packages with optsde in it, as `pip install` leaves it."""
    target = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def python(installed, folder, *arguments):
    """A command in a folder, with the installed optsde before any other."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment() | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def description(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(x for x in archive.namelist() if x.endswith("/METADATA"))
        return Parser().parsestr(archive.read(name).decode()).get_payload()


def test_the_wheel_takes_two_names_and_says_that_it_is_typed(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0].split("-")[0] for name in names} == {
        "optsde",
        "experiments",
    }
    assert "optsde/py.typed" in names
    ours = [*ROOT.glob("optsde/**/*.*"), *ROOT.glob("experiments/**/*.*")]
    files = {str(x.relative_to(ROOT)) for x in ours if x.suffix != ".pyc"}
    assert files <= set(names)
    here = {
        f"experiments/{path.relative_to(ROOT)}" for path in ROOT.glob("configs/*.py")
    }
    assert here <= set(names)


@pytest.mark.parametrize("study", sorted(x.stem for x in ROOT.glob("configs/*.py")))
def test_every_study_says_its_presets_from_any_folder(installed, tmp_path, study):
    done = python(installed, tmp_path, "-m", f"experiments.{study}", "--help")
    assert done.returncode == 0, done.stderr
    assert f"--config=configs/{study}.py:PRESET" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_study_runs_in_an_empty_folder(installed, tmp_path):
    preset = "--config=configs/svag.py:digits"
    done = python(installed, tmp_path, "-m", "experiments.svag", preset, *TINY)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    (summary,) = tmp_path.rglob("summary.json")
    assert json.loads(summary.read_text())["status"] == "done"
    (figure,) = tmp_path.rglob("svag.png")
    assert figure.stat().st_size > 10_000


def test_a_file_of_the_same_name_comes_first(installed, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "svag.py").write_text("PRESETS = {'mine': 'my own'}\n")
    done = python(installed, tmp_path, "-m", "experiments.svag", "--help")
    assert done.returncode == 2
    assert "configs/svag.py: needs PRESETS, and task(config) or" in done.stderr


def test_an_unknown_file_is_one_line(installed, tmp_path):
    argument = "--config=configs/mine.py"
    done = python(installed, tmp_path, "-m", "experiments.svag", argument)
    assert done.returncode == 2
    assert "configs/mine.py: no such file; give a path, or a preset" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_library_needs_no_package_of_the_studies(installed, tmp_path):
    code = (
        HIDE.format(hidden=STUDIES)
        + """
import jax, jax.numpy as jnp, optsde
from optsde import analysis, data, dynamics, gradients, measure, models, run, study
base = optsde.Plan(optimizer=optsde.SGD(lr=0.1), batch_size=4, horizon=8)
print(optsde.explain(base, optsde.scale(base, 4)))
loss = lambda x: 0.5 * jnp.sum(x**2)
sampler = gradients.gaussian(loss, gradients.diagonal(jnp.ones_like))
arm = optsde.discrete(base, sampler, jnp.ones(3))
keys = jax.random.split(jax.random.key(0), 4)
print(optsde.ensemble(arm, keys, [8], lambda s: loss(s.params)).values.shape)
for need in (lambda: data.load("digits"), lambda: analysis.plots.new_figure(1)):
    try:
        need()
    except ImportError as error:
        print(error)
"""
    )
    done = python(installed, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "(4, 1)" in done.stdout
    assert done.stdout.count("pip install 'optsde[studies]'") == 2


def test_a_study_without_its_packages_is_one_line(installed, tmp_path):
    code = (
        HIDE.format(hidden=("matplotlib", "sklearn"))
        + """
sys.argv = ["-m"]
runpy.run_module("experiments.svag", run_name="__main__", alter_sys=True)
"""
    )
    done = python(installed, tmp_path, "-c", code)
    assert done.returncode == 2
    message = "experiments need matplotlib, sklearn: pip install 'optsde[studies]'\n"
    assert done.stderr == message


def test_the_description_links_nowhere_without_an_address(wheel):
    text = description(wheel)
    assert not re.search(r"\]\((?!http|#)", text)
    assert "![" not in text
    assert "(docs/svag.md)" in (ROOT / "README.md").read_text()


def test_the_description_shows_pictures_where_the_project_lives(tmp_path):
    address = "https://example.org/optsde"
    text = description(build(tmp_path, address))
    pictures = re.findall(r"!\[[^]]*\]\((\S+)\)", text)
    assert pictures
    for picture in pictures:
        place, _, path = picture.partition("/raw/main/")
        assert place == address
        assert os.path.isfile(ROOT / path)
    assert f"({address}/blob/main/docs/svag.md)" in text
