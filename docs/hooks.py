"""What the site is made of beside the pages of this folder; mkdocs calls it.

The README, the changelog, a page for each room of the library, the lessons and a
gallery are pages that nobody writes twice. Formulas become MathML, which browsers show
without a script. Links that lead out of this folder go to the repository, if it has an
address.
"""

import ast
import re
import textwrap
import tomllib
from pathlib import Path

import griffe
from latex2mathml.converter import convert
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCE = PROJECT["urls"].get("Source")
LINK = re.compile(r"(!?)\[([^][]*)\]\(([^()\s]+)\)")
STUDIES = ("svag", "scaling", "fullbatch", "catapults", "intrinsic_lr", "descent")
STUDIES += ("sweep", "batches")


# ---- pages


def on_config(config):
    """Sets the navigation: pages that are in no group are guides."""
    config.repo_url = SOURCE
    pages = {path.stem for path in DOCS.glob("*.md")}
    guides = pages - {"index", "claims", "theory", *STUDIES}
    config.nav = [
        {"The idea": "index.md"},
        {
            "Guides": [
                {"README": "readme.md"},
                *(f"{name}.md" for name in sorted(guides)),
            ]
        },
        {"Lessons": [f"notebooks/{path.name}" for path in lessons()]},
        {"Studies": [f"{name}.md" for name in STUDIES]},
        {"Claims": "claims.md"},
        {"Theory": "theory.md"},
        {"Gallery": "gallery.md"},
        {"Reference": ["api/index.md", *(f"api/{name}.md" for name in rooms())]},
        {"Changes": "changelog.md"},
    ]
    return config


@event_priority(100)
def on_files(files, config):
    """Adds the pages that are made from other files."""
    pages = {
        "readme.md": (ROOT / "README.md").read_text(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(),
        "gallery.md": gallery(),
        "api/index.md": index_of_names(),
        **{f"api/{room}.md": reference(room) for room in rooms()},
    }
    for place, text in pages.items():
        files.append(File.generated(config, place, content=text))
    for path in lessons():
        place = str(path.relative_to(ROOT))
        files.append(File(place, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def lessons():
    """Returns the scripts of notebooks/, in order."""
    return sorted((ROOT / "notebooks").glob("*.py"))


def rooms():
    """Returns the rooms of the library that have public names."""
    found = sorted(path.parent.name for path in (ROOT / "optsde").glob("*/__init__.py"))
    return [name for name in found if public(f"optsde.{name}")]


def public(package):
    """Returns the names of a package's `__all__`."""
    path = ROOT.joinpath(*package.split("."), "__init__.py")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            return ast.literal_eval(node.value)
    return []


def home(package, name):
    """Returns where a name is documented.

    A name that is also a file's is that file, and a function of this name is in it.
    """
    file = ROOT.joinpath(*package.split("."), f"{name}.py")
    inside = file.exists() and f"\ndef {name}(" in file.read_text()
    return f"{package}.{name}.{name}" if inside else f"{package}.{name}"


def reference(room):
    """Returns the page of a room."""
    package = f"optsde.{room}"
    parts = [f"# {package}\n", f"::: {package}\n"]
    for name in public(package):
        if (ROOT / "optsde" / room / f"{name}.py").exists():
            options = "{show_root_heading: true, show_root_toc_entry: true}"
            parts.append(f"::: {home(package, name)}\n    options: {options}\n")
    return "\n".join(parts)


def index_of_names():
    """Returns the page of what `import optsde` gives, and of the rooms."""
    library = griffe.load("optsde", search_paths=[ROOT])
    packages = [f"optsde.{room}" for room in rooms()]
    homes = {name: home(place, name) for place in packages for name in public(place)}
    table = ["# Reference\n", "| `import optsde` gives | |", "|---|---|"]
    for name in public("optsde"):
        text = first_sentence(library[homes[name].removeprefix("optsde.")])
        table.append(f"| [`optsde.{name}`][{homes[name]}] | {text} |")
    table += ["", "| and the rooms behind it | |", "|---|---|"]
    for room in rooms():
        text = first_sentence(library[room])
        table.append(f"| [`optsde.{room}`]({room}.md) | {text} |")
    return "\n".join(table)


def first_sentence(documented):
    """Returns the first paragraph of a docstring, in a line that a table can hold."""
    text = documented.docstring.value if documented.docstring else ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


class Docstrings(griffe.Extension):
    """Shows the examples of docstrings as code, and `name: meaning` as lists."""

    def on_instance(self, *, obj, **_):
        if obj.docstring:
            text = obj.docstring.value
            text = re.sub(r"(?m)^ *>>> .*(?:\n.*\S.*)*", fenced, text)
            obj.docstring.value = FIELD.sub(r"\n- `\1`: ", text)


# A line `name: meaning`; those of Args are indented.
FIELD = re.compile(r"(?m)^([a-z_]\w*(?:, [a-z_]\w*)*): ")


def fenced(example):
    """Returns an example of a docstring between fences."""
    return f"```pycon\n{textwrap.dedent(example[0])}\n```"


def gallery():
    """Returns the page of all pictures, by the page that they are of."""
    parts = ["# Gallery\n\nEvery picture is what a study wrote; its page says how.\n"]
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text()
        title = text.partition("\n")[0].removeprefix("# ")
        pictures = [link for link in LINK.findall(text) if link[0]]
        if pictures and path.name != "index.md":
            parts.append(f"## [{title}]({path.name})\n")
            parts += [f"![{words}]({file})\n\n{words}\n" for _, words, file in pictures]
    return "\n".join(parts)


# ---- Markdown


def on_page_markdown(markdown, page, **_):
    """Puts links and formulas in the form that the site can show."""
    if page.file.src_uri == "index.md":
        page.meta["hide"] = ["toc"]
    if page.file.src_uri.startswith("notebooks/"):
        return markdown
    generated = page.file.src_uri in ("readme.md", "changelog.md")
    text = LINK.sub(from_root if generated else from_docs, markdown)
    page.meta["formulas"] = formulas = []

    def keep(display):
        def replace(match):
            formulas.append(convert(match[1], display=display))
            return f"⟦{len(formulas) - 1}⟧"

        return replace

    text = re.sub(r"```math\n(.*?)```", keep("block"), text, flags=re.DOTALL)
    return re.sub(r"\$`(.*?)`\$", keep("inline"), text, flags=re.DOTALL)


def on_page_content(html, page, **_):
    """Puts the formulas where their places were kept."""
    formulas = page.meta.get("formulas", [])
    return re.sub(r"⟦(\d+)⟧", lambda match: formulas[int(match[1])], html)


def from_docs(link):
    """Mends a link of a page of this folder."""
    if link[3].startswith("../"):
        return from_root(LINK.match(f"{link[1]}[{link[2]}]({link[3][3:]})"))
    return link[0]


def from_root(link):
    """Mends a link of a file of the repository's root."""
    picture, words, target = link.groups()
    if target.startswith(("http", "#")) or re.match(r"notebooks/\w+\.py", target):
        return link[0]
    if target.startswith("docs/"):
        return f"{picture}[{words}]({target.removeprefix('docs/')})"
    return f"[{words}]({SOURCE}/blob/main/{target})" if SOURCE else words
