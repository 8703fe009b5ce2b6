"""Studies: settings, tasks, arms and their runs, command line and run directory."""

from optsde.study.arms import Arm, train
from optsde.study.launch import Package, Preset, presets
from optsde.study.probes import ProbeSettings, build_probes
from optsde.study.results import Result
from optsde.study.rundir import RunDir
from optsde.study.runs import ArmRuns, Runs
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
from optsde.study.tasks import LabelSettings, TaskSettings, build_task, task_of

__all__ = [
    "Arm",
    "ArmRuns",
    "Group",
    "Integers",
    "LabelSettings",
    "Names",
    "Numbers",
    "Package",
    "Preset",
    "ProbeSettings",
    "Result",
    "RunDir",
    "Runs",
    "Seeded",
    "Seeds",
    "Settings",
    "Study",
    "TaskSettings",
    "UsageError",
    "build_probes",
    "build_task",
    "presets",
    "refuse_divergence",
    "require",
    "seed_setting",
    "setting",
    "task_of",
    "train",
]
