"""Kills studies at random moments, and compares what they come to with whole runs.

    python tests/faults/kills.py [--kills=3] [--seed=0] [PRESET ...]

Each study runs once undisturbed. Then it is killed by SIGKILL, several times in a row
in one run directory, and ends: its kept numbers, rows, parameters and summary must be
those of the undisturbed run, bit for bit. Half of the kills come at a random moment,
the others in the midst of a save, while a file of it is not whole. Saves come every
third of a second here, since these runs last for seconds. Exit code 1: a run differed.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parent.parent.parent
CHILD = """
import sys
from importlib import import_module
from optsde.run import journal

journal.SECONDS, journal.SHARE = 0.3, 0.3
sys.argv = sys.argv[1:]
import_module(f"experiments.{sys.argv[0]}").main()
"""
MLP = dict(train_size=64, test_size=32, statistics=64, judged=64, seeds=2)
MLP |= {"options.hidden": (8, 8)}
FEW = dict(train_size=64, test_size=32, statistics=64)
CASES: dict[str, dict[str, Any]] = {
    "svag:digits": dict(
        seeds=4, sde_seeds=2, widths=(8,), ells=(1, 2), times=(20, 40), substeps=4
    ),
    "svag:quadratic": dict(paths=20_000, substeps=8, ells=(1, 2), halvings=1),
    "scaling:digits": FEW
    | dict(seeds=3, batch_size=8, horizon=512, evaluations=8, kappas=(2,), ells=(2,))
    | dict(svag_until=0.25, probe_until=0.5, probe_seeds=2, draws=32),
    "intrinsic_lr:same_product": MLP | dict(steps=2000, every=50),
    "intrinsic_lr:swa": MLP
    | dict(decays=(0.1, 0.3), memories=1, steps=2000, every=10, seeds=4),
    "catapults:cyclic": dict(width=64, train_size=64, seeds=2, cycles=8, period=100),
    "catapults:control": dict(
        width=8, train_size=12, seeds=2, segments=6, pulses=(0, 2)
    ),
    "catapults:edge": dict(train_size=64, hidden=(8,), steps=1500, every=25, seeds=2),
    "fullbatch:digits_fb": FEW
    | dict(log_every=5, evaluate_every=50, checkpoint_every=0, steps=600)
    | dict(warmup=20, cosine=700, block=8, at_once=2, probes="spikes"),
    "sweep:adam": {"options.hidden": (8,), "train_size": 64, "steps": 400}
    | dict(evaluations=4),
    "descent:schedules": {"options.hidden": (8,), "train_size": 64, "steps": 2000}
    | dict(seeds=4, lrs=(0.004, 0.016)),
    "landscape:line": dict(points=65),
}
"""A small form of one preset or more of every study."""


class Outcome(NamedTuple):
    """What became of one study."""

    preset: str
    kills: int
    in_a_save: int
    resumed: int  # times that a run went on from a save
    differences: list[str]
    seconds: float


def campaign(
    presets: Sequence[str], kills: int, seed: int, folder: Path
) -> Iterator[Outcome]:
    """Yields the outcome of each preset, killed so many times."""
    for preset in presets:
        begun, lot = time.monotonic(), random.Random(f"{seed} {preset}")
        settings = CASES[preset]
        if preset.startswith("landscape"):
            settings = settings | {"run": _trained(folder)}
        whole = folder / preset.replace(":", "-")
        work = _undisturbed(preset, whole, settings)
        done, in_a_save, texts, differences, attempt = 0, 0, "", [], 0
        while done < kills:
            place = folder / f"{whole.name}-{attempt}"
            attempt += 1
            ended = False
            while done < kills and not ended:
                wait, aimed = lot.uniform(0, 0.7 * work), bool(lot.getrandbits(1))
                ended, text = _killed(preset, place, settings, wait, aimed)
                texts += text
                done += not ended
                in_a_save += aimed and not ended
            if not ended:
                texts += _run(preset, place, settings)
            differences += [f"{place.name}: {x}" for x in differing(whole, place)]
            if attempt > 3 * kills:
                raise RuntimeError(f"{preset} ends before it can be killed")
        resumed = texts.count("resumed at step")
        seconds = time.monotonic() - begun
        yield Outcome(preset, done, in_a_save, resumed, differences, seconds)


def differing(whole: Path, other: Path) -> list[str]:
    """Returns the names of what differs between two run directories."""
    found = []
    files = {x.relative_to(d) for d in (whole, other) for x in d.rglob("*")}
    for name in sorted(files):
        mine, theirs = whole / name, other / name
        free = {"meta.json", "made.jsonl", "report.html", "figures", "checkpoints"}
        if free & {*name.parts} or mine.is_dir():
            continue
        if not (mine.is_file() and theirs.is_file()):
            found.append(f"{name} is missing")
        elif name.name == "summary.json":
            if _summary(mine) != _summary(theirs):
                found.append(str(name))
        elif mine.read_bytes() != theirs.read_bytes():
            found.append(str(name))
    for place in whole.rglob("checkpoints"):
        name = place.relative_to(whole)
        if not _same_params(place, other / name):
            found.append(str(name))
    return found


def _same_params(a: Path, b: Path) -> bool:
    import jax

    from optsde.run import load_params

    (step, mine), (other, theirs) = load_params(a), load_params(b)
    same = jax.tree.map(np.array_equal, mine, theirs)
    return step == other and all(jax.tree.leaves(same))


def _summary(file: Path) -> dict:
    content = json.loads(file.read_text())
    return {k: v for k, v in content.items() if k not in ("seconds", "judged")}


# ---- processes


def _command(preset: str, place: Path, settings: dict) -> list[str]:
    study, _, name = preset.partition(":")
    command = [
        sys.executable,
        "-c",
        CHILD,
        study,
        f"--config=configs/{study}.py:{name}",
    ]
    command += [f"--workdir={place}"]
    return command + [f"--config.{key}={value}" for key, value in settings.items()]


def _start(preset: str, place: Path, settings: dict) -> subprocess.Popen:
    own = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    own |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        _command(preset, place, settings),
        cwd=ROOT,
        env=own,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _run(preset: str, place: Path, settings: dict) -> str:
    """Runs it to its end; returns what it prints of its progress."""
    process = _start(preset, place, settings)
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{preset} ended with {process.returncode}:\n{errors}")
    return errors


def _undisturbed(preset: str, place: Path, settings: dict) -> float:
    """Runs it to its end; returns how long that is after the first save."""
    process = _start(preset, place, settings)
    begun = _wait_for(process, lambda: _has_saved(place))
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{preset} ended with {process.returncode}:\n{errors}")
    return time.monotonic() - begun


def _killed(
    preset: str, place: Path, settings: dict, wait: float, in_a_save: bool
) -> tuple[bool, str]:
    """Kills it; returns whether it had ended before, and what it printed."""
    process = _start(preset, place, settings)
    begun = _wait_for(process, lambda: _has_saved(place))
    _wait_for(process, lambda: time.monotonic() - begun > wait)
    if in_a_save:
        _wait_for(process, lambda: _is_saving(place))
    ended = process.poll() is not None
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    if ended and process.returncode:
        raise RuntimeError(f"{preset} ended with {process.returncode}:\n{errors}")
    return ended, errors


def _wait_for(process: subprocess.Popen, condition) -> float:
    """Waits until then, or until the process ends; returns the time."""
    while process.poll() is None and not condition():
        time.sleep(0.002)
    return time.monotonic()


def _has_saved(place: Path) -> bool:
    """Tells whether a save is there, or a finished part."""
    return any("manifest.json" in files for *_, files in os.walk(place)) or any(
        (place / "curves").glob("*.npz")
    )


def _is_saving(place: Path) -> bool:
    """Tells whether a file is there that is not whole."""
    for folder, folders, files in os.walk(place):
        if any(x.endswith(".partial") for x in files):
            return True
        if any("checkpoint-tmp" in x for x in folders):
            return True
        if "state" in folders and not (Path(folder) / "manifest.json").exists():
            return True
    return False


def _trained(folder: Path) -> Path:
    """Returns a run for `landscape` to look around."""
    place = folder / "trained"
    if not place.exists():
        preset = "fullbatch:digits_fb"
        _run(preset, place, CASES[preset] | {"steps": 20, "cosine": 30})
    return place


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=3, help="of each preset")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("presets", nargs="*", metavar="PRESET")
    asked = parser.parse_args()
    presets, outcomes = asked.presets or [*CASES], []
    if unknown := sorted({*presets} - CASES.keys()):
        parser.error(f"{unknown[0]}: needs one of {', '.join(CASES)}")
    with tempfile.TemporaryDirectory() as folder:
        for one in campaign(presets, asked.kills, asked.seed, Path(folder)):
            outcomes.append(one)
            says = "; ".join(one.differences) or "the same, bit for bit"
            print(
                f"{one.preset:28} {one.kills} kills, {one.in_a_save} in a save, "
                f"resumed {one.resumed} times, {one.seconds:.0f} s: {says}",
                flush=True,
            )
    total, lost = (
        sum(x.kills for x in outcomes),
        sum(bool(x.differences) for x in outcomes),
    )
    print(
        f"{total} kills, {sum(x.in_a_save for x in outcomes)} in a save; {lost} differ"
    )
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
