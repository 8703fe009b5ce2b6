"""Training real networks: the loop, evaluation, metrics, checkpoints."""

from optsde.train.checkpoints import Checkpoints, load_params
from optsde.train.evaluation import evaluate, statistics
from optsde.train.loop import DivergedError, Result, fit
from optsde.train.metrics import JsonLines, MarkSpikes, TensorBoard, Wandb
from optsde.train.task import Task

__all__ = [
    "Checkpoints",
    "DivergedError",
    "JsonLines",
    "MarkSpikes",
    "Result",
    "Task",
    "TensorBoard",
    "Wandb",
    "evaluate",
    "fit",
    "load_params",
    "statistics",
]
