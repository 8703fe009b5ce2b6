"""Does a change of the code change a digit of any study?

Runs every preset in a small form, by its command line from the current folder, and
keeps what it claims and prints: record before the change, record after it, compare.

    python -m benchmarks.record runs/before
    python -m benchmarks.record runs/after svag scaling:lm
    python -m benchmarks.record --compare runs/before runs/after svag scaling:lm

A record has a file NAME-PRESET.json with verdicts and tables, and figures/NAME-PRESET/.
Compare on one machine: other numbers of cores may round otherwise. To see what rounding
alone does, record the same code with XLA_FLAGS=--xla_backend_optimization_level=0.
Exit code 1: a preset failed, or something differs.
"""

import argparse
import difflib
import fnmatch
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

STUDIES = (
    "svag",
    "intrinsic_lr",
    "catapults",
    "fullbatch",
    "landscape",
    "scaling",
    "descent",
    "sweep",
    "batches",
)
AT_ONCE = 2  # presets; each has two devices, and imports and traces on one core
NUMBERS = ("value", "low", "high", "bound", "p", "corrected")
TOLERANCE = 1e-6  # of a verdict's numbers, relative to the largest of them

STAND_IN = dict(dataset="synthetic", model="digitsnet")
ROWS = ("sgd", "fb", "fb_longer", "fb_clipped", "fb_regularized", "fb_strong")
ROWS += ("fb_practice", "clipped_at_that_lr", "practice_without_penalty")
ROW = dict(steps=6, warmup=1, cosine=8, block=8, at_once=2)

SLOW = dict(ROW, warmup=60)  # the penalty's finite difference makes rounding grow
FEW = dict(train_size=64, test_size=32, statistics=64)
CELLS = dict(width=8, train_size=12, seeds=2)
TABLE = dict(CELLS, dataset="digits", images=120, train_size=80, kernel_size=50)
TABLE |= dict(batch_size=8, steps=40, period=20, log_every=10, evaluate_every=20)
NET = FEW | dict(judged=64, seeds=2, steps=40, every=20)
MLP = NET | {"options.hidden": (8, 8)}
MLP_ALONE = FEW | {"judged": 64, "options.hidden": (8, 8)}
TEXT = {"options.depth": 1, "options.width": 16, "options.heads": 2}
TEXT |= {"options.length": 16, "options.dtype": "float32", "schedule.warmup": 8}
TEXT |= dict(dataset="text")
OWN_TEXT = {k: v for k, v in TEXT.items() if "schedule" not in k}
SWEEP = {"options.hidden": (8,), "train_size": 64, "steps": 20, "evaluations": 2}
WHOLE = FEW | dict(horizon=32, evaluations=2, kappas=(2,), ells=(2,), seeds=2)
WHOLE |= dict(batch_size=8, group=4)
ON_DIGITS = {"options.hidden": (8,), "train_size": 64, "steps": 20, "seeds": 4}

GROWING = FEW | dict(seeds=3, horizon=64, evaluations=4, drops=(32,), warmup=0)


def of_rows(*names: str) -> dict[str, Any]:
    """Returns the settings of six steps of each row and two seeds."""
    row = dict(ROW, warmup=0)
    settings = {f"rows.{name}.{key}": row[key] for name in names for key in row}
    return settings | dict(seeds=2)


# Settings by pattern of NAME:PRESET, all that match. Data that has to be prepared is
# replaced by what is at hand, and a net that takes minutes to compile by a small one.
SMALL: dict[str, dict] = {
    "svag:digits*": dict(
        seeds=4, sde_seeds=2, widths=(8,), ells=(1, 2), times=(10, 20)
    ),
    "svag:whole_*": FEW
    | dict(horizon=16, evaluations=2, kappas=(2,), ells=(2,), seeds=3),
    "svag:whole_[bgpv]*": {"schedule.milestones": (8,)},
    "svag:whole_[gp]*": dict(sde_seeds=2),
    "svag:whole_[cm]*": TEXT | {"schedule.warmup": 4, "schedule.cosine": 12},
    "svag:cifar10*": WHOLE
    | STAND_IN
    | {"schedule.warmup": 8, "schedule.milestones": (16,)},
    "svag:wikitext_gpt": WHOLE | TEXT,
    "svag:bert_masked": WHOLE | TEXT,
    "svag:quadratic": dict(paths=2000, substeps=8, ells=(1, 2), halvings=1),
    "intrinsic_lr:sphere": dict(seeds=8, looks=4, length=0.3),
    "intrinsic_lr:equilibrium": MLP,
    "intrinsic_lr:same_product": MLP,
    "intrinsic_lr:decay": MLP
    | dict(decay=0.5, factor=0.5, drop_at=20, steps=120, every=4, weigh_every=4),
    "intrinsic_lr:only_the_last": MLP
    | dict(first_drop=20, second_drop=40, steps=100, every=10),
    "intrinsic_lr:early": MLP | dict(drop_at=20, steps=200, every=10),
    "intrinsic_lr:hundredth": MLP,
    "intrinsic_lr:rotation": MLP | dict(turn_every=10),
    "intrinsic_lr:swa": MLP
    | dict(decays=(0.1, 0.3), memories=1, steps=200, every=10, seeds=4),
    "intrinsic_lr:mixing": MLP_ALONE
    | dict(intrinsic=(0.02, 0.04), looks=4, images=10, seeds=6),
    "intrinsic_lr:full_batch": MLP
    | dict(lr=0.01, decay=0.13, steps=1000, every=25),  # calm: little of it is chaotic
    "intrinsic_lr:momentum": MLP,
    "intrinsic_lr:batchnorm": MLP,
    "intrinsic_lr:conv": NET,
    "intrinsic_lr:cifar10_*": FEW | STAND_IN | dict(judged=64, batch_size=8),
    "intrinsic_lr:cifar10_[!m]*": NET,
    "intrinsic_lr:cifar10_resnet_bn": dict(weigh_every=10),
    "intrinsic_lr:cifar10_early": dict(drop_at=20, steps=200, every=10),
    "intrinsic_lr:cifar10_mixing": dict(intrinsic=(0.02, 0.04), looks=4, images=10),
    "intrinsic_lr:cifar10_rotation": dict(turn_every=10),
    "catapults:cyclic": CELLS | dict(cycles=1, period=40),
    "catapults:threshold": CELLS | dict(warm_steps=20, steps=20, ratios=(0.5, 2.0)),
    "catapults:batch": CELLS | dict(steps=24, batch_sizes=(4, 2)),
    "catapults:lemma": CELLS | dict(after=(0, 8), points=17),
    "catapults:small_batches*": CELLS
    | dict(batch_sizes=(12, 3), warm_steps=20, steps=10),
    "catapults:small_batches_svhn": dict(target="digits"),
    "catapults:fading*": CELLS
    | dict(cycles=4, period=40, every=80, warm_steps=20, peaks=3.0, batch_size=4),
    "catapults:fading_mnist": dict(dataset="digits"),
    "catapults:ntk": CELLS | dict(cycles=1, period=40, every=20),
    "catapults:adagrad": CELLS | dict(cycles=1, period=40, every=20, warm_steps=20),
    "catapults:features": CELLS | dict(segments=2, pulses=(0, 2)),
    "catapults:control": CELLS | dict(segments=2, pulses=(0, 1)),
    "catapults:toy": dict(width=16, steps=30, seeds=2, ratios=(1.5, 2.5, 4.5)),
    "catapults:batch_edge": dict(train_size=32, hidden=(8,), steps=12, every=4)
    | dict(seeds=2, batch_sizes=(4,), draws=4),
    "catapults:edge": dict(train_size=32, hidden=(8,), steps=60, every=10, seeds=2),
    "catapults:digits": TABLE,
    "catapults:mnist": TABLE,
    "fullbatch:growth_*": dict(devices=(8, 16)),
    "fullbatch:[!bg]*": FEW | dict(log_every=2, evaluate_every=4, checkpoint_every=4),
    "fullbatch:*_table": {f"rows.{r}.{k}": v for r in ROWS for k, v in SLOW.items()}
    | {f"rows.{r}.block": 16 for r in ROWS[:5]}
    | dict(seeds=2),
    "fullbatch:*fb*": ROW,
    "fullbatch:*sgd": ROW | dict(batch_size=16),
    "fullbatch:fb*": STAND_IN,
    "fullbatch:sgd": STAND_IN | dict(stream=True),
    "fullbatch:fb": dict(running_mean=True),
    "fullbatch:fb_clipped": dict(augment="frozen", copies=2),
    "fullbatch:fb_regularized": dict(penalty_form="exact"),
    "fullbatch:fb_strong": dict(penalty_form="central"),
    "fullbatch:digits_fb": dict(probes="sharpness,spikes", probe_every=4),
    "fullbatch:digits_stabilisers": of_rows("both", "clip", "neither", "warmup"),
    "fullbatch:*_plain": of_rows("sgd", "fb", "fb_strong"),
    "fullbatch:digits_plain": of_rows("sgd_tuned"),
    "fullbatch:*_frozen": of_rows("sgd", "fb", "fb_strong") | dict(copies=2),
    "fullbatch:cifar10_*": STAND_IN | {"rows.sgd.batch_size": 16},
    "fullbatch:*_replication": of_rows("sgd_5", "fb_5", "fb_100", "fb_100_clip")
    | of_rows("fb_100_penalty"),
    "fullbatch:[df]*_replication": of_rows("fb_300"),
    "fullbatch:*mnist_replication": dict(dataset="digits"),
    "fullbatch:gd_convex": dict(steps=(4, 16, 64), samples=(2, 16), full_steps=16)
    | dict(seeds=4),
    "fullbatch:batches*": FEW | {"options.hidden": (8,), "target": 1.8},
    "fullbatch:batches": dict(batches=(4, 64), factors=(1, 4), samples=256, least=20)
    | dict(seeds=4),
    "fullbatch:batches_sharpness": dict(batches=(16, 64), steps=300, per_octave=1)
    | dict(seeds=2),
    "landscape:around": dict(points=5),
    "landscape:line": dict(points=9),
    "landscape:between": dict(points=9, other_replica=1),
    "scaling:rare_classes": dict(horizon=64, seeds=3, kappas=(8,))
    | {"options.hidden": (8,)},
    "scaling:rare_rows*": FEW
    | dict(horizon=32, evaluations=2, kappas=(2,), seeds=3, warmup=4, draws=32)
    | OWN_TEXT,
    "scaling:half_life*": FEW
    | dict(horizon=32, evaluations=2, kappas=(2,), seeds=3, warmup=4)
    | OWN_TEXT,
    "scaling:optimum_*": FEW
    | dict(horizon=16, evaluations=2, kappas=(2,), seeds=3, warmup=4, memories=(2,))
    | dict(factors=(0.5, 1, 2))
    | OWN_TEXT,
    "scaling:families*": FEW
    | dict(families=("adam", "muon"), kappas=(2,), horizon=32, evaluations=2, seeds=3),
    "scaling:families_other_v*": dict(families=("adammini", "mars")),
    "scaling:families*[!t]": {"options.hidden": (8,)},
    "scaling:families*_text": OWN_TEXT | {"schedule.warmup": 4},
    "scaling:[!rhof]*": FEW
    | dict(seeds=3, batch_size=8, horizon=32, evaluations=4, kappas=(2,), ells=(2,))
    | dict(svag_until=0.25, probe_until=0.5, probe_seeds=2, draws=32),
    "scaling:digits_normalised": dict(ells=(), probes="invariance"),
    "scaling:digits_sgd": dict(probes="sharpness,ntk,spikes"),
    "scaling:lm": TEXT,
    "scaling:lm_masked": TEXT,
    "scaling:wikitext_gpt": TEXT | dict(group=4),
    "scaling:bert_masked": TEXT | dict(group=4),
    "scaling:cifar10*": STAND_IN
    | {"group": 4, "schedule.warmup": 8, "schedule.milestones": (16,)},
    "descent:animation": dict(steps=20, frames=5),
    "descent:second_moment": dict(steps=40, seeds=4),
    "descent:overshoot": dict(points=10),
    "descent:sensitivity": dict(steps=20, rates=6, betas=4),
    "descent:gd_2d": dict(
        time=0.6, lrs=(0.1, 0.05, 0.025), epoch_lrs=(0.02, 0.01, 0.005)
    ),
    "descent:modified_sde": dict(paths=200, substeps=2),
    "descent:label_noise": dict(seeds=4, sgd_time=1.0, adam_time=0.1),
    "descent:full_gradient": dict(dimension=2, sizes=(64, 512), seeds=2)
    | dict(batches=(1, 8), halvings=12),
    "descent:l2_vs_weight_decay": ON_DIGITS | dict(decays=(0.01, 0.1, 1.0)),
    "descent:perceptron": dict(dimension=8, steps=40, seeds=4),
    "descent:lengths": ON_DIGITS | dict(batch_size=16, factors=(1.0, 4.0)),
    "descent:lengths_text": FEW
    | {k: v for k, v in TEXT.items() if "schedule" not in k}
    | dict(steps=4, seeds=4, factors=(1.0,), lengths=(1.0, 2.0)),
    "descent:starts": FEW | dict(widths=(2, 4, 8), steps=20, seeds=4),
    "descent:schedules": ON_DIGITS | dict(lrs=(0.004, 0.016)),
    "sweep:adam": SWEEP,
    "sweep:adamw": SWEEP,
    "sweep:momentum": SWEEP,
    "sweep:decay*": SWEEP | {"over.l2": (0.0, 0.01), "over.lr": (0.01,), "seeds": 4},
    "sweep:timescale*": FEW
    | {"options.hidden": (8,), "sizes": (32, 64), "lrs": (0.01, 0.02), "seeds": 3}
    | dict(timescales=(1, 2, 4), epochs=2, batch_size=4),
    "batches:regression": dict(dimension=4, steps=512, halvings=2, evaluations=8),
    "batches:[!rc]*": GROWING,
    "batches:rmsprop": GROWING,
    "batches:cifar10*": GROWING | STAND_IN | dict(batch_size=8, group=8, growth=2),
    "batches:lm": OWN_TEXT,
    "batches:critical": FEW
    | dict(seeds=3, horizon=64, times=(16, 32), stretch=16, kappas=(2, 4))
    | dict(fixed=(1, 2), draws=32),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compare", action="store_true", help="two folders")
    parser.add_argument("folder", nargs="+", help="then NAME or NAME:PRESET; else all")
    given = parser.parse_args()
    if given.compare:
        before, after, *names = given.folder
        return compare(Path(before), Path(after), names)
    folder, *names = given.folder
    return record(Path(folder), names)


# ---- recording


def record(folder: Path, names: list[str]) -> int:
    """Run presets and write a file of each into the folder; 1 if one failed."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = presets(names)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        states = list(pool.map(partial(record_preset, folder), chosen))
    failed = [p for p, state in zip(chosen, states, strict=True) if state != "done"]
    print(f"{len(chosen)} presets in {folder}, failed: {', '.join(failed) or 'none'}")
    return int(bool(failed))


def presets(names: list[str]) -> list[str]:
    """NAME:PRESET of the studies and presets that are named, or of all."""
    chosen = []
    for name in names or STUDIES:
        study, _, preset = name.partition(":")
        known = runpy.run_path(f"configs/{study}.py")["PRESETS"]
        chosen += [f"{study}:{each}" for each in ([preset] if preset else known)]
    return chosen


def record_preset(folder: Path, preset: str) -> str:
    """Write FOLDER/NAME-PRESET.json and copy the figures; returns the status."""
    begun, kept = time.monotonic(), folder / preset.replace(":", "-")
    with tempfile.TemporaryDirectory() as scratch:
        trained, place = Path(scratch, "trained"), Path(scratch, "run")
        if preset.startswith("landscape:"):
            run("fullbatch:digits_sgd", trained, seeds=2)
            ended = run(preset, place, run=trained)
        else:
            ended = run(preset, place)
        lines = ended.stdout.strip().splitlines()
        content: dict[str, Any] = dict(
            status=f"exit code {ended.returncode}",
            verdicts=[],
            printed=[line for line in lines if scratch not in line],
            seconds=round(time.monotonic() - begun, 1),
        )
        if ended.returncode == 0:
            summary = json.loads((place / "summary.json").read_text())
            content |= {name: summary[name] for name in ("status", "verdicts")}
            figures = folder / "figures" / kept.name
            shutil.copytree(place / "figures", figures, dirs_exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False)
    kept.with_suffix(".json").write_text(text + "\n")
    status, seconds = content["status"], content["seconds"]
    print(f"{preset:36} {seconds:6.1f} s  {status}", flush=True)
    if status != "done":
        print(ended.stderr, file=sys.stderr)
    return status


def run(preset: str, place: Path, **settings) -> subprocess.CompletedProcess[str]:
    """The command of a preset in its small form, on two CPU devices."""
    study, _, name = preset.partition(":")
    small: dict[str, Any] = {}
    for pattern, changes in SMALL.items():
        if fnmatch.fnmatchcase(preset, pattern):
            small |= changes
    small |= settings
    command = [sys.executable, "-m", f"experiments.{study}", "--devices=2"]
    command += [f"--config=configs/{study}.py:{name}", f"--workdir={place}"]
    command += [f"--config.{key}={value}" for key, value in small.items()]
    own = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    own["JAX_PLATFORMS"] = "cpu"
    return subprocess.run(command, capture_output=True, text=True, env=own)


# ---- comparing


def compare(before: Path, after: Path, names: list[str]) -> int:
    """Print what differs; 1 if anything does."""
    chosen = [n.replace(":", "-") if ":" in n else f"{n}-*" for n in names or ["*"]]
    folders = before, after
    kept = {f.stem for x in folders for p in chosen for f in x.glob(f"{p}.json")}
    differing, errors = 0, {"": 0.0}
    for name in sorted(kept):
        files = [folder / f"{name}.json" for folder in folders]
        lines = [f"  no {file}" for file in files if not file.exists()]
        if not lines:
            old, new = (json.loads(file.read_text()) for file in files)
            if old["status"] != new["status"]:
                lines += [f"  status: {old['status']}, now {new['status']}"]
            lines += verdict_differences(name, old["verdicts"], new["verdicts"], errors)
            lines += printed_differences(old["printed"], new["printed"])
        if lines:
            differing += 1
            print(name, *lines, sep="\n")
    worst = max(errors, key=lambda claim: errors[claim])
    print(f"{differing} of {len(kept)} presets differ")
    print(f"largest relative difference of a verdict: {errors[worst]:.1g} {worst}")
    return int(differing > 0 or not kept)


def verdict_differences(
    name: str, old: list[dict], new: list[dict], errors: dict[str, float]
) -> list[str]:
    """Returns the differences by claim; relative ones are added to `errors`."""
    lines = []
    was, now = ({verdict["claim"]: verdict for verdict in x} for x in (old, new))
    for claim in was | now:
        if claim not in was or claim not in now:
            lines += [f"  {claim}: only {'before' if claim in was else 'after'}"]
            continue
        a, b = was[claim], now[claim]
        scale = max(abs(a.get(part) or 0.0) for part in NUMBERS) or 1.0
        for part in a | b:
            x, y = a.get(part), b.get(part)
            close = x == y
            if part in NUMBERS and x is not None and y is not None:
                error = abs(x - y) / scale
                key = f"{name}: {claim}"
                errors[key] = max(error, errors.get(key, 0.0))
                close = error <= TOLERANCE
            if not close:
                lines += [f"  {claim}: {part} {x}, now {y}"]
    return lines


def printed_differences(old: list[str], new: list[str]) -> list[str]:
    """Lines before (-) and after (+), whatever the widths of their columns."""

    def words(lines):
        return [" ".join(re.sub("─+", "─", x).split()) for x in lines if x.strip()]

    changes = difflib.unified_diff(words(old), words(new), n=0, lineterm="")
    return [f"  {x}" for x in changes if not x.startswith(("---", "+++", "@@"))]


if __name__ == "__main__":
    sys.exit(main())
