"""Two ensembles of nets from two starts of unequal norm, and what is measured of them.

The settings are those of `mixing`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.intrinsic_lr import nets
from optsde.dynamics import discrete
from optsde.measure import Probe
from optsde.optimizers import SGD
from optsde.plans import Plan
from optsde.run import Progress, fit, statistics
from optsde.study import require


def build_task(s):
    """Returns the task of a normalized net; refuses more images than are held out."""
    task = nets.build_task(s)
    held_out = len(task.test[0])
    allowed = f"at most the {held_out} that are held out"
    require(s.images <= held_out, "images", s.images, allowed)
    return task


def times(s, intrinsic):
    """Returns the steps of measurements; the last two are the middle and the end."""
    shares = np.geomspace(s.first, s.length / 2, s.looks - 1)
    return np.round(np.append(shares, s.length) / intrinsic).astype(int)


def plan_of(s, intrinsic):
    """Returns the plan of a λ_e, of the same equilibrium norm for the same noise."""
    lr = np.sqrt(intrinsic * s.ratio)
    optimizer = SGD(lr=float(lr), weight_decay=float(intrinsic / lr))
    steps = int(times(s, intrinsic)[-1])
    return Plan(optimizer=optimizer, batch_size=s.batch_size, horizon=steps)


def measured(s, task, intrinsic):
    """Returns what is measured of both ensembles, the first before the second."""
    plan, sampler = plan_of(s, intrinsic), nets.sampler_of(s, task)
    draws, *keys = jax.random.split(jax.random.key(s.seed), 3)
    points = [
        optax.tree.scale(scale, task.init(key))
        for key, scale in zip(keys, s.scales, strict=True)
    ]
    starts = jax.tree.map(lambda *x: jnp.repeat(jnp.stack(x), s.seeds, axis=0), *points)
    result = fit(
        lambda start: discrete(plan, sampler, start),
        jax.random.split(draws, 2 * s.seeds),
        plan.horizon,
        members=starts,
        probes=[watch(s, task, intrinsic)],
        progress=Progress(f"λ_e {intrinsic:<8g}"),
    )
    found = {name: x.values for name, x in result.metrics.items()}
    return {"times": times(s, intrinsic), **found}


def watch(s, task, intrinsic):
    """Returns the probe of losses, effective lr, predictions, and cosine with w_T."""
    lr = plan_of(s, intrinsic).optimizer.lr
    half = times(s, intrinsic)[-2]

    def observe(source, state, anchor):
        judged, plain, images = source
        params = state.params
        square = optax.tree.norm(params, squared=True)
        anchor = jax.tree.map(
            lambda x, y: jnp.where(state.time == half, x, y), params, anchor
        )
        cosine = optax.tree.vdot(anchor, params) / (
            optax.tree.norm(anchor) * jnp.sqrt(square)
        )
        found = statistics(task.model, params, plain, 512, task.prepare)
        outputs = task.net.evaluated(params, task.prepare(images), found)
        metrics = nets.losses(task, judged, params)
        metrics |= {"effective_lr": lr / square, "aligned": cosine}
        return metrics | {"predictions": jax.nn.softmax(outputs)}, anchor

    source = nets.judged_on(s, task), task.plain, task.test[0][: s.images]
    return Probe(
        observe,
        lambda state: state.params,
        source,
        times(s, intrinsic).tolist(),
        finite=True,
    )


def coordinates(predictions):
    """Returns vectors with the distances of predictions, no longer than members are.

    Both have members first and then times. Distances are those at one time.
    """
    rows = np.moveaxis(np.asarray(predictions, np.float64), 1, 0)
    rows = rows.reshape(*rows.shape[:2], -1)
    found = [np.transpose(np.linalg.qr(x.T)[1]) for x in rows]
    return np.stack(found, axis=1)
