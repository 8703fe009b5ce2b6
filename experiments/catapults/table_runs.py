"""The rows of the table, and their training: all seeds and both inits at once."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.catapults import nets
from optsde import schedules
from optsde.dynamics import Engine

INITS = ("random", "zero")
FIRST_ITERATIONS, LATER_ITERATIONS = 60, 30  # for ‖K‖; the later ones begin warm


class Row(NamedTuple):
    """One way of training; learning rates of SGD are in units of n/‖K‖ at the start."""

    label: str  # to be filled from the config
    optimizer: Callable[[ConfigDict, Any], optsde.Optimizer]  # of the critical rate
    multiplier: Callable[[ConfigDict], float] | None = None  # None: the cycle

    def title(self, config: ConfigDict) -> str:
        return self.label.format(**config.to_dict())


def _sgd(config, critical):
    return optsde.SGD(lr=critical)


ROWS = {
    "sgd": Row("SGD, {ratio:g} η_crit", _sgd, lambda config: config.ratio),
    "sgd_large": Row(
        "SGD, {large_ratio:g} η_crit", _sgd, lambda config: config.large_ratio
    ),
    "sgd_cycle": Row("SGD + catapults", _sgd),
    "adagrad": Row(
        "AdaGrad",
        lambda config, critical: optsde.AdaGrad(lr=config.adagrad_lr),
        lambda config: 1.0,
    ),
    "adagrad_cycle": Row(
        "AdaGrad + catapults",
        lambda config, critical: optsde.AdaGrad(lr=config.adagrad_unit),
    ),
    "adam": Row(
        "Adam",
        lambda config, critical: optsde.Adam(lr=config.adam_lr),
        lambda config: 1.0,
    ),
}


class Member(NamedTuple):
    """What the replicas differ in, besides their keys."""

    params: Any  # at the start
    critical: Any  # n/‖K‖ there
    vector: Any  # the eigenvector of ‖K‖
    order: Any  # of the images: the first `train_size` are trained on


def plan_of(config: ConfigDict, row: Row, critical) -> optsde.Plan:
    if row.multiplier is None:
        peaks = config.cycle_low, config.cycle_peak, config.growth
        schedule = schedules.exponential_cyclic(config.period, *peaks)
    else:
        level = row.multiplier(config)
        schedule = schedules.cyclic(config.period, level, level)
    return optsde.Plan(
        optimizer=row.optimizer(config, critical),
        batch_size=config.batch_size,
        horizon=config.steps,
        schedule=schedule,
    )


class Trainer:
    """Trains the rows on the same seeds: their splits, starts and batches are shared.

    Replicas are inits × seeds; a seed's two inits have the same split and batches too.
    """

    def __init__(self, config: ConfigDict, images: tuple[np.ndarray, np.ndarray]):
        import jax
        import jax.numpy as jnp

        self.config = config
        self.images = jax.tree.map(jnp.asarray, images)
        self.model = nets.two_layer(config.width, images[1].shape[1], config.activation)
        self.losses = nets.losses_of(self.model)
        self.apply = nets.apply_of(self.model)
        starts, keys = jax.random.split(jax.random.key(config.seed), (2, config.seeds))
        self.keys = jnp.tile(keys, len(INITS))
        self.members = self._members(starts)

    def run(self, row: Row) -> dict[str, np.ndarray]:
        """Of each replica, leading axes [inits, seeds].

        train_loss, test_loss, accuracy [evaluations]; batch_loss [steps/log_every],
        means over so many batches; norm_ratio, ‖K‖ at the end over that at the start.
        """
        import jax
        import jax.numpy as jnp

        config, members = self.config, self.members
        engine = Engine(
            lambda member: self._dynamics(row, member),
            len(self.keys),
            members=members,
            with_info=True,
        )
        orders = engine.spread(members.order)
        evaluate = engine.each(self._evaluate, self.images)
        state = engine.init(self.keys)
        nothing = engine.no_info(state)
        engine.compile(state)
        evaluations, batches = [evaluate(state, orders)], []
        progress = optsde.Progress(f"{row.title(config):20}")
        progress.begin(0)
        for step in range(config.log_every, config.steps + 1, config.log_every):
            state, total = engine.advance(state, nothing, config.log_every)
            batches.append(total.loss / config.log_every)
            if step % config.evaluate_every == 0:
                evaluations.append(jax.block_until_ready(evaluate(state, orders)))
                progress.update(step, config.steps)
        critical = engine.each(self._critical, self.images)
        last, _ = critical(state.params, orders, engine.spread(members.vector))
        found = {
            name: jnp.stack([seen[name] for seen in evaluations], axis=1)
            for name in evaluations[0]
        }
        found["batch_loss"] = jnp.stack(batches, axis=1)
        found["norm_ratio"] = engine.spread(members.critical) / last
        shape = len(INITS), config.seeds
        return {
            name: np.asarray(x).reshape(*shape, *x.shape[1:])
            for name, x in engine.kept(found).items()
        }

    def _members(self, keys) -> Member:
        import jax
        import jax.numpy as jnp

        seeds, count = self.config.seeds, len(self.images[0])
        example = self.images[0][:1]

        def start(key, antisymmetric):
            return nets.initial(key, self.model, example, antisymmetric)

        starts = [
            jax.jit(jax.vmap(partial(start, antisymmetric=init == "zero")))(keys)
            for init in INITS
        ]
        params = jax.tree.map(lambda *x: jnp.concatenate(x), *starts)
        orders = [
            np.random.RandomState([self.config.seed, seed]).permutation(count)
            for seed in range(seeds)
        ]
        order = jnp.asarray(np.tile(orders, (len(INITS), 1)), jnp.int32)
        measure = jax.jit(
            lambda images, *each: jax.lax.map(
                lambda one: self._critical(images, *one), each
            )
        )
        critical, vector = measure(self.images, params, order)
        return Member(params, critical, vector, order)

    def _dynamics(self, row: Row, member: Member):
        import jax

        from optsde import gradients

        def sampler(batch_size: int):
            """Independent draws from the member's own training images."""

            def choose(draw):
                shape, count = (batch_size,), self.config.train_size
                return member.order[jax.random.randint(draw.fresh(), shape, 0, count)]

            # Of members the loop is given no source: here the images are constants.
            return gradients.ExampleOracle(
                data=self.images, losses=self.losses, choose=choose, size=batch_size
            )

        plan = plan_of(self.config, row, member.critical)
        return optsde.discrete(plan, sampler, member.params)

    def _critical(self, images, params, order, vector=None):
        """(n/‖K‖, the eigenvector) on n of the member's training images."""
        from optsde.measure import ntk

        inputs = images[0][order[: self.config.kernel_size]]
        iterations = FIRST_ITERATIONS if vector is None else LATER_ITERATIONS
        norm, vector = ntk.norm(self.apply, params, inputs, vector, iterations)
        return ntk.critical_lr(norm, len(inputs), loss="mean"), vector

    def _evaluate(self, images, state, order):
        """Mean loss and accuracy on the training images and on the others."""
        import jax.numpy as jnp

        inputs, targets = images
        outputs, targets = self.apply(state.params, inputs)[order], targets[order]
        loss = jnp.sum((outputs - targets) ** 2, axis=1)
        right = outputs.argmax(axis=1) == targets.argmax(axis=1)
        n = self.config.train_size
        return {
            "train_loss": loss[:n].mean(),
            "test_loss": loss[n:].mean(),
            "accuracy": right[n:].mean(),
        }
