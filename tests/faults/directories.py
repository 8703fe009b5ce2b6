"""Torn and foreign run directories: each damage, and what the next command makes of it.

    PYTHONPATH=TREE python tests/faults/directories.py

counts the outcomes with the code of any tree. A directory is refused in one line and
left as it is, or it is repaired: what it says then is what an undamaged one says.
"""

import contextlib
import hashlib
import io
import itertools
import json
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from optsde.analysis import above, estimate
from optsde.study import Numbers, Package, Seeds, Study, launch, setting

SECONDS = 5  # after which a command hangs
KINDS = ("refused", "repaired", "traceback", "silent", "hang")


class Settings(Seeds):
    rates: Numbers = setting((0.1, 0.5), "learning rate of each arm", above=0)
    seeds = 4


def simulate(s, rundir):
    def arm(rate):
        if not hasattr(rundir, "write_rows"):  # of older versions
            rundir.log(rate=rate, loss=1 - rate)
        noise = np.random.RandomState(s.seed).rand(s.seeds)
        return {"loss": (1 - rate) * (1 + noise)}

    runs = {r: rundir.once(f"rate {r:g}", lambda r=r: arm(r)) for r in s.rates}
    if hasattr(rundir, "write_rows"):
        rundir.write_rows(dict(rate=r, loss=1 - r) for r in runs)
    return runs


def claims(s, runs):
    first, *others = runs.values()
    for arm in others:
        yield above("falls", estimate(first["loss"] - arm["loss"]), 0.0, "of loss")


def figure(s, runs, path):
    path.write_bytes(b"a picture")


STUDY = Study(__name__, Settings, simulate, claims=claims, figures={"loss": figure})
CONFIG = """
from ml_collections import ConfigDict
PRESETS = {"toy": "by hand"}
def get_config(preset="toy"):
    return ConfigDict({})
"""


class HangError(BaseException):
    """The time was up."""


class Case(NamedTuple):
    """A damage: its name, how it is done, and what is expected of the next command."""

    name: str
    do: Callable[[Path], None]  # to the folder with `run` and `outside`
    expected: tuple[str, ...]
    arguments: tuple[str, ...] = ("--workdir=run",)


class Outcome(NamedTuple):
    """What became of a case, and the words of the command."""

    kind: str
    words: str


# ---- damages of a file


def missing(file):
    file.unlink()


def emptied(file):
    file.write_bytes(b"")


def cut(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def garbage(file):
    file.write_bytes(bytes(range(256)) * 4)


def flipped(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def folder(file):
    file.unlink()
    (file / "below").mkdir(parents=True)


def dangling(file):
    file.unlink()
    file.symlink_to(file.parent.parent / "nowhere")


def looping(file):
    file.unlink()
    file.symlink_to(file)


def link_out(file):
    file.unlink()
    file.symlink_to(outside_of(file) / "canary.txt")


def link_to_itself_outside(file):
    """The same content, but elsewhere: a write through it would change that."""
    moved = outside_of(file) / file.name
    file.rename(moved)
    file.symlink_to(moved)


def pipe(file):
    """A reader of it waits for ever."""
    file.unlink()
    os.mkfifo(file)


def text(content):
    def write(file):
        file.write_text(content)

    write.__name__ = f"holds {content[:12]!r}"
    return write


def without(key):
    def write(file):
        found = json.loads(file.read_text())
        file.write_text(json.dumps({k: v for k, v in found.items() if k != key}))

    write.__name__ = f"without {key}"
    return write


def with_entry(key, value):
    def write(file):
        content = file.read_text()
        texts = [content] if file.suffix == ".json" else content.splitlines()
        lines = [json.loads(x) for x in texts]
        changed = "\n".join(json.dumps({**x, key: value}) for x in lines)
        file.write_text(changed + "\n")

    write.__name__ = f"with {key}={value!r}"
    return write


def outside_of(file):
    place = file
    while not (place / "outside").is_dir():
        place = place.parent
    return place / "outside"


REPAIRED, REFUSED = ("repaired",), ("refused",)
EITHER = REPAIRED + REFUSED
PLACES = missing, folder, dangling, looping, link_out, link_to_itself_outside, pipe
CONTENTS = emptied, cut, garbage, flipped
SHAPES = tuple(map(text, ["[]", "3", "{}", "null", "NaN", "[" * 100_000]))
FILES = {
    "config.json": (*SHAPES, with_entry("seeds", "many"), with_entry("seed", 1)),
    "meta.json": (
        *SHAPES,
        *(with_entry("sources", x) for x in (3, [], {"a": 3}, {"own.py": "x"})),
        *(with_entry("argv", x) for x in (3, [3])),
        without("argv"),
        without("revision"),
    ),
    "made.jsonl": (
        *SHAPES,
        *(with_entry("part", x) for x in (3, None, "other", "../../x")),
        *(with_entry("versions", x) for x in (3, {})),
        *(with_entry("devices", x) for x in (3, [3])),
        with_entry("time", 3),
        with_entry("revision", 3),
        with_entry("x64", "yes"),
    ),
    "summary.json": (*SHAPES, with_entry("status", "running")),
    "report.html": (text("<script>"),),
    "metrics.jsonl": (*SHAPES, with_entry("loss", "x")),
    "figures/loss.png": (text("3"),),
}
ANYTHING = ("config.json.partial", "summary.json.partial", "crash.log", "lock")


def damages() -> Iterator[Case]:
    """Yields every damage of every file of a run directory."""
    for name, shapes in FILES.items():
        for how in (*PLACES, *CONTENTS, *shapes):
            yield Case(f"{name} {how.__name__}", at(name, how), EITHER)
    for how in (*PLACES, *CONTENTS):
        yield Case(f"a part {how.__name__}", lambda x, h=how: h(a_part(x)), EITHER)
    for name in ANYTHING:
        for how in (folder, dangling, looping, link_out, pipe, garbage, emptied):
            yield Case(f"{name} {how.__name__}", at(name, how, made=True), EITHER)
    for name in ("figures", "curves", "unfinished", "tensorboard"):
        for how in (as_file, folder_out, folder_dangling):
            yield Case(f"{name} {how.__name__}", at(name, how), EITHER)


def at(name, how, made=False):
    def do(place):
        file = place / "run" / name
        if made:
            file.write_text("{}")
        how(file)

    return do


def as_file(place):
    shutil.rmtree(place, ignore_errors=True)
    place.write_text("a file")


def folder_out(place):
    """A link to a folder outside, with what was in it."""
    target = outside_of(place) / "folder"
    if place.exists():
        shutil.move(place, target)
    else:
        target.mkdir()
    place.symlink_to(target)


def folder_dangling(place):
    shutil.rmtree(place, ignore_errors=True)
    place.symlink_to(place.parent / "nowhere")


def a_part(place):
    """The file of a part, or that of all parts in versions that had one."""
    found = sorted((place / "run").glob("curves/*.npz"))
    return (found or [place / "run" / "curves.npz"])[0]


# ---- other states


class Executed:
    """Unpickled, it leaves a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def pickled(place):
    file = a_part(place)
    bad = np.array([Executed(place / "outside" / "executed")], object)
    np.savez(file, **{"rate 0.1/loss": bad})


def plain_pickle(place):
    bad = pickle.dumps(Executed(place / "outside" / "executed"))
    a_part(place).write_bytes(bad)


def rewritten(change):
    """The arrays of a part changed by hand, in a file that is whole for numpy."""

    def do(place):
        file = a_part(place)
        with np.load(file) as stored:
            found = {k: v for k, v in stored.items() if v.shape}
            rest = {k: v for k, v in stored.items() if not v.shape}
        np.savez(file, **change(found), **rest)

    return do


def swapped(place):
    """The file of one part under the name of another."""
    first = a_part(place)
    for other in set(first.parent.glob("*.npz")) - {first}:
        shutil.copy(first, other)


def of_another_run(place):
    """The part of a run with another seed, which is whole in itself."""
    command(place, "--workdir=other", "--config.seed=1")
    (place / "other").rename(place / "outside" / "run")
    shutil.copy(a_part(place / "outside"), a_part(place))


def zip_that_climbs(place):
    with zipfile.ZipFile(a_part(place), "a") as archive:
        archive.writestr("../../outside/climbed.npy", b"x")


def workdir(do):
    def change(place):
        shutil.rmtree(place / "run")
        do(place)

    return change


def nothing(place):
    pass


def under_a_file(place):
    (place / "run").write_text("a file")


STATES = (
    Case("a pickled object in a part", pickled, EITHER),
    Case("a pickle for a part", plain_pickle, EITHER),
    *(
        Case(f"a part whose arrays are {words}", rewritten(change), REFUSED)
        for words, change in {
            "of another shape": lambda x: {k: v[:2] for k, v in x.items()},
            "NaN": lambda x: {k: v * np.nan for k, v in x.items()},
            "ten times as large": lambda x: {k: v * 10 for k, v in x.items()},
            "text": lambda x: {k: v.astype(str) for k, v in x.items()},
            "missing": lambda x: {},
            "named otherwise": lambda x: {f"{k}s": v for k, v in x.items()},
        }.items()
    ),
    Case("a part under another's name", swapped, EITHER),
    Case("a part of another run", of_another_run, REFUSED),
    Case("a part with a name that climbs", zip_that_climbs, EITHER),
    *(
        Case(f"a workdir that is {words}", workdir(do), expected)
        for words, do, expected in (
            ("a file", under_a_file, REFUSED),
            ("a dangling link", lambda x: (x / "run").symlink_to("no"), REFUSED),
            ("a looping link", lambda x: (x / "run").symlink_to("run"), REFUSED),
            ("a pipe", lambda x: os.mkfifo(x / "run"), REFUSED),
            ("a device", lambda x: (x / "run").symlink_to("/dev/full"), REFUSED),
            (
                "full of other files",
                lambda x: shutil.copytree(x / "outside", x / "run"),
                REFUSED,
            ),
            ("an empty folder", lambda x: (x / "run").mkdir(), REPAIRED),
            (
                "a link to an empty folder",
                lambda x: ((x / "real").mkdir(), (x / "run").symlink_to("real")),
                REPAIRED,
            ),
        )
    ),
    *(
        Case(f"a workdir below {words}", workdir(do), REFUSED, ("--workdir=run/it",))
        for words, do in (
            ("a file", under_a_file),
            ("a dangling link", lambda x: (x / "run").symlink_to("no")),
            ("a looping link", lambda x: (x / "run").symlink_to("run")),
        )
    ),
    Case("a workdir with a long name", nothing, REFUSED, (f"--workdir={'x' * 300}",)),
    Case("a workdir in /proc", nothing, REFUSED, ("--workdir=/proc/run",)),
    Case("nothing", nothing, REPAIRED),
)


# ---- what becomes of them


def cases() -> list[Case]:
    """Returns all cases."""
    return [*damages(), *STATES]


def command(place: Path, *arguments: str) -> tuple[int | str, str, str]:
    """Runs the toy study in a folder; returns exit code or traceback, and prints."""
    before, argv = Path.cwd(), sys.argv
    out, err = io.StringIO(), io.StringIO()
    prepare, launch._prepare_devices = launch._prepare_devices, lambda *_: None
    hooks = threading.excepthook, sys.unraisablehook
    os.chdir(place)
    sys.argv = ["toy", "--config=toy.py", *arguments]
    code: int | str = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            Package("toy", "A toy.", (STUDY,)).main()
    except SystemExit as leaving:
        code = leaving.code or 0
    except Exception as error:
        code = f"{type(error).__name__}: {error}"
    finally:
        os.chdir(before)
        sys.argv, launch._prepare_devices = argv, prepare
        threading.excepthook, sys.unraisablehook = hooks
    return code, out.getvalue(), err.getvalue()


def prepared(place: Path) -> Path:
    """Makes a finished run, and files outside of it that must not change."""
    (place / "toy.py").write_text(CONFIG)
    (place / "outside").mkdir()
    (place / "outside" / "canary.txt").write_text("{}")
    code, _, err = command(place, "--workdir=run")
    assert code == 0, err
    return place


def outcome(case: Case, pristine: Path, place: Path) -> Outcome:
    """Returns what a case comes to, done to a copy of a pristine run."""
    shutil.copytree(pristine, place)
    case.do(place)
    outside, run = tree(place / "outside"), tree(place / "run")
    try:
        with at_most(SECONDS):
            code, _, err = command(place, *case.arguments)
    except HangError:
        return Outcome("hang", f"no end in {SECONDS} s")
    if tree(place / "outside") != outside:
        return Outcome("silent", f"wrote outside; exit code {code}")
    if isinstance(code, str) or "Traceback" in err:
        return Outcome("traceback", str(code))
    if code != 0:
        clear = err.count("\n") == 1 and err.startswith("experiments.toy: ")
        if code != 2 or not clear:
            return Outcome("traceback", f"exit code {code}: {err}")
        changed = tree(place / "run") != run
        return Outcome("silent" if changed else "refused", err)
    found, wanted = told(place), told(pristine)
    wrong = [name for name in wanted if found[name] != wanted[name]]
    if wrong:
        return Outcome("silent", f"other {', '.join(wrong)}")
    return Outcome("repaired", err)


def told(place: Path) -> dict[str, object]:
    """Returns what a run tells: its verdicts and rows, and the settings of both."""
    run = place / "run"
    found: dict[str, object] = {}
    for name in ("config.json", "metrics.jsonl", "figures/loss.png"):
        file = run / name
        found[name] = file.read_bytes() if file.is_file() else "not a file"
    summary = json.loads((run / "summary.json").read_text())
    found |= {name: summary[name] for name in ("status", "verdicts")}
    meta = json.loads((run / "meta.json").read_text())
    found |= {name: meta.get(name) for name in ("argv", "sources")}
    report = (run / "report.html").read_text()
    return found | {"report": report.endswith("</html>\n")}


def tree(place: Path) -> dict[str, str]:
    """Returns what is below a place: the kind of each entry, its target or digest."""
    found = {}
    for path in itertools.chain([place], place.rglob("*")):
        kind = "other"
        if path.is_symlink():
            kind = f"link to {os.readlink(path)}"
        elif path.is_dir():
            kind = "folder"
        elif path.is_file():
            kind = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(place))] = kind
    return found


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raises HangError where it takes longer."""

    def stop(*_):
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    """Prints the cases that are not as expected, and the counts."""
    counts = Counter()
    with tempfile.TemporaryDirectory() as folder:
        pristine = Path(folder, "pristine")
        pristine.mkdir()
        prepared(pristine)
        for number, case in enumerate(cases()):
            kind, words = outcome(case, pristine, Path(folder, str(number)))
            counts[kind] += 1
            if kind not in case.expected:
                print(f"{kind:10} {case.name}: {' '.join(words.split())[:120]}")
    tried = f"tried {sum(counts.values())}"
    print(", ".join([tried, *(f"{kind} {counts[kind]}" for kind in KINDS)]))


if __name__ == "__main__":
    main()
