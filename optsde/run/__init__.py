"""Runs: ensembles and training on one compiled loop, with probes and a journal."""

from optsde.run.engine import Engine
from optsde.run.ensemble import Trajectory, ensemble
from optsde.run.evaluation import evaluate, statistics
from optsde.run.journal import load_params
from optsde.run.loop import Result, Run, fit
from optsde.run.progress import Progress, parts
from optsde.run.rows import DivergedError, Series
from optsde.run.task import Task
from optsde.run.wire import Exchange, exchange
from optsde.run.writers import JsonLines, MarkSpikes, TensorBoard, Wandb, Writer, read

__all__ = [
    "DivergedError",
    "Engine",
    "Exchange",
    "JsonLines",
    "MarkSpikes",
    "Progress",
    "Result",
    "Run",
    "Series",
    "Task",
    "TensorBoard",
    "Trajectory",
    "Wandb",
    "Writer",
    "ensemble",
    "evaluate",
    "exchange",
    "fit",
    "load_params",
    "parts",
    "read",
    "statistics",
]
