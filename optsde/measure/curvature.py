"""Curvature of a loss along a run: Hessian products, sharpness, and its threshold.

A full-batch run that goes unstable in one direction mostly comes back, and its largest
eigenvalue stays near the stability threshold of its optimizer: the edge of stability
(Cohen et al. 2021; for preconditioned methods Cohen et al. 2022).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import treedef_is_leaf

from optsde.checks import check_count, check_rows
from optsde.data.resident import on_device
from optsde.gradients import (
    Draw,
    Losses,
    Oracle,
    Sampler,
    Use,
    full_batch,
    signed_mix,
)
from optsde.gradients.groups import mean_over
from optsde.measure.probe import Probe, Times, probe
from optsde.measure.spectrum import Product, random_vectors, top_eigenvalues
from optsde.mesh import data_shards
from optsde.models.losses import Loss
from optsde.optimizers.base import OptimizerState
from optsde.plans.plan import Plan
from optsde.types import PyTree


def hessian(oracle: Oracle, params: PyTree, draw: Draw | None = None) -> Product:
    """Returns v -> ∇²f(θ) v of the loss whose gradient the oracle gives, at that draw.

    `full_batch(losses, data, group)()` makes it the mean over a whole data set, in
    groups one after the other and shared by devices, and needs no draw.
    """
    draw = Draw(jax.random.key(0), jnp.int32(0)) if draw is None else draw

    def product(v):
        return jax.jvp(lambda p: oracle(p, draw)[1], (params,), (v,))[1]

    return product


def gauss_newton(
    outputs: Callable,
    loss: Loss,
    params: PyTree,
    data: PyTree,
    group: int | None = None,
) -> Product:
    """Returns v -> mean of Jᵀ (∂²loss/∂outputs²) J v: H without the net's own bend.

    outputs(params, inputs) and loss(outputs, targets) of each example, which must not
    interact; data is (inputs, targets). `group` as in `full_batch`.
    """
    size = jax.tree.leaves(data)[0].shape[0]
    rows = -(-size // data_shards()) if group is None else group

    def product(v):
        def of_group(examples, mask):
            inputs, targets = examples

            def net(p):
                return outputs(p, inputs)

            def mean_loss(z):
                each = loss(z, targets)
                return jnp.mean(each, where=True if mask is None else mask)

            z, pull = jax.vjp(net, params)
            _, jv = jax.jvp(net, (params,), (v,))
            _, hjv = jax.jvp(jax.grad(mean_loss), (z,), (jv,))
            return pull(hjv)[0]

        return mean_over(of_group, data, rows)

    return product


def preconditioned(product: Product, divisor: PyTree) -> Product:
    """Returns v -> P^-½ A P^-½ v for a diagonal P > 0, like the parameters.

    It has the eigenvalues of P⁻¹A, and is symmetric.
    """
    root = jax.tree.map(jnp.sqrt, divisor)

    def over_root(v):
        return jax.tree.map(jnp.divide, v, root)

    return lambda v: over_root(product(over_root(v)))


def stability_threshold(plan: Plan, state: OptimizerState) -> jax.Array:
    """Returns the plan's stability threshold at the time of a `state.optimizer`.

    That is, at the learning rate of the next step. The clip is left out.
    """
    optimizer, time = plan.optimizer.single(), state.clock.time
    if plan.schedule is not None:
        s = plan.schedule(time)
        lr, decay = s * optimizer.lr, s * optimizer.absolute_decay
        optimizer = dataclasses.replace(optimizer, lr=lr, absolute_decay=decay)
    threshold = jnp.asarray(optimizer.stability_threshold(state.direction))
    if plan.boost is None:
        return threshold
    boost = plan.boost(time)
    if not treedef_is_leaf(jax.tree.structure(boost)):
        raise ValueError("one threshold needs one boost: the plan's differs by leaf")
    return threshold / boost


def sharpness_probe(
    plan: Plan,
    losses: Losses,
    data: PyTree,
    group: int | None = None,
    *,
    tolerance: float = 1e-2,
    **options,
) -> Probe:
    """Returns the probe of the Hessian's λ_max, and of the distance to instability.

    sharpness: λ_max(H) of the mean loss over the data. preconditioned_sharpness:
    λ_max(P^-½ (H + l2) P^-½), which is unstable above `threshold`; sign methods and
    Lion have neither. sharpness_residual: the larger of their relative residuals; above
    the tolerance, the search has ended without meeting it. Values are better than their
    residuals, whose square they are off by over the relative gap. `group` as in
    `full_batch`, options as in `top_eigenvalues`; each begins where the last one ended.
    A coordinate whose v is zero is divided by ε alone: where it has any curvature, as
    after minibatches that did not touch it, it outweighs all others.
    """
    check_rows("data", data)
    check_count("group", 1 if group is None else group)
    optimizer = plan.optimizer
    names = ["sharpness"]
    if optimizer.stability_threshold() is not None:
        names.append("preconditioned_sharpness")

    def init(state):
        key = jax.random.fold_in(state.key, int(Use.SHARPNESS))
        return random_vectors(key, state.params, len(names))

    def observe(examples, state, vectors):
        key = Draw(state.key, state.step).stream(Use.SHARPNESS).fresh()
        product = hessian(full_batch(losses, examples, group)(), state.params)

        def search(metric):
            divisor, l2, vector = metric

            def penalized(v):
                return jax.tree.map(lambda h, x: h + l2 * x, product(v), v)

            start = jax.tree.map(lambda x: x[None], vector)
            scaled = preconditioned(penalized, divisor)
            return top_eigenvalues(scaled, start, key, tolerance=tolerance, **options)

        # One search, compiled once, in each of the two metrics.
        divisors: list[PyTree] = [(jax.tree.map(jnp.ones_like, state.params), 0.0)]
        if len(names) > 1:
            direction = state.optimizer.direction
            divisor = optimizer.preconditioner(direction, state.params)
            divisors.append((divisor, optimizer.single().l2))
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *divisors)
        pairs = jax.lax.map(search, (*stacked, vectors))

        metrics = dict(zip(names, pairs.values[:, 0], strict=True))
        if len(names) > 1:
            metrics["threshold"] = stability_threshold(plan, state.optimizer)
        metrics["sharpness_residual"] = jnp.max(pairs.residuals)
        return metrics, jax.tree.map(lambda x: x[:, 0], pairs.vectors)

    return Probe(observe, init, on_device(data))


def batch_sharpness_probe(
    plan: Plan, sampler: Sampler, draws: int = 64, times: Times = None
) -> Probe:
    """Returns the probe of the curvature that a step meets in its own batch's loss.

    batch_sharpness is the mean over independent batches of dᵀHd/dᵀPd, where g and H are
    those of one batch with l2, and d = P⁻¹g: to second order a step −lr·d lowers the
    loss of its own batch where this is below 2/lr. With P = 1 it is the directional
    curvature that Andreyev and Beneventano (2024, arXiv 2412.20553) call so. Batches
    without a gradient do not count. Of plans with momentum it is refused, whose step is
    not along d.
    """
    optimizer = plan.optimizer.single()
    threshold = optimizer.stability_threshold()
    decay = optimizer.weight_decay * optimizer.lr + optimizer.absolute_decay
    if threshold is None or not np.isclose(threshold * optimizer.lr, 2 - decay):
        raise ValueError(
            f"{type(optimizer).__name__} does not step along P⁻¹g of its batch: needs "
            "SGD, AdaGrad, RMSprop, or Adam with b1=0"
        )
    check_count("draws", draws)

    def observe(oracle, state):
        divisor = optimizer.preconditioner(state.optimizer.direction, state.params)
        draw = Draw(state.key, state.step, state.time)
        key = draw.stream(Use.BATCH_SHARPNESS).fresh()

        def of_batch(number):
            own = draw._replace(key=jax.random.fold_in(key, number))
            grads = oracle(state.params, own)[1]
            grads = jax.tree.map(lambda g, x: g + optimizer.l2 * x, grads, state.params)
            step = jax.tree.map(jnp.divide, grads, divisor)
            curved = hessian(oracle, state.params, own)(step)
            curved = jax.tree.map(lambda h, d: h + optimizer.l2 * d, curved, step)
            return optax.tree.vdot(step, curved), optax.tree.vdot(step, grads)

        curved, length = jax.lax.map(of_batch, jnp.arange(draws))
        some = length > 0
        ratios = curved / jnp.where(some, length, 1)
        return {"batch_sharpness": jnp.mean(ratios, where=some)}

    oracle = signed_mix(sampler(plan.batch_size), plan.noise_gain)
    return probe(observe, oracle, times)
