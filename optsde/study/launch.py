"""From a command line to a study: flags, checks before anything runs, exit codes.

    python -m experiments.NAME [--config=FILE.py:PRESET] [--config.KEY=VALUE …]
                               [--workdir=DIR] [--fresh]

A finished part of a run is read and not run again; --fresh moves the old run aside, to
DIR.1 or the next number, and begins anew.

Exit code 0: done. 1: the run diverged. 2: the command was wrong, and nothing was
written. 3: it failed; the reason is in summary.json, the traceback in crash.log, or on
the screen with OPTSDE_TRACEBACK=1. 130: interrupted. After 3 and 130 the same command
goes on where it stopped; a corrected one may take the directory if nothing is finished
there.

A config file has PRESETS, names with a text for each, and get_config(preset), which
returns the ConfigDict of that preset. It may have task(config), which returns the
`Task` to train on in place of the built-in one. One with task(config) and without
get_config is for any study: see `optsde.study.own`.
"""

import dataclasses
import gc
import hashlib
import importlib.util
import json
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from optsde import hosts
from optsde.data.loading import path_of
from optsde.mesh import enable_compilation_cache, expose_cpu_cores
from optsde.run.loop import DivergedError
from optsde.run.writers import refuse_missing
from optsde.study import own, provenance
from optsde.study.failure import TRACEBACK, reason, silence_threads, where
from optsde.study.rundir import CRASH, RunDir
from optsde.study.settings import Group, Settings
from optsde.study.shapes import Leaf, UsageError, unknown_setting
from optsde.study.study import Study, choose, run
from optsde.study.values import kind_of_text, shown

WORKDIR = "--workdir=DIR, --fresh (begin anew, the old run is moved aside)"
DRY_RUN = "--dry_run (only say what would run)"
WRITERS = "--writers=tensorboard,wandb (who take the rows of every run)"
HOSTS = (
    "--coordinator=HOST:PORT --num_processes=N --process_id=I (where several share a "
    "run, and no TPU pod, SLURM or MPI says so)"
)
ACCELERATORS = (
    "with --dry_run, of the machine that it is meant for: --pod=N (accelerators), "
    "--flops=F (peak FLOP/s of each), --share=S (of it that is reached, .4), "
    "--bandwidth=B (bytes/s that each sends), --memory=M (bytes of each)"
)
MACHINE = "pod", "flops", "share", "bandwidth", "memory"
OTHER_FLAGS = f"{WORKDIR}, {WRITERS}, --devices=N (of the CPU), {HOSTS}, --help"
FIRST = (
    *("dataset", "model", "function", "optimizer.name", "optimizer.lr", "lr", "lrs"),
    *("batch_size", "horizon", "steps", "kappas", "ells", "seeds"),
)
CODES = (
    "exit code: 0 done, 1 diverged, 2 the command was wrong, 3 failed, 130 interrupted"
)
HELP = ("-h", "--help", "-help", "--helpfull")
PROCESSES = ("coordinator", "num_processes", "process_id")


@dataclasses.dataclass(frozen=True)
class Preset:
    """A name's settings, and a line about them for `--help`."""

    text: str
    settings: Settings | Mapping[str, Any]  # a dict in a file for any study

    def __str__(self) -> str:
        return self.text


def presets(table: Mapping[str, Preset], default: str) -> Callable[..., ConfigDict]:
    """Returns the get_config of a config file: name of a preset -> ConfigDict."""

    def get_config(preset: str = default) -> ConfigDict:
        settings = table[preset].settings
        assert isinstance(settings, Settings)
        return settings.config()

    return get_config


@dataclasses.dataclass(frozen=True)
class Package:
    """Studies that share a command: python -m experiments.NAME.

    doc: the head of `--help`. style: settings of matplotlib for all figures.
    """

    name: str
    doc: str
    studies: Sequence[Study]
    style: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def main(self) -> None:
        """Parses the command line, checks it and runs the study that it names."""
        try:
            command = _parse(self, sys.argv)
            # Before a check that computes.
            _prepare_devices(command.devices, command.processes)
            study, settings = command.study, command.settings.checked()
            if command.dry_run:
                make = command.task
                tasks = [make(settings.config())] if make else []
                assert study.dry_run is not None
                study.dry_run(settings, *tasks, **command.machine)
                return
            config = settings.config()
            place = command.workdir or _place(self.name, command, config)
            if hosts.several():
                stamp = provenance.present()
                whose = stamp["revision"], stamp["code"]
                given = config.to_json(), command.sources, whose
                hosts.check_alike("settings, files or code", given)
            rundir = RunDir.open(
                Path(place), self.name, config, command.sources, command.fresh
            )
        except (UsageError, ValueError, OSError) as error:
            sys.exit(self._complain(str(error), 2))
        except Exception as error:
            sys.exit(self._fail(error))
        what = f"{self.name}, preset {command.preset}, on {hosts.devices()}"
        print(f"{what}; run directory: {place}", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            run(study, settings, rundir, command.task, self.style, command.writers)
            hosts.broadcast(lambda: None)  # the last words of process 0 are written
        except UsageError as error:
            sys.exit(self._complain(str(error), 2))
        except DivergedError as error:
            sys.exit(self._complain(f"diverged: {error}", 1))
        except KeyboardInterrupt:
            hint = "the same command goes on from what is finished"
            if command.fresh:
                hint = hint.replace("command", "command without --fresh")
            print(file=sys.stderr)
            sys.exit(self._complain(f"interrupted; {hint}", 130))
        except Exception as error:
            code = self._fail(error, rundir.path)
            if hosts.several():
                hosts.leave(code)  # who waits for this process may know
            sys.exit(code)

    def _fail(self, error: Exception, folder: Path = Path()) -> int:
        """Prints in one line what has failed; returns the exit code."""
        silence_threads()
        message = f"failed: {reason(error, folder)} ({where(error)})"
        log = folder / CRASH
        if os.environ.get(TRACEBACK):
            traceback.print_exception(error)
        elif log.is_file():
            message += f"; the traceback is in {log}"
        else:
            message += f"; {TRACEBACK}=1 shows the traceback"
        return self._complain(message, 3)

    def _complain(self, message: str, code: int) -> int:
        """Prints a message in one line; returns the exit code."""
        line = " ".join(message.split())
        whose = f" (process {hosts.index()})" if hosts.several() else ""
        print(f"experiments.{self.name}{whose}: {line}", file=sys.stderr)
        return code


def _prepare_devices(count: int | None, processes: tuple) -> None:
    expose_cpu_cores(count)
    hosts.connect(*processes)
    enable_compilation_cache()
    if not hosts.first():  # one prints for all
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def _place(name: str, command: "_Command", config: ConfigDict) -> Path:
    """runs/NAME/PRESET-HASH: one place for each set of settings, and of sources."""
    text = json.dumps(config.to_dict(), sort_keys=True)
    if command.sources:
        text += json.dumps(command.sources, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return Path("runs") / name / f"{command.preset}-{digest}"


# ---- the command line


@dataclasses.dataclass(frozen=True)
class _Command:
    study: Study
    settings: Settings
    preset: str
    task: Callable[[ConfigDict], Any] | None
    workdir: str | None
    devices: int | None
    processes: tuple  # what `hosts.connect` takes
    dry_run: bool
    machine: Mapping[str, float]  # that a dry run is for, where it is not this one
    fresh: bool
    writers: Sequence[str]
    sources: Mapping[str, str]


def _parse(package: Package, argv: list[str]) -> _Command:
    default = f"configs/{package.name}.py"
    general = flags.FlagValues()
    general.set_gnu_getopt(True)
    flags.DEFINE_string("config", default, "FILE.py:PRESET", flag_values=general)
    flags.DEFINE_string("workdir", None, "run directory", flag_values=general)
    flags.DEFINE_boolean("dry_run", False, "only show costs", flag_values=general)
    flags.DEFINE_list("writers", [], "tensorboard, wandb", flag_values=general)
    flags.DEFINE_integer("pod", None, "accelerators", 1, flag_values=general)
    flags.DEFINE_float("flops", None, "peak of each", 1, flag_values=general)
    flags.DEFINE_float("share", None, "of that peak", 0, 1, flag_values=general)
    flags.DEFINE_float("bandwidth", None, "bytes/s", 1, flag_values=general)
    flags.DEFINE_float("memory", None, "bytes of each", 1, flag_values=general)
    flags.DEFINE_boolean("fresh", False, "begin anew", flag_values=general)
    flags.DEFINE_integer("devices", None, "CPU devices", 1, flag_values=general)
    flags.DEFINE_string("coordinator", None, "HOST:PORT", flag_values=general)
    flags.DEFINE_integer("num_processes", None, "how many", 1, flag_values=general)
    flags.DEFINE_integer("process_id", None, "which", 0, flag_values=general)
    helping = any(argument in HELP for argument in argv[1:])
    argv = [argument for argument in argv if argument not in HELP]
    try:
        rest = general(argv, known_only=True)
    except flags.Error as error:
        raise UsageError(_without_prefix(error)) from None
    path, _, preset = str(general["config"].value).partition(":")
    module = _load(_find(package, path))
    if own.is_own(module):
        preset = preset or next(iter(module.PRESETS))
    study, settings = _chosen(package, module, path, preset, rest)
    if helping:
        print(_help(package, module, path, settings, study))
        gc.freeze()  # the exit does not look for garbage in all that was imported
        sys.exit(0)
    task = vars(module).get("task")
    if task is not None:
        own.refuse(study, package.studies, path)
        own.note(path, rest)
        task = own.checked(task, path)
    if general["dry_run"].value and study.dry_run is None:
        having = ", ".join(x.key for x in package.studies if x.dry_run) or "none"
        raise UsageError(
            f"--dry_run: the study {study.key} has none; of experiments.{package.name} "
            f"these have one: {having}"
        )
    given = {name: general[name].value for name in MACHINE}
    machine: Any = {name: x for name, x in given.items() if x is not None}
    if machine and not (general["dry_run"].value and study.says_costs):
        costly = ", ".join(x.key for x in package.studies if x.says_costs) or "none"
        raise UsageError(
            f"--{next(iter(machine))}: is for --dry_run of a study that says its "
            f"costs, of experiments.{package.name}: {costly}"
        )
    try:
        refuse_missing(general["writers"].value or ())
    except ValueError as error:
        raise UsageError(f"--writers: {error}") from None
    settings = _with_flags(settings, rest, path)
    return _Command(
        study=study,
        settings=settings,
        preset=preset or vars(module).get("DEFAULT", "default"),
        task=task,
        workdir=general["workdir"].value,
        devices=general["devices"].value,
        processes=tuple(general[name].value for name in PROCESSES),
        dry_run=bool(general["dry_run"].value),
        machine=machine,
        fresh=bool(general["fresh"].value),
        writers=tuple(general["writers"].value or ()),
        sources=_sources(settings, path if task is not None else ""),
    )


def _sources(settings: Settings, own: str) -> dict[str, str]:
    """Returns the digests of the files that numbers come from: own task, data set."""
    named = [str(x.value) for x in settings.leaves() if x.name == "dataset"]
    paths = [Path(own).resolve() if own else None, *map(path_of, named)]
    return {str(path): provenance.digest(path) for path in paths if path}


def _find(package: Package, path: str) -> str:
    """Returns the config file: the one of this path, else that of the studies' own.

    Their configs/ lies beside the studies in a checkout, among them in a wheel.
    """
    if os.path.isfile(path):
        return path
    module = sys.modules[package.studies[0].name].__file__ or ""
    studies = Path(module).parent.parent
    for place in (studies, studies.parent):
        if path.startswith("configs/") and (place / path).is_file():
            return str(place / path)
    raise UsageError(
        f"--config={path}: no such file; give a path, or a preset of the studies' own, "
        "as in --config=configs/svag.py:digits"
    )


def _load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("config", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--config={path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"--config={path}: {type(error).__name__}: {error}") from None
    if "PRESETS" not in vars(module) or not {"get_config", "task"} & set(vars(module)):
        raise UsageError(
            f"--config={path}: needs PRESETS, and task(config) or get_config(preset); "
            "`python -m experiments new FILE.py` writes an example"
        )
    return module


def _chosen(
    package: Package, module: ModuleType, path: str, preset: str, flags: list[str]
) -> tuple[Study, Settings]:
    """Returns the study that a preset is of, or for, and its settings there."""
    if preset and preset not in module.PRESETS:
        raise UsageError(
            f"--config={path}:{preset}: no such preset; one of: "
            f"{', '.join(module.PRESETS)}"
        )
    if own.is_own(module):
        settings = getattr(module.PRESETS[preset], "settings", None)
        if not isinstance(settings, Mapping):
            raise UsageError(
                f"--config={path}:{preset}: needs Preset(text, dict(…)) of settings"
            )
        prefix = "--config.study="
        keys = [flag.removeprefix(prefix) for flag in flags if flag.startswith(prefix)]
        key, where = keys[-1] if keys else None, f"{path}:{preset}"
        return own.settings_for(package.name, package.studies, where, settings, key)
    base = module.get_config(preset) if preset else module.get_config()
    study = choose(package.studies, base.get("study"))
    return study, study.settings.of(base)


class _Parser(flags.ArgumentParser):
    """Reads the text of one setting."""

    def __init__(self, leaf: Leaf):
        self.leaf = leaf

    def parse(self, argument: Any) -> Any:
        try:
            return self.leaf.kind.parse(argument)
        except ValueError:
            raise ValueError(self.leaf.needed) from None


def _with_flags(settings: Settings, argv: list[str], path: str) -> Settings:
    """The settings, changed by --config.NAME=VALUE, each of which is a flag."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    leaves = list(settings.leaves())
    leaves += _options(settings, argv, {leaf.name for leaf in leaves})
    for leaf in leaves:
        define = flags.Flag(_Parser(leaf), None, f"config.{leaf.name}", None, "")
        if leaf.kind.element is bool:
            define = flags.BooleanFlag(f"config.{leaf.name}", None, "")
        flags.DEFINE_flag(define, values)
    flags.DEFINE_string("config.study", None, "", flag_values=values)
    try:
        rest = values(argv)
    except flags.UnrecognizedFlagError as error:
        raise UsageError(_explain_unknown(error.flagname, leaves)) from None
    except flags.Error as error:
        raise UsageError(_without_prefix(error)) from None
    if len(rest) > 1:
        raise UsageError(f"{rest[1]!r} is not a flag; see --help")
    if values["config.study"].value not in (None, settings.study()):
        raise UsageError(
            f"--config.study={values['config.study'].value}: is set by the preset; "
            f"take one of that study, as in --config={path}:PRESET"
        )
    config = settings.plain()
    for leaf in leaves:
        if (value := values[f"config.{leaf.name}"].value) is not None:
            *groups, name = leaf.name.split(".")
            group = config
            for key in groups:
                group = group[key]
            group[name] = value
    return settings.of(config)


def _options(settings: Settings, argv: list[str], known: set[str]) -> Iterator[Leaf]:
    """Yields the free options of a command line that the preset does not name."""
    for argument in argv[1:]:
        flag, _, text = argument.partition("=")
        name = flag.lstrip("-").removeprefix("config.")
        if name.rpartition(".")[0] in settings.free() and name not in known:
            known.add(name)
            yield Leaf(name, text, kind_of_text(text), "")


def _explain_unknown(flag: str, leaves: list[Leaf]) -> str:
    """Returns what to write in place of a flag that there is not."""
    name = flag.removeprefix("no")
    if not name.startswith("config."):
        return (
            f"--{flag} is no flag; allowed: --config, --config.KEY=VALUE, {OTHER_FLAGS}"
        )
    name, names = name.removeprefix("config."), [leaf.name for leaf in leaves]
    if inner := [known for known in names if known.startswith(f"{name}.")]:
        return f"--config.{name}: set one of {', '.join(inner)} instead"
    return unknown_setting(name, names)


def _without_prefix(error: Exception) -> str:
    """The message of absl, which begins with *flag*."""
    return str(error).removeprefix("flag ")


def _help(
    package: Package, module: ModuleType, path: str, settings: Settings, study: Study
) -> str:
    width = max(map(len, module.PRESETS))
    besides = [OTHER_FLAGS]
    besides += [DRY_RUN] if study.dry_run else []
    besides += [ACCELERATORS] if study.says_costs else []
    first, others = [], []
    for leaf in settings.leaves():
        if not settings.in_table(leaf.name):
            (first if leaf.name in FIRST else others).append(leaf)
    lines = [
        package.doc.strip(),
        "",
        f"usage: python -m experiments.{package.name} [--config={path}:PRESET] "
        "[--config.KEY=VALUE ...]",
        f"besides: {', '.join(besides)}",
        CODES,
        "",
        "presets:",
        *(f"  {name:{width}} {text}" for name, text in module.PRESETS.items()),
        "",
        "settings that matter first, with their values in this preset:",
        *map(_line, first),
        "",
        "the others:",
        *map(_line, others),
    ]
    for name, table in settings.tables().items():
        lines += ["", f"of each NAME among {', '.join(table)}:"]
        for key, leaves in _by_key(table).items():
            same = len({leaf.value for leaf in leaves}) == 1
            shows = next((leaf for leaf in leaves if leaf.value), leaves[0])
            shows = shows._replace(name=f"{name}.NAME.{key}")
            lines.append(_line(shows, "" if same else "…"))
    return "\n".join(lines)


def _line(leaf: Leaf, value: str = "") -> str:
    """Returns a setting's line, or two where its value is long."""
    option = f"  --config.{leaf.name}={value or shlex.quote(shown(leaf.value))}"
    if len(option) > 38 and leaf.help:
        return f"{option}\n{'':38} {leaf.help}"
    return f"{option:38} {leaf.help}".rstrip()


def _by_key(table: Mapping[str, Group]) -> dict[str, list[Leaf]]:
    """Returns the settings of each entry of a table, by their names in an entry."""
    found: dict[str, list[Leaf]] = {}
    for entry in table.values():
        for leaf in entry.leaves():
            found.setdefault(leaf.name, []).append(leaf)
    return found
