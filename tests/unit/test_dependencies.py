"""`pip install optsde` is enough to import every room, [studies] to import a study."""

import ast
import re
import sys
import tomllib

import pytest
from helpers import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = {  # where a package's name is not its module's
    "absl-py": "absl",
    "orbax-checkpoint": "orbax",
    "scikit-learn": "sklearn",
}


def modules(requirements):
    names = [re.split(r"[>=<\[ ]", text)[0] for text in requirements]
    return {MODULES.get(name, name.replace("-", "_")) for name in names}


LIBRARY = modules(PROJECT["dependencies"])
STUDIES = modules(PROJECT["optional-dependencies"]["studies"])


def imported(node, everywhere):
    """The packages that are imported when a file is; `everywhere`: also later."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield (child.module or "").partition(".")[0]
        elif everywhere or not isinstance(child, ast.FunctionDef):
            yield from imported(child, everywhere)


@pytest.mark.parametrize(
    ("folder", "everywhere", "allowed"),
    [
        ("optsde", False, LIBRARY),
        ("experiments", True, LIBRARY | STUDIES),
        ("configs", True, LIBRARY | STUDIES),
    ],
)
def test_no_file_imports_more_than_is_installed(folder, everywhere, allowed):
    allowed = allowed | {"optsde", "experiments"} | sys.stdlib_module_names
    for path in (ROOT / folder).rglob("*.py"):
        found = set(imported(ast.parse(path.read_text()), everywhere))
        assert found <= allowed, (path, found - allowed)


def test_every_package_that_studies_need_is_asked_for_at_the_door():
    text = (ROOT / "experiments" / "__init__.py").read_text()
    assert (
        modules(ast.literal_eval(re.search(r"NEEDED = (\(.*\))", text)[1])) == STUDIES
    )
