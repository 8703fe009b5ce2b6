"""Studies: settings, tasks, the command line, the run directory and the runner."""

from optsde.study.launch import Package, Preset, presets
from optsde.study.rundir import RunDir
from optsde.study.settings import (
    Group,
    Integers,
    Names,
    Numbers,
    Seeded,
    Seeds,
    Settings,
    seed_setting,
    setting,
)
from optsde.study.shapes import UsageError, require
from optsde.study.study import Study, refuse_divergence

__all__ = [
    "Group",
    "Integers",
    "Names",
    "Numbers",
    "Package",
    "Preset",
    "RunDir",
    "Seeded",
    "Seeds",
    "Settings",
    "Study",
    "UsageError",
    "presets",
    "refuse_divergence",
    "require",
    "seed_setting",
    "setting",
]
