"""A config file of one's own: net and data for any study, by task(config).

It has PRESETS, for each name a `Preset` of a dict of settings, and no get_config. An
entry that is named as a package of studies, such as svag=dict(…), is for that package
alone; all others are for every study that has such settings. `python -m experiments new
FILE.py` writes one.
"""

import difflib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from optsde.study.settings import Settings
from optsde.study.shapes import UsageError
from optsde.study.study import Study
from optsde.study.tasks import LabelSettings


def is_own(module: ModuleType) -> bool:
    """Returns whether a config file is for any study, and not the presets of one."""
    return "get_config" not in vars(module) and "task" in vars(module)


def settings_for(
    name: str, studies: Sequence[Study], where: str, preset: Mapping, key: str | None
) -> tuple[Study, Settings]:
    """Returns the study of a package that a preset is for, and its settings.

    Args:
      name: of the package.
      studies: of the package.
      where: file and preset, for errors.
      preset: the dict of settings.
      key: of the study; None takes what the preset names, else the first that takes a
        task of one's own.
    """
    shared = dict(preset)
    packages = {name, *_packages(studies[0])}
    sections = {n: shared.pop(n) for n in list(shared) if n in packages}
    for n, section in sections.items():
        if not isinstance(section, Mapping | ConfigDict):
            raise UsageError(
                f"--config={where}: {n}={section!r}: needs the settings of that study, "
                f"as {n}=dict(…)"
            )
    own = dict(sections.get(name, {}))
    key = key or own.pop("study", None)
    study = _chosen(studies, where, key)
    known = study.settings().plain()
    for n, value in shared.items():
        if isinstance(value, Mapping) and n not in known:
            raise UsageError(
                f"--config={where}: {n} is no setting and no study; "
                f"{_near(n, [*packages, *known])}studies: {', '.join(sorted(packages))}"
            )
    if left := [f"{n}{_hint(n, known)}" for n in shared if n not in known]:
        print(
            f"note: experiments.{name} ({study.key}) has no setting {', '.join(left)}; "
            f"{where} sets it for others",
            file=sys.stderr,
        )
    used = {n: value for n, value in shared.items() if n in known}
    return study, study.settings.of(used | own)


def checked(task: Callable[[Any], Any], where: str) -> Callable[[Any], Any]:
    """Returns task(config) with its errors in one line, and its result checked."""

    def make(config: Any) -> Any:
        try:
            made = task(config)
        except ValueError as error:
            raise UsageError(f"--config={where}: task(config): {error}") from None
        if not hasattr(made, "losses"):
            raise UsageError(
                f"--config={where}: task(config) returns {type(made).__name__}: needs "
                "an optsde.run.Task, as task_of(dataset, net) makes one"
            )
        return made

    return make


def refuse(study: Study, studies: Sequence[Study], where: str) -> None:
    """Refuses a task of one's own where the study's task is part of its question."""
    if study.task is not None and not study.fixed_task:
        return
    why = study.fixed_task or "it trains no net on data"
    others = [other.key for other in studies if _takes(other)]
    hint = f"; these do: {', '.join(others)}" if others else ""
    raise UsageError(
        f"--config={where}: defines task(config), and the study {study.key} takes "
        f"no task: {why}{hint}"
    )


def note(path: str, flags: Iterable[str]) -> None:
    """Says which flags of a command count only where task(config) reads them."""
    built_in = set(LabelSettings().plain()) - {"seed", "known_false"}
    names = [flag.partition("=")[0].removeprefix("--config.") for flag in flags]
    if given := [n for n in names if n.partition(".")[0] in built_in]:
        print(
            f"note: net and data are those of {path}: {', '.join(given)} counts only "
            "where its task(config) reads it",
            file=sys.stderr,
        )


def _chosen(studies: Sequence[Study], where: str, key: str | None) -> Study:
    by_key = {study.key: study for study in studies}
    if key is not None and key not in by_key:
        raise UsageError(f"--config.study={key}: needs one of {', '.join(by_key)}")
    if key is None:
        key = next((study.key for study in studies if _takes(study)), studies[0].key)
    refuse(by_key[key], studies, where)
    return by_key[key]


def _takes(study: Study) -> bool:
    return study.task is not None and not study.fixed_task


def _packages(study: Study) -> list[str]:
    """Returns the names of the packages of studies beside that of a study."""
    root: Any = sys.modules.get(study.name.partition(".")[0])
    places = getattr(root, "__path__", [])
    return [found.name for found in pkgutil.iter_modules(places) if found.ispkg]


def _near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, names, 1, cutoff=0.85)
    return f"did you mean {near[0]}? " if near else ""


def _hint(name: str, names: Iterable[str]) -> str:
    near = _near(name, names)
    return f" ({near.strip()})" if near else ""
