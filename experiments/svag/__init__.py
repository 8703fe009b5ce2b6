"""Does the SDE describe training? Discrete runs, SVAG(ℓ) and the SDE on one clock.

SVAG approaches the SDE as ℓ grows; a plain run that lies on top of it is described by
the SDE, and then the scaling rule for the batch must hold. Writes a run directory with
the curves, a figure, and verdicts with intervals.
"""

import functools
import itertools
from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.launch import launch, optimizer_of, refuse_divergence, require
from experiments.rundir import RunDir
from experiments.svag import weak_error
from experiments.svag.report import (
    arm_label,
    draw,
    grid,
    is_adaptive,
    judge,
    loss_table,
    svag_arm,
)
from optsde.analysis import verdict_table
from optsde.dynamics import Dynamics


def main() -> None:
    launch("svag", __doc__, "configs/svag.py:digits", check, run)


def check(config: ConfigDict) -> None:
    if "paths" in config:
        weak_error.check(config)
        return
    for name in ("batch_size", "substeps", "curve_every"):
        require(config[name] >= 1, config, name, "an integer ≥ 1")
    for name in ("seeds", "sde_seeds"):
        require(config[name] >= 2, config, name, "at least 2, for standard errors")
    require(config.bound > 0, config, "bound", "a positive number of percent")
    ells, times, batches = config.ells, config.times, config.small_batches
    require(min(ells) >= 1, config, "ells", "numbers ≥ 1")
    require(1 in ells, config, "ells", "1 among them: it is the plain run")
    require(len(set(ells)) == len(ells) > 1, config, "ells", "two or more, distinct")
    rising = all(a < b for a, b in itertools.pairwise((0, *times)))
    require(bool(times) and rising, config, "times", "positive, rising times")
    require(min(config.widths, default=1) >= 1, config, "widths", "integers ≥ 1")
    require(
        all(float(t).is_integer() and t % config.curve_every == 0 for t in times),
        config,
        "times",
        f"multiples of curve_every={config.curve_every}",
    )
    require(
        min(batches, default=1) >= 1 and len(set(batches)) == len(batches),
        config,
        "small_batches",
        "distinct integers ≥ 1",
    )
    for name, plan in plans(config).items():
        steps = config.curve_every / plan.dt
        require(
            abs(steps - round(steps)) < 1e-9,
            config,
            "small_batches" if name.startswith("batch") else "ells",
            f"whole steps in curve_every={config.curve_every}",
        )


def plans(config: ConfigDict) -> dict[str, optsde.Plan]:
    """One plan for each discrete arm, all rescaled from the base run."""
    base = optsde.Plan(
        optimizer=optimizer_of(config),
        batch_size=config.batch_size,
        horizon=max(config.times),
    )
    arms = {svag_arm(ell): optsde.svag(base, ell) for ell in sorted(config.ells)}
    for batch in config.small_batches:
        arms[f"batch{batch}"] = optsde.scale(base, batch / config.batch_size)
    return arms


def run(config: ConfigDict, rundir: RunDir) -> None:
    rundir.begin()
    if "paths" in config:
        weak_error.run(config, rundir)
        return
    arms = plans(config)
    base = arms["discrete"]
    finest = arms[svag_arm(max(config.ells))]
    print(optsde.explain(base, finest), end="\n\n", flush=True)

    curves = simulate(config, rundir, arms)
    verdicts = judge(config, curves, base)
    print("", loss_table(config, curves), "", verdict_table(verdicts), sep="\n")
    figure = rundir.figure("svag")
    draw(config, curves, base, figure)
    rundir.finish("done", verdicts)
    print(f"\nfigure: {figure}\nsummary: {rundir.path / 'summary.json'}")


def simulate(config: ConfigDict, rundir: RunDir, arms) -> dict[str, np.ndarray]:
    """Train loss [seeds, grid] of every arm; what rundir holds is not run again."""
    import jax
    import jax.numpy as jnp

    from optsde import data, gradients, models

    jax.config.update("jax_default_matmul_precision", "highest")
    examples = tuple(map(jnp.asarray, data.digits()))
    model = models.MLP((*config.widths, 10))
    losses = models.supervised(model, models.cross_entropy)
    params = models.init_params(model, jax.random.key(config.init_seed), examples[0])
    sampler = functools.partial(gradients.minibatch, losses, examples)
    base = arms["discrete"]
    sums = gradients.by_layers(model, models.cross_entropy, examples)
    law = gradients.from_data(losses, examples, base.batch_size, sums)

    makers: dict[str, Callable[[], Dynamics]] = {
        name: functools.partial(optsde.discrete, plan, sampler, params)
        for name, plan in arms.items()
    }
    makers["sde"] = lambda: optsde.sde(base, law, params, config.substeps)
    if is_adaptive(base):
        makers["sde_signal"] = lambda: optsde.sde(
            base, law, params, config.substeps, keep_signal=True
        )

    done = rundir.curves()
    root = jax.random.key(config.seed)
    for number, (name, make) in enumerate(makers.items()):
        if name in done:
            print(f"{arm_label(name, config)}: read from {rundir.path}")
            continue
        seeds = config.sde_seeds if name.startswith("sde") else config.seeds
        trajectory = optsde.ensemble(
            make(),
            jax.random.split(jax.random.fold_in(root, number), seeds),
            grid(config).tolist(),
            lambda state: jnp.mean(losses(state.params, examples)),
            progress=optsde.Progress(f"{arm_label(name, config):34}"),
        )
        hint = "try a smaller --config.optimizer.lr"
        refuse_divergence(trajectory, arm_label(name, config), hint)
        rundir.add_curves({name: trajectory.values})
        mean = trajectory.values.mean(axis=0).tolist()
        for time, loss in zip(trajectory.times.tolist(), mean, strict=True):
            rundir.log(arm=name, time=time, loss=loss)
    return rundir.curves()
