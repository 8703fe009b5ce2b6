"""The documentation site: broken links are errors; what is on its pages."""

import importlib.util
import re
import sys

import pytest
from helpers import ROOT, environment, run_child

import optsde

MODULES = ("mkdocs", "material", "mkdocstrings", "mkdocs_jupyter", "latex2mathml")
missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        bool(missing), reason=f"needs {missing}: pip install 'optsde[docs]'"
    ),
]


def build(folder):
    options = ["--strict", "--site-dir", str(folder)]
    done = run_child(
        [sys.executable, "-m", "mkdocs", "build", *options],
        env=environment() | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return build(tmp_path_factory.mktemp("site"))


def page(site, name):
    """The words and tags of a page's article."""
    return (site / name).read_text().split("<article")[1].split("</article>")[0]


def test_a_broken_link_is_an_error(tmp_path):
    path = ROOT / "docs" / "broken_link_of_a_test.md"
    path.write_text("# A page\n\n[nowhere](no_such_page.md)\n")
    try:
        with pytest.raises(AssertionError, match=r"no_such_page\.md"):
            build(tmp_path)
    finally:
        path.unlink()


def test_every_page_of_the_folder_is_in_the_navigation(site):
    links = re.findall(r'href="([^"#]+)"', (site / "index.html").read_text())
    pages = {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    lessons = {f"notebooks/{x.stem}.html" for x in (ROOT / "notebooks").glob("*.py")}
    assert pages | lessons <= {"index.html", *links}


def test_formulas_are_mathml(site):
    text = page(site, "theory.html")
    source = (ROOT / "docs" / "theory.md").read_text()
    inline, display = source.count("`$"), source.count("```math")
    assert text.count("<math") == inline + display
    assert text.count('display="block"') == display > 1
    assert "⟦" not in text
    assert "$" not in re.sub(r"<code>.*?</code>", "", text)


def test_links_lead_out_of_no_page(site):
    for name in ["readme", *(path.stem for path in (ROOT / "docs").glob("*.md"))]:
        assert 'href="../' not in page(site, f"{name}.html"), name


def test_every_public_name_has_its_text(site):
    text = page(site, "api/index.html")
    for name in optsde.__all__:
        row = re.search(rf"optsde\.{name}</code></a></td>\s*<td>(.*?)</td>", text)
        assert row, name
        assert row[1], name


def test_examples_of_docstrings_are_code(site):
    text = page(site, "api/plans.html")
    prompts = text.count("&gt;&gt;&gt;")
    assert prompts
    assert text.count('<span class="gp">&gt;&gt;&gt;') == prompts


def test_every_picture_of_a_page_is_in_the_gallery(site):
    shown = set(re.findall(r'src="(figures/[^"]+)"', page(site, "gallery.html")))
    for path in (ROOT / "docs").glob("*.md"):
        assert set(re.findall(r"\]\((figures/[^)]+)\)", path.read_text())) <= shown
