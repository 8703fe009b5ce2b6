"""How the rows of the table train: all seeds and both inits are one ensemble.

Every seed has its own start, batches and split of the images, which its rows share; the
two inits of a seed share batches and split too.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from experiments.catapults import nets
from optsde import gradients
from optsde.measure import ntk, probe
from optsde.run import Progress, Task
from optsde.study import UsageError, require

INITS = ("random", "zero")  # functions at the start
FIRST_ITERATIONS, LATER_ITERATIONS = 60, 30  # for ‖K‖; the later ones begin warm


def build_task(s):
    """Returns the net on all images that are used, which every seed splits anew."""
    dataset = nets.load("dataset", s.dataset)
    images = jax.tree.map(jnp.asarray, nets.centred(dataset, s.images or None))
    fine, count = s.train_size < len(images[0]), len(images[0])
    require(fine, "train_size", s.train_size, f"fewer than all {count} images")
    try:
        model = nets.two_layer(s.width, dataset.outputs, s.activation)
    except ValueError as error:
        raise UsageError(f"--config.activation: {error}") from None
    return Task(model, nets.squared_distance, images, images, plain=images[0])


class Member(NamedTuple):
    """What the replicas differ in, besides their keys."""

    params: Any  # at the start
    critical: Any  # n/‖K‖ there
    vector: Any  # the eigenvector of ‖K‖
    order: Any  # of the images: the first `train_size` are trained on


def keys_of(s):
    """Returns the keys of the seeds' starts, and those of their batches."""
    return jax.random.split(jax.random.key(s.seed), (2, s.seeds))


def members_of(s, task):
    """Returns the replicas inits × seeds; a seed's inits have the same split."""

    def start(key, init):
        return nets.initial(key, task.model, task.plain, antisymmetric=init == "zero")

    def critical(images, each):
        return jax.lax.map(lambda one: critical_lr(s, task, images, *one), each)

    Progress(f"{len(INITS) * s.seeds} critical rates").say("compiling")
    starts = [jax.vmap(lambda key, i=i: start(key, i))(keys_of(s)[0]) for i in INITS]
    params = jax.tree.map(lambda *x: jnp.concatenate(x), *starts)
    orders = [
        np.random.RandomState([s.seed, seed]).permutation(task.size)
        for seed in range(s.seeds)
    ]
    order = jnp.asarray(np.tile(orders, (len(INITS), 1)), jnp.int32)
    first, vector = jax.jit(critical)(task.train, (params, order))
    return Member(params, first, vector, order)


def critical_lr(s, task, images, params, order, vector=None):
    """Returns (n/‖K‖, the eigenvector) on n of a member's training images."""
    inputs = images[0][order[: s.kernel_size]]
    iterations = FIRST_ITERATIONS if vector is None else LATER_ITERATIONS
    norm, vector = ntk.norm(task.apply, params, inputs, vector, iterations)
    return ntk.critical_lr(norm, len(inputs), loss="mean"), vector


def train(s, task, members, row):
    """Returns what is measured of a row, [inits, seeds, …].

    train_loss, test_loss, accuracy [evaluations]; batch_loss [steps/log_every], means
    over so many batches; norm_ratio, ‖K‖ at the end over that at the start.
    """

    def dynamics(member):
        optimizer = row.plan.optimizer
        if row.relative:
            lr = optimizer.lr * member.critical
            optimizer = dataclasses.replace(optimizer, lr=lr)
        plan = dataclasses.replace(row.plan, optimizer=optimizer)
        among = member.order[: s.train_size]
        sampler = gradients.minibatch(task.losses, task.train, among=among)
        return optsde.discrete(plan, sampler, member.params)

    def probes(member):
        def evaluation(images, state):
            return evaluate(s, task, images, state.params, member.order)

        def kernel(images, state):
            start = member.order, member.vector
            critical, _ = critical_lr(s, task, images, state.params, *start)
            return {"norm_ratio": member.critical / critical}

        return [
            probe(evaluation, task.train, s.evaluate_every),
            probe(kernel, task.train, [s.steps]),
        ]

    metrics = optsde.fit(
        dynamics,
        jnp.tile(keys_of(s)[1], len(INITS)),
        s.steps,
        every=s.log_every,
        probes=probes,
        members=members,
        stop_at_divergence=False,
        progress=Progress(f"{row.title:20}"),
    ).metrics
    measured = {name: series.values for name, series in metrics.items()}
    del measured["grad_norm"]
    measured["batch_loss"] = measured.pop("loss")
    measured["norm_ratio"] = measured["norm_ratio"][:, 0]
    shape = len(INITS), s.seeds
    return {n: x.reshape(*shape, *x.shape[1:]) for n, x in measured.items()}


def evaluate(s, task, images, params, order):
    """Returns mean loss and accuracy on a member's training images and the others."""
    inputs, targets = images
    outputs, targets = task.apply(params, inputs)[order], targets[order]
    loss = jnp.sum((outputs - targets) ** 2, axis=1)
    right = outputs.argmax(axis=1) == targets.argmax(axis=1)
    return {
        "train_loss": loss[: s.train_size].mean(),
        "test_loss": loss[s.train_size :].mean(),
        "accuracy": right[s.train_size :].mean(),
    }
