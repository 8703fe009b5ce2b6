"""Training real networks: the loop, evaluation, metrics, checkpoints."""

from optsde.train.checkpoints import Checkpoints, load_params
from optsde.train.evaluation import evaluate, statistics
from optsde.train.loop import DivergedError, Result, fit
from optsde.train.metrics import JsonLines, TensorBoard, Wandb

__all__ = [
    "Checkpoints",
    "DivergedError",
    "JsonLines",
    "Result",
    "TensorBoard",
    "Wandb",
    "evaluate",
    "fit",
    "load_params",
    "statistics",
]
