"""Tasks: a model on a data set, what it is trained on, and how it is evaluated."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from optsde import models
from optsde.data.resident import source_of
from optsde.data.stream import Stream
from optsde.gradients import Augment, Law, all_dense, by_blocks, by_layers, from_data
from optsde.gradients.groups import mean_over
from optsde.measure.probe import Probe, Times, probe
from optsde.models.losses import Loss
from optsde.optimizers import EMA, SWA
from optsde.run.evaluation import evaluate, has_statistics
from optsde.types import PyTree

Examples = tuple[jax.Array, jax.Array]  # inputs, targets


@dataclasses.dataclass(frozen=True)
class Task:
    """A model, its loss, and the data that it is trained on and evaluated on.

    Attributes:
      model: a Linen module.
      loss: (outputs, targets) -> the loss of each example.
      train: examples on the device, or a `data.Stream` of them.
      test: examples to evaluate on.
      plain: un-augmented training inputs, for BatchNorm's statistics in an evaluation.
      prepare: makes the model's inputs from the data's, inside jit.
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
        """Returns how many examples there are to train on."""
        return len(self.train if isinstance(self.train, Stream) else self.train[0])

    @property
    def examples_interact(self) -> bool:
        """Returns whether outputs depend on other examples, as with BatchNorm."""
        inputs = self.plain[:1]
        params = jax.eval_shape(self.init, jax.random.key(0))
        return has_statistics(self.model, params, inputs, self.prepare)

    @property
    def losses(self) -> Callable:
        """Returns (params, examples, mask) -> the loss of each, for samplers."""
        return models.supervised(self.model, self.loss, self.prepare)

    def init(self, key: jax.Array) -> PyTree:
        """Returns initial parameters, in float32."""
        return models.init_params(self.model, key, self.prepare(self.plain[:1]))

    def law(self, batch_size: int) -> Law:
        """Returns the law of the noise of a batch, for `dynamics.sde`.

        Its covariance is the exact one of independent draws from `train`, without
        augmentation. Nets with BatchNorm, which makes examples interact, are refused.
        """
        source: Any = source_of(self.train)
        if source.stream is not None:
            raise ValueError("an SDE needs its examples on the device, not a Stream")
        if self.examples_interact:
            raise ValueError(
                "BatchNorm makes examples interact, and the noise of an SDE is made of "
                "independent ones; use another norm, such as group"
            )
        inputs, targets = source.arrays
        prepared = self.prepare(inputs)
        if all_dense(self.model, prepared):
            sums = by_layers(self.model, self.loss, (prepared, targets))
        else:
            sums = by_blocks(self.losses, source.arrays)
        return from_data(self.losses, source.arrays, batch_size, sums)

    def train_loss(self, rows: int = 2048, times: Times = None) -> Probe:
        """Returns the probe of train_loss, the mean over `train` without augmentation.

        Args:
          rows: examples at once.
          times: those of the probe.
        """
        if isinstance(self.train, Stream):
            raise ValueError(
                "train_loss needs its examples on the device, not a Stream: use "
                "evaluation(), or train_loss of a Task whose train are some of them"
            )

        def observe(examples, state: Any) -> dict[str, jax.Array]:
            def of_group(group, mask):
                losses = self.losses(state.params, group, mask)
                return jnp.mean(losses, where=True if mask is None else mask)

            return {"train_loss": mean_over(of_group, examples, rows)}

        return probe(observe, self.train, times)

    def evaluation(
        self,
        average: EMA | SWA | None = None,
        rows: int = 512,
        times: Times = None,
    ) -> Probe:
        """Returns the probe of test_loss and test_accuracy.

        Args:
          average: the plan's; where there is one, the averaged weights are evaluated
            too, as average_test_….
          rows: examples at once.
          times: those of the probe.
        """

        def judge(source, params, prefix: str) -> dict[str, jax.Array]:
            plain, test = source
            metrics = evaluate(
                self.model,
                self.loss,
                params,
                plain,
                test,
                prepare=self.prepare,
                rows=rows,
            )
            return {f"{prefix}{name}": value for name, value in metrics.items()}

        def observe(source, state: Any) -> dict[str, jax.Array]:
            metrics = judge(source, state.params, "test_")
            if average is not None:
                mean = average.value(state.average)
                metrics |= judge(source, mean, "average_test_")
            return metrics

        source = self.plain, self.test
        return probe(observe, source, times)._replace(finite=True)

    def apply(self, params: PyTree, inputs: jax.Array) -> Any:
        """Returns the model's outputs for inputs as the data has them."""
        return self.model.apply({"params": params}, self.prepare(inputs))
