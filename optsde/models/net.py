"""Nets: pure functions of their parameters, whichever library wrote them."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from optsde.types import PyTree


@dataclasses.dataclass(frozen=True)
class Net:
    """A net as pure functions: parameters of a key, outputs of parameters.

    `Net(init, apply)` is one written by hand, or a pair of `haiku.without_apply_rng`;
    `from_linen`, `from_nnx` and `from_equinox` make one of a module.

        >>> import jax.numpy as jnp
        >>> net = Net(
        ...     init=lambda key, inputs: jnp.zeros((inputs.shape[1], 3)),
        ...     apply=lambda params, inputs: inputs @ params)
        >>> net.apply(net.init(jax.random.key(0), jnp.ones((1, 4))), jnp.ones((2, 4)))
        Array([[0., 0., 0.],
               [0., 0., 0.]], dtype=float32)

    Attributes:
      init: (key, inputs) -> params.
      apply: (params, inputs) -> outputs as they are evaluated. Where there are
        `moments`, it takes them as a third argument.
      train: the same in training, where that differs. It takes `key=` where the net is
        noisy, and `mask=` where it takes one.
      noisy: whether training draws random numbers, as dropout does.
      takes_mask: whether training takes a mask, False for rows that only fill up a
        group. Nets whose examples interact need one for groups of unequal size.
      moments: (params, inputs, mask=, key=) -> E[x] and E[x²] of the inputs of each
        BatchNorm; empty where there is none, and examples do not interact.
      module: the Linen module behind it, for `gradients.by_layers`.
    """

    init: Callable[[jax.Array, Any], PyTree]
    apply: Callable[..., Any]
    train: Callable[..., Any] | None = None
    noisy: bool = False
    takes_mask: bool = False
    moments: Callable[..., PyTree] | None = None
    module: nn.Module | None = None

    def __post_init__(self):
        if self.noisy and self.train is None:
            raise ValueError(
                "a noisy net needs train=(params, inputs, key) -> outputs beside "
                "apply=(params, inputs), which draws nothing"
            )

    def examples_interact(self, params: PyTree, inputs: Any) -> bool:
        """Returns whether an example's outputs depend on others, as with BatchNorm."""
        if self.moments is None:
            return False
        return bool(jax.eval_shape(self.of_batch, params, inputs, None))

    def of_batch(self, params: PyTree, inputs: Any, mask: Any) -> PyTree:
        """Returns the moments of a batch, which are part of a training pass.

        Dropout is on, as it is for running averages, with one mask for all batches.
        """
        assert self.moments is not None
        key = jax.random.key(0) if self.noisy else None
        return self.moments(params, inputs, **self._given(mask, key))

    def evaluated(self, params: PyTree, inputs: Any, moments: PyTree) -> Any:
        """Returns the outputs with these moments; by a batch's own, without any."""
        given = (moments,) if jax.tree.leaves(moments) else ()
        return self.apply(params, inputs, *given)

    def in_training(
        self, params: PyTree, inputs: Any, mask: Any = None, key: Any = None
    ) -> Callable[[PyTree, Any], Any]:
        """Returns (params, inputs) -> outputs in training; without a key, no noise."""
        if mask is not None and not self.takes_mask:
            self._refuse_copies(params, inputs)
        if self.noisy and key is None:
            interact = self.moments is not None
            moments = self.of_batch(params, inputs, mask) if interact else {}
            return partial(self.evaluated, moments=moments)
        return partial(self.train or self.apply, **self._given(mask, key))

    def _given(self, mask: Any, key: Any) -> dict[str, Any]:
        given = {}
        if self.takes_mask and mask is not None:
            given["mask"] = mask
        if self.noisy:
            given["key"] = key
        return given

    def _refuse_copies(self, params: PyTree, inputs: Any) -> None:
        if self.examples_interact(params, inputs):
            raise ValueError(
                f"groups of {len(inputs)} leave a last one that is filled up with "
                "copies, which BatchNorm would count: let the net take mask= and say "
                "takes_mask = True in its class, or choose a group that divides the "
                "number of examples"
            )
