"""The README's drawing of the code is true: a room imports only from rooms below it."""

import ast
import re

from helpers import ROOT


def rooms():
    """From the top floor down, as the README has them; one line may hold two."""
    drawing = (ROOT / "README.md").read_text().split("optsde/\n")[1].split("```")[0]
    inside = [line[2:] for line in drawing.splitlines() if line.startswith("  ")]
    names = [re.findall(r"(?:^|;\s+)(\w+)(?:\.py|/)", line) for line in inside]
    return [found for found in names if found]


def imported(path):
    """The rooms of optsde that a file imports from, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module in ("optsde", "experiments"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from names


def test_every_room_is_in_the_drawing():
    drawn = {name for line in rooms() for name in line}
    files = (ROOT / "optsde").iterdir()
    there = {path.stem for path in files if path.suffix in ("", ".py")} - {"__init__"}
    assert drawn == {name for name in there if not name.startswith("__")}


def test_imports_go_down():
    floor = {name: i for i, line in enumerate(rooms()) for name in line}
    wrong = []
    for path in (ROOT / "optsde").rglob("*.py"):
        own = path.relative_to(ROOT / "optsde").parts[0].removesuffix(".py")
        if own in ("__init__", "__main__"):  # above all rooms
            continue
        for name in imported(path):
            parts = name.split(".")
            assert parts[0] != "experiments", path
            if parts[0] != "optsde" or len(parts) < 2 or parts[1] not in floor:
                continue
            if parts[1] != own and floor[parts[1]] <= floor[own]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_studies_do_not_import_one_another():
    shared = {path.stem for path in (ROOT / "experiments").glob("*.py")}
    allowed = {("landscape", "fullbatch")}  # it reads that study's runs
    for path in (ROOT / "experiments").glob("*/*.py"):
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "experiments" and len(parts) > 1:
                pair = path.parent.name, parts[1]
                assert parts[1] in shared or pair[0] == pair[1] or pair in allowed
