"""python -m experiments: the studies there are, and a config file to begin with."""

import argparse
import ast
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import experiments

FOLDER = Path(experiments.__file__).parent
TEMPLATE = FOLDER / "template.py"
NEXT = """\
python -m experiments.NAME --help     presets, settings and what each means
python -m experiments.NAME            runs the preset called default there
python -m experiments new my_run.py   writes a file for a net and data of your own,
                                      which --config=my_run.py:adamw gives any study"""


def main(argv: Sequence[str] | None = None) -> None:
    """Lists the studies, or writes a config file."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments", description="Lists the studies."
    )
    parser.add_argument("--version", action="store_true")
    commands = parser.add_subparsers(dest="command", metavar="new")
    new = commands.add_parser("new", help="write a config file of one's own")
    new.add_argument("file", type=Path, metavar="FILE.py")
    arguments = parser.parse_args(argv)
    if arguments.version:
        from optsde.study.provenance import version  # takes seconds, the list none

        print(f"optsde {version('optsde')}")
        return
    if arguments.command == "new":
        try:
            print(write(arguments.file))
        except (ValueError, OSError) as error:
            print(f"experiments new: {error}", file=sys.stderr)
            sys.exit(2)
        return
    studies = dict(listed())
    width = max(map(len, studies))
    print(*(f"{name:{width}}  {line}" for name, line in studies.items()), sep="\n")
    print(f"\n{NEXT}")


def listed() -> Iterator[tuple[str, str]]:
    """Yields each package of studies and the question it asks, without importing it."""
    for found in pkgutil.iter_modules([str(FOLDER)]):
        source = FOLDER / found.name / "__main__.py"
        if found.ispkg and source.is_file():
            text = (FOLDER / found.name / "__init__.py").read_text()
            doc = ast.get_docstring(ast.parse(text)) or ""
            yield found.name, doc.partition("\n")[0]


def write(file: Path) -> str:
    """Writes the template, with its own name in it; returns what to do next."""
    if file.suffix != ".py":
        raise ValueError(f"{file}: needs a name that ends with .py")
    if file.exists():
        raise ValueError(f"{file} is there already: name another, or remove it")
    if not file.parent.is_dir():
        raise ValueError(f"{file.parent}: no such folder")
    text = TEMPLATE.read_text().replace("THIS_FILE", str(file))
    with open(file, "x") as out:
        out.write(text)
    return f"{file} is written; try: python -m experiments.svag --config={file}:adamw"


if __name__ == "__main__":
    main()
