"""A task: a model on a data set. What is trained, on what, and how it is judged."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from optsde import models
from optsde.data.stream import Stream
from optsde.dynamics import Engine
from optsde.gradients.oracles import Augment
from optsde.models.losses import Loss
from optsde.optimizers import EMA, SWA
from optsde.train.evaluation import evaluate
from optsde.train.loop import Evaluate
from optsde.types import PyTree

Examples = tuple[jax.Array, jax.Array]  # inputs, targets


@dataclasses.dataclass(frozen=True)
class Task:
    """`prepare` makes the model's inputs from the data's, inside jit.

    train: on the device, or a `data.Stream` of such examples.
    plain: un-augmented training inputs, for BatchNorm's statistics in an evaluation.
    augment: for training alone, on examples as they lie in `train`.
    """

    model: nn.Module
    loss: Loss
    train: Examples | Stream
    test: Examples
    plain: jax.Array
    prepare: Callable[[jax.Array], jax.Array] = lambda x: x
    augment: Augment | None = None

    @property
    def size(self) -> int:
        """How many examples there are to train on."""
        return len(self.train if isinstance(self.train, Stream) else self.train[0])

    @property
    def losses(self) -> Callable:
        """(params, examples, mask) -> loss of each, for oracles."""
        return models.supervised(self.model, self.loss, self.prepare)

    def init(self, key: jax.Array) -> PyTree:
        """Initial parameters, float32."""
        return models.init_params(self.model, key, self.prepare(self.plain[:1]))

    def evaluator(
        self,
        engine: Engine,
        average: EMA | SWA | None = None,
        rows: int = 512,
    ) -> Evaluate:
        """Stacked state -> test_loss and test_accuracy of each replica.

        average: the plan's; where there is one, that of the averaged weights too, as
        average_test_…. rows: examples at once.
        """
        shared = self.plain, self.test

        def judge(shared, params, prefix: str) -> dict[str, jax.Array]:
            plain, test = shared
            found = evaluate(
                self.model,
                self.loss,
                params,
                plain,
                test,
                prepare=self.prepare,
                rows=rows,
            )
            return {f"{prefix}{name}": value for name, value in found.items()}

        def of_replica(shared, state: Any):
            found = judge(shared, state.params, "test_")
            if average is not None:
                held = average.value(state.average)
                found |= judge(shared, held, "average_test_")
            return found

        return engine.each(of_replica, shared)
