"""Runs: ensembles and training on one compiled loop, with probes and a journal."""

from optsde.run.cost import Accelerator, Cost, Seconds, cost
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
    "Accelerator",
    "Cost",
    "DivergedError",
    "Engine",
    "Exchange",
    "JsonLines",
    "MarkSpikes",
    "Progress",
    "Result",
    "Run",
    "Seconds",
    "Series",
    "Task",
    "TensorBoard",
    "Trajectory",
    "Wandb",
    "Writer",
    "cost",
    "ensemble",
    "evaluate",
    "exchange",
    "fit",
    "load_params",
    "parts",
    "read",
    "statistics",
]
