"""From a command line to a study: flags, checks before anything runs, exit codes.

    python -m experiments.NAME [--config=FILE.py:PRESET] [--config.KEY=VALUE …]
                               [--workdir=DIR]

Exit code 0: done. 1: the run diverged. 2: the command was wrong, and nothing was
written. 130: interrupted; the same command goes on where it stopped.
"""

import dataclasses
import difflib
import hashlib
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments.rundir import RunDir
from optsde.mesh import enable_compilation_cache, expose_cpu_cores
from optsde.optimizers import Optimizer, by_name
from optsde.run import Trajectory
from optsde.run.loop import DivergedError

OTHER_FLAGS = "--workdir=DIR, --devices=N (of the CPU), --dry_run, --help"


class UsageError(Exception):
    """The user's input cannot be run; the message says what can."""


def require(holds: bool, config, name: str, allowed: str, prefix: str = "") -> None:
    """Refuse a setting unless it holds, and say what is allowed."""
    if not holds:
        raise UsageError(f"--config.{prefix}{name}={config[name]}: needs {allowed}")


def launch(
    study: str,
    doc: str,
    default: str,
    check: Callable[[ConfigDict], None],
    run: Callable[[ConfigDict, RunDir], None],
    dry_run: Callable[[ConfigDict], None] | None = None,
) -> None:
    """Parse, check, run; the whole of a study's `main`.

    `check(config)` raises UsageError. `default` is the config used where none is named.
    `dry_run(config)`, where there is one, is what the flag --dry_run runs instead.
    """
    try:
        config, preset, given = _parse(study, doc, default, sys.argv)
        check(config)
        if given.dry_run and dry_run is None:
            raise UsageError("--dry_run: this study has none")
        if given.dry_run and dry_run is not None:
            _prepare_devices(given.devices)
            dry_run(config)
            return
        rundir = RunDir.open(
            _place(study, preset, config, given.workdir), study, config
        )
    except (UsageError, ValueError, OSError) as error:
        message = " ".join(str(error).split())
        sys.exit(_complain(f"experiments.{study}: {message}", 2))
    _prepare_devices(given.devices)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run(config, rundir)
    except UsageError as error:
        rundir.withdraw()
        sys.exit(_complain(f"experiments.{study}: {error}", 2))
    except DivergedError as error:
        rundir.finish("diverged", [], reason=str(error))
        sys.exit(_complain(f"experiments.{study}: diverged: {error}", 1))
    except KeyboardInterrupt:
        rundir.finish("interrupted", [])
        hint = "the same command goes on from what is finished"
        sys.exit(_complain(f"\nexperiments.{study}: interrupted; {hint}", 130))


def optimizer_of(config: ConfigDict) -> Optimizer:
    """The optimizer that config.optimizer names and sets."""
    options = config.optimizer.to_dict()
    name = options.pop("name")
    family = by_name(name)
    fields = [field.name for field in dataclasses.fields(family)]
    if sorted(options) != sorted(fields):
        raise UsageError(
            f"--config.optimizer.name={name}: it has the settings {', '.join(fields)}, "
            "this preset those of another optimizer; see --help for the presets"
        )
    try:
        return family(**options).checked()
    except ValueError as error:
        raise UsageError(f"--config.optimizer.{error}") from None


def refuse_divergence(trajectory: Trajectory, label: str, hint: str) -> None:
    """End the study where a run has left the finite numbers."""
    if (span := trajectory.diverged()) is not None:
        first, last = span
        raise DivergedError(f"{label} between t = {first:g} and {last:g}; {hint}")


def _prepare_devices(count: int | None) -> None:
    expose_cpu_cores(count)
    enable_compilation_cache()


def _complain(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def _parse(study: str, doc: str, default: str, argv: list[str]):
    """(config, name of the preset, values of the other flags)."""
    path, _, preset = _config_argument(argv, default).partition(":")
    module = _load(path)
    base = _preset(module, path, preset)
    if any(a in ("-h", "--help", "-help", "--helpfull") for a in argv[1:]):
        print(_help(study, doc, module, path, base))
        sys.exit(0)
    argv = _without_config(argv)
    _check_keys(argv, base)
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", base, flag_values=values, sys_argv=argv)
    flags.DEFINE_string("workdir", None, "run directory", flag_values=values)
    flags.DEFINE_boolean("dry_run", False, "only say what it costs", flag_values=values)
    flags.DEFINE_integer("devices", None, "CPU devices", 1, flag_values=values)
    try:
        rest = values(argv)
    except flags.Error as error:
        raise UsageError(_explain_flag(error, base)) from None
    if len(rest) > 1:
        raise UsageError(f"{rest[1]!r} is not a flag; see --help")
    config: Any = values["config"].value
    _split_names(config)
    fresh = _preset(module, path, preset)
    _check_tuples(config, fresh)
    if config.get("study") != fresh.get("study"):
        raise UsageError(
            f"--config.study={config.study}: is set by the preset; take one of that "
            f"study, as in --config={path}:PRESET"
        )
    return config, preset or getattr(module, "DEFAULT", "default"), values


def _config_argument(argv: list[str], default: str) -> str:
    for i, argument in enumerate(argv):
        if argument in ("--config", "-config"):
            if i + 1 == len(argv):
                raise UsageError(f"{argument}: names no config; such as {default}")
            return argv[i + 1]
        if argument.startswith(("--config=", "-config=")):
            return argument.partition("=")[2]
    return default


def _without_config(argv: list[str]) -> list[str]:
    """The command line without the name of the config, which is loaded already.

    Of a setting given twice the last counts; config_flags would join two lists.
    """
    rest = [a for a in argv if not a.startswith(("--config=", "-config="))]
    for name in ("--config", "-config"):
        if name in rest:
            at = rest.index(name)
            del rest[at : at + 2]
    last = {a.partition("=")[0]: i for i, a in enumerate(rest) if "=" in a}
    return [a for i, a in enumerate(rest) if last.get(a.partition("=")[0], i) == i]


def _load(path: str) -> ModuleType:
    if not os.path.isfile(path):
        raise UsageError(
            f"--config={path}: no such file; run from the project's folder, or give a "
            "path, as in --config=configs/svag.py:digits"
        )
    spec = importlib.util.spec_from_file_location("config", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--config={path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"--config={path}: {type(error).__name__}: {error}") from None
    if not (hasattr(module, "get_config") and hasattr(module, "PRESETS")):
        raise UsageError(f"--config={path}: needs get_config(preset) and PRESETS")
    return module


def _preset(module: ModuleType, path: str, preset: str) -> ConfigDict:
    presets = list(getattr(module, "PRESETS", {}))
    if preset and preset not in presets:
        raise UsageError(
            f"--config={path}:{preset}: no such preset; one of: {', '.join(presets)}"
        )
    return module.get_config(preset) if preset else module.get_config()


def _check_keys(argv: list[str], base: ConfigDict) -> None:
    allowed = list(_flatten(base))
    groups = {key.rpartition(".")[0] for key in allowed} - {""}
    for argument in argv[1:]:
        name = argument.partition("=")[0].lstrip("-").removeprefix("no")
        if not name.startswith("config."):
            continue
        key = name.removeprefix("config.")
        if key in groups:
            inner = [k for k in allowed if k.startswith(key + ".")]
            raise UsageError(f"--{name}: set one of {', '.join(inner)} instead")
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UsageError(
                f"--{name}: no such setting; {hint}allowed: {', '.join(allowed)}"
            )


def _explain_flag(error: Exception, base: ConfigDict) -> str:
    text = str(error)
    for key, value in _flatten(base).items():
        if f"config.{key}=" in text or f"config.{key} " in text:
            given = text.partition(f"config.{key}=")[2].partition(":")[0]
            return f"--config.{key}={given}: {_needed(value)}"
    return f"{text}; allowed: --config, --config.KEY=VALUE, {OTHER_FLAGS}"


def _needed(default) -> str:
    kinds = {int: "an integer", float: "a number", bool: "true or false", str: "a name"}
    kind = kinds.get(type(default), "a list of numbers")
    if isinstance(default, tuple) and all(isinstance(x, int) for x in default):
        kind = "a list of integers"
    elif isinstance(default, tuple) and all(isinstance(x, str) for x in default):
        kind = "a list of names"
    return f"needs {kind}, such as the default {_shown(default)}"


def _split_names(config: ConfigDict) -> None:
    """a,b for a list that is empty by default arrives as one name."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            _split_names(value)
        elif isinstance(value, tuple) and all(isinstance(x, str) for x in value):
            names = [name.strip() for x in value for name in x.split(",")]
            config[key] = tuple(name for name in names if name)


def _check_tuples(config: ConfigDict, base: ConfigDict) -> None:
    """config_flags takes anything for an element; allow what the defaults are."""
    given = _flatten(config)
    for key, default in _flatten(base).items():
        if not (isinstance(default, tuple) and default):
            continue
        allowed = (int, float) if isinstance(default[0], float) else type(default[0])
        if not all(isinstance(x, allowed) for x in given[key]):
            raise UsageError(f"--config.{key}={_shown(given[key])}: {_needed(default)}")


def _flatten(config: ConfigDict, prefix: str = "") -> dict:
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _shown(value) -> str:
    if isinstance(value, tuple):
        return "'" + ",".join(map(str, value)) + "'"
    return repr(value) if isinstance(value, str) else str(value)


def _help(study: str, doc: str, module: ModuleType, path: str, base: ConfigDict) -> str:
    width = max(map(len, module.PRESETS))
    presets = [f"  {name:{width}} {text}" for name, text in module.PRESETS.items()]
    settings = [f"  --config.{k}={_shown(v)}" for k, v in _flatten(base).items()]
    usage = (
        f"usage: python -m experiments.{study} [--config={path}:PRESET] "
        f"[--config.KEY=VALUE ...]\nbesides: {OTHER_FLAGS}"
    )
    parts = [doc.strip(), usage, "presets:", *presets, "settings and defaults:"]
    return "\n".join([parts[0], "", parts[1], "", *parts[2:], *settings])


def _place(study: str, preset: str, config: ConfigDict, workdir: str | None) -> Path:
    """runs/STUDY/PRESET-HASH: one place for each set of settings."""
    if workdir:
        return Path(workdir)
    text = json.dumps(config.to_dict(), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return Path("runs") / study / f"{preset}-{digest}"
