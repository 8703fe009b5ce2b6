"""docs/theory.md names existing tests and all optimizers; CITATION.cff is current."""

import re
import tomllib

from helpers import ROOT

from optsde.optimizers import REGISTRY

PAGE = (ROOT / "docs/theory.md").read_text()


def test_every_test_that_it_names_exists():
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE)
    assert len(named) > 50
    assert PAGE.count("::") == len(named) + 1  # `file::test`, which explains them
    for file, test in named:
        (path,) = (ROOT / "tests").rglob(file)
        assert f"\ndef {test}(" in path.read_text(), f"{file}::{test}"


def test_every_optimizer_has_a_section():
    headings = " ".join(re.findall(r"^##.*$", PAGE, re.MULTILINE))
    ours = [x for x in REGISTRY.values() if x.__module__.startswith("optsde.")]
    assert ours
    for optimizer in ours:
        assert re.search(rf"\b{optimizer.__name__}\b", headings), optimizer.__name__


def test_the_citation_is_of_this_version_and_has_the_papers_of_the_page():
    citation = (ROOT / "CITATION.cff").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in ("version", "license"):
        assert f"\n{name}: {project[name]}\n" in citation
    authors = set(re.findall(r'family-names: "([^"]+)"', citation))
    cited = re.findall(r"([A-Z]\w+) et al\.", PAGE)
    assert len(cited) > 10
    assert {name.removeprefix("Monzio ") for name in authors} >= set(cited)
