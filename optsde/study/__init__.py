"""Studies: settings, tasks, the command line, the run directory and the runner."""

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

__all__ = [
    "Group",
    "Integers",
    "Names",
    "Numbers",
    "Seeded",
    "Seeds",
    "Settings",
    "UsageError",
    "require",
    "seed_setting",
    "setting",
]
