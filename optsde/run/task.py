"""Tasks: a model on a data set, what it is trained on, and how it is evaluated."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from optsde import models
from optsde.checks import check_count, check_labels, check_rows
from optsde.data.dataset import Array
from optsde.data.resident import arrays_of, source_of
from optsde.data.stream import Stream
from optsde.gradients import Augment, Law, by_blocks, by_layers, from_data
from optsde.gradients.groups import mean_over
from optsde.measure.probe import Probe, Times, probe
from optsde.models import Net
from optsde.models.losses import LOWEST_LABEL, Loss, of_each
from optsde.optimizers import Average
from optsde.run.evaluation import evaluate, has_statistics, statistics
from optsde.types import PyTree

Examples = tuple[Array, Array]  # inputs, targets
PLAIN = 10_000  # inputs for the statistics of BatchNorm


@dataclasses.dataclass(frozen=True)
class Task:
    """A model, its loss, and the data that it is trained on and evaluated on.

    What does not fit together is refused at once, without computing anything.

        >>> import flax.linen as nn
        >>> x, y = np.ones((8, 4), np.float32), np.arange(8) % 3
        >>> task = Task(nn.Dense(3), models.cross_entropy, train=(x, y), test=(x, y))
        >>> params = task.init(jax.random.key(0))
        >>> task.losses(params, task.train).shape
        (8,)

    Attributes:
      model: a Linen module, or a `models.Net` of any other.
      loss: (outputs, targets) -> the loss of each example.
      train: examples, or a `data.Stream` of them.
      test: examples to evaluate on.
      plain: un-augmented training inputs, for BatchNorm's statistics in an evaluation;
        all of `train`, or 10,000 of them drawn at random, unless it is a Stream.
      prepare: makes the model's inputs from the data's, inside jit.
      augment: for training alone, on examples as they lie in `train`.
    """

    model: nn.Module | Net
    loss: Loss
    train: Examples | Stream
    test: Examples
    plain: Any = None
    prepare: Callable[[jax.Array], jax.Array] = lambda x: x
    augment: Augment | None = None

    _labels = None  # the least of them and how many classes, where it takes labels

    def __post_init__(self):
        self._check_arrays()
        if self.plain is None:
            if isinstance(self.train, Stream):
                raise ValueError(
                    "train is a Stream: give plain=, some of its inputs without "
                    "augmentation"
                )
            inputs = self.train[0]
            if len(inputs) > PLAIN:  # which may lie in the order of their classes
                order = np.random.RandomState(0).permutation(len(inputs))
                inputs = inputs[order[:PLAIN]]
            object.__setattr__(self, "plain", inputs)
        self._check_shapes()

    @property
    def net(self) -> Net:
        """Returns the model as pure functions."""
        return models.net_of(self.model)

    @property
    def size(self) -> int:
        """Returns how many examples there are to train on."""
        return len(self.train if isinstance(self.train, Stream) else self.train[0])

    @property
    def examples_interact(self) -> bool:
        """Returns whether outputs depend on other examples, as with BatchNorm."""
        params = jax.eval_shape(self.init, jax.random.key(0))
        return has_statistics(self.model, params, self.plain[:1], self.prepare)

    @property
    def losses(self) -> Callable:
        """Returns (params, examples, mask, key) -> the loss of each, for samplers.

        Without a key they are those of the net without dropout.
        """
        losses: Any = models.supervised(self.model, self.loss, self.prepare)
        losses.labels = self._labels
        losses.checked = [targets for _, targets in self._sets().values()]
        return losses

    def init(self, key: jax.Array) -> PyTree:
        """Returns initial parameters, in float32."""
        return models.init_params(self.model, key, self.prepare(self.plain[:1]))

    def law(self, batch_size: int) -> Law:
        """Returns the law of the noise of a batch, for `dynamics.sde`.

        Its covariance is the exact one of independent draws from `train`, without
        augmentation. Nets with BatchNorm, which makes examples interact, are refused,
        and those with dropout, which is a noise of its own.
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
        module = self.net.module
        if module is None:
            sums = by_blocks(self.losses, source.arrays)
        else:
            sums = by_layers(module, self.loss, (self.prepare(inputs), targets))
        return from_data(self.losses, source.arrays, batch_size, sums)

    def train_loss(self, rows: int = 2048, times: Times = None) -> Probe:
        """Returns the probe of train_loss, the mean over `train`.

        It is without augmentation and without dropout.

        Args:
          rows: examples at once.
          times: those of the probe.
        """
        if isinstance(self.train, Stream):
            raise ValueError(
                "train_loss needs its examples on the device, not a Stream: use "
                "evaluation(), or train_loss of a Task whose train are some of them"
            )

        check_count("rows", rows)

        def observe(examples, state: Any) -> dict[str, jax.Array]:
            def of_group(group, mask):
                losses = self.losses(state.params, group, mask)
                return jnp.mean(losses, where=True if mask is None else mask)

            return {"train_loss": mean_over(of_group, examples, rows)}

        return probe(observe, self.train, times)

    def evaluation(
        self,
        average: Average | None = None,
        rows: int = 512,
        times: Times = None,
    ) -> Probe:
        """Returns the probe of test_loss, and of test_accuracy where there are labels.

        Args:
          average: the plan's; where there is one, the averaged weights are evaluated
            too, as average_test_….
          rows: examples at once.
          times: those of the probe.
        """

        check_count("rows", rows)

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
        """Returns the outputs, as they are evaluated, for inputs as the data has them.

        BatchNorm has the statistics of `plain`, which are made anew in each call.
        """
        moments = statistics(self.model, params, self.plain, 512, self.prepare)
        return self.net.evaluated(params, self.prepare(inputs), moments)

    def _sets(self) -> dict[str, Examples]:
        """Returns what there is of examples in arrays, by name."""
        if not isinstance(self.train, Stream):
            return {"train": self.train, "test": self.test}
        arrays = arrays_of(self.train)
        known = {"train": (arrays[0], arrays[1])} if len(arrays) == 2 else {}
        return {**known, "test": self.test}

    def _check_arrays(self) -> None:
        for name, examples in self._sets().items():
            if not isinstance(examples, tuple | list) or len(examples) != 2:
                raise ValueError(
                    f"{name} is a {type(examples).__name__}: needs two arrays, inputs "
                    "and targets"
                )
            check_rows(name, tuple(examples))

    def _check_shapes(self) -> None:
        """Refuses outputs, targets and losses that do not fit together."""
        called: dict[Any, Any] = {}
        for name, examples in self._sets().items():
            inputs, targets = three = jax.tree.map(_three, examples)
            if name == "train" and self.augment is not None:
                inputs, targets = jax.eval_shape(self._augmented, three)
            if inputs not in called:
                called[inputs] = self._outputs(inputs)
            outputs = called[inputs]
            shapes = {x.shape for x in jax.tree.leaves(outputs)}
            if any(shape[:1] != (3,) for shape in shapes):
                shown = " and ".join(str(list(shape)) for shape in shapes)
                raise ValueError(
                    f"the outputs of 3 examples have the shape {shown}: return the "
                    "outputs of each, [3, …]"
                )
            jax.eval_shape(partial(of_each, self.loss), outputs, targets)
            self._check_labels(name, examples[1], outputs)

    def _augmented(self, examples: Examples) -> Examples:
        assert self.augment is not None
        keys = jax.random.split(jax.random.key(0), len(examples[0]))
        return self.augment(keys, examples)

    def _outputs(self, inputs: jax.ShapeDtypeStruct) -> Any:
        """Returns the shapes of the outputs in training."""

        def outputs(key, inputs):
            params, inputs = self.init(key), self.prepare(inputs)
            return self.net.in_training(params, inputs, key=key)(params, inputs)

        try:
            return jax.eval_shape(outputs, jax.random.key(0), inputs)
        except Exception as error:
            error.add_note(
                f"The net was called on examples of shape {list(inputs.shape[1:])}. "
                "One that has a flag, a key or state in training comes by its adapter: "
                'models.from_linen(net, training={"train": True}, rngs=("dropout",)), '
                "from_nnx(make) or from_equinox(make, noisy=True)."
            )
            raise

    def _check_labels(self, name: str, targets: Any, outputs: Any) -> None:
        lowest = LOWEST_LABEL.get(self.loss)
        if lowest is not None:
            labels = lowest, outputs.shape[-1]
            check_labels(name, targets, *labels)
            object.__setattr__(self, "_labels", labels)


def _three(x: Any) -> jax.ShapeDtypeStruct:
    """Returns the shape of three examples like these: a number to be told by."""
    return jax.ShapeDtypeStruct((3, *x.shape[1:]), jnp.result_type(x))
