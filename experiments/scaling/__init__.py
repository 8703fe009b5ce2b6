"""Tuned at batch B: what at κB, and will it hold? Three answers, from cheap to sure.

Predict measures signal and noise of the gradient along a base run (`probe_until` of it,
with `probe_seeds` seeds); with --config.verify=False nothing else runs. Simulate runs
SVAG: where it does not change with ℓ, the SDE describes the run, and the rule must
hold. Verify trains at κB under the optimizer's own rule and under the rules people use
instead, on one clock, with the same seeds. --dry_run prints the hyperparameters.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments import probes, tasks
from experiments.launch import launch
from experiments.rundir import RunDir
from experiments.scaling import report
from experiments.scaling.plans import Arm, arms, base_plan, check, grouped
from experiments.scaling.report import Columns
from optsde.analysis import verdict_table
from optsde.run import writers as metrics
from optsde.run.loop import DivergedError


def main() -> None:
    launch(
        "scaling",
        __doc__,
        "configs/scaling.py:digits",
        check,
        run,
        dry_run=show_plans,
    )


def show_plans(config: ConfigDict) -> None:
    base, *others = arms(config)
    for arm in others:
        if arm.rule in ("svag", "rule"):
            print(f"{arm.label}\n{optsde.explain(base.plan, arm.plan)}\n")


def run(config: ConfigDict, rundir: RunDir) -> None:
    import jax

    jax.config.update("jax_default_matmul_precision", "highest")
    task = build_task(config)
    rundir.begin()
    prediction = foretell(config, task, rundir)
    print(f"{prediction.text}\n", flush=True)
    if not config.verify:
        rundir.finish("done", [], prediction=report.to_json(prediction))
        return
    columns: Columns = {}
    for group in grouped(arms(config)):
        columns |= train_group(config, task, group, rundir.path / "arms")
    verdicts = report.judge(config, columns, prediction)
    print("", report.difference_table(config, columns), "", sep="\n")
    print(verdict_table(verdicts), "", sep="\n")
    print(report.answer(config, verdicts, prediction))
    rundir.finish("done", verdicts, prediction=report.to_json(prediction))
    figure = rundir.figure("scaling")
    report.draw(config, columns, prediction, figure)
    print(f"\nfigure: {figure}\nsummary: {rundir.path / 'summary.json'}")


def build_task(config: ConfigDict):
    return tasks.build_task(config, tasks.relabelled(config, tasks.load(config)))


def sampler_of(config: ConfigDict, task):
    """Batches of independent draws; heavy tails are added where the config asks."""
    from optsde import gradients

    group = None if config.group == 1 else config.group

    def sampler(batch_size: int):
        oracle = gradients.minibatch(
            task.losses, task.train, batch_size, group=group, augment=task.augment
        )
        if not config.alpha:
            return oracle
        larger = batch_size / config.batch_size
        size = config.tail_size * larger ** (1 / config.alpha - 1)
        return gradients.heavy_tailed(oracle, config.alpha, size)

    return sampler


def foretell(config: ConfigDict, task, rundir: RunDir) -> SimpleNamespace:
    """The prediction as figures and text, made once and kept in prediction.json."""
    file = rundir.path / "prediction.json"
    if file.exists():
        held = json.loads(file.read_text())
        return SimpleNamespace(
            **{k: np.inf if v is None else v for k, v in held.items()}
        )
    noises, times, prediction = predict(config, task)
    text = [
        report.noise_table(noises, times, config.batch_size),
        report.group_table(noises),
        str(prediction),
    ]
    made = report.to_json(prediction) | {"text": "\n\n".join(text)}
    rundir.write(file.name, made)
    return SimpleNamespace(**made)


def predict(config: ConfigDict, task):
    """(noise, its times, prediction) of a few seeds of the base run."""
    import jax

    from optsde import measure
    from optsde.dynamics import Engine

    plan, sampler = base_plan(config), sampler_of(config, task)
    engine = Engine(optsde.discrete(plan, sampler, task.init), config.probe_seeds)
    state = engine.init(_keys(config, config.probe_seeds))
    look = engine.each(measure.noise_probe(plan, sampler, config.draws))
    every = round(config.horizon / config.evaluations)
    progress = optsde.Progress(f"{'predict':24}")
    count = round(config.probe_until * config.evaluations)
    noises = []
    progress.begin(0)
    for number in range(1, count + 1):
        state, _ = engine.advance(state, (), every)
        noises.append(engine.kept(jax.block_until_ready(look(state))))
        if not np.isfinite(noises[-1].total().noise).all():
            begin = (number - 1) * every
            raise DivergedError(
                f"the base run between t = {begin} and {begin + every}; try a smaller "
                "--config.optimizer.lr"
            )
        progress.update(number * every, count * every)
    first = jax.tree.map(lambda x: x[0], state)
    oracle = sampler(plan.batch_size)
    draw = optsde.gradients.Draw(first.key, first.step)
    try:
        tail = measure.tail_index(oracle, first.params, draw, group=config.tail_group)
    except ValueError:  # gradients too sparse to say
        tail = None
    stacked = jax.tree.map(lambda *x: np.stack(x, axis=1), *noises)
    times = [every * (i + 1) for i in range(count)]
    prediction = measure.predict(
        plan,
        stacked,
        times,
        tail,
        kappas=config.kappas,
        memory=config.memory,
        close=config.close,
    )
    return stacked, times, prediction


def train_group(config: ConfigDict, task, group: list[Arm], folder: Path) -> Columns:
    """Train, or go on with, all arms of a group: replicas are arms × seeds."""
    import jax
    import jax.numpy as jnp

    from optsde import train
    from optsde.dynamics import Engine

    plan, place = group[0].plan, folder / group[0].group
    every = round(config.horizon / config.evaluations / plan.dt)
    log = place / "metrics.jsonl"
    columns = metrics.read(log)
    if columns and columns["step"][-1] == plan.steps:
        print(f"{group[0].group}: read from {place}")
        return report.split_columns(columns, group, config.seeds)
    place.mkdir(parents=True, exist_ok=True)
    sampler, lone = sampler_of(config, task), len(group) == 1
    keys = _keys(config, config.seeds)
    replicas = len(group) * config.seeds
    shards = max(1, jax.device_count() // replicas)

    if lone:
        engine = Engine(
            optsde.discrete(plan, sampler, task.init),
            replicas,
            shards=shards,
            with_info=True,
        )
    else:

        def dynamics(plan):
            return optsde.discrete(plan, sampler, task.init)

        members = jax.tree.map(
            lambda *x: jnp.repeat(jnp.array(x, float), config.seeds),
            *(arm.plan for arm in group),
        )
        engine = Engine(
            dynamics, replicas, members=members, shards=shards, with_info=True
        )
    run.fit(
        engine,
        jnp.tile(keys, len(group)),
        plan.steps,
        evaluate=task.evaluator(engine),
        log_every=every,
        evaluate_every=every,
        probes=probes.build(config, plan, task, sampler) if lone else (),
        probe_every=every,
        writers=[probes.writer(config, log)],
        checkpoints=run.Checkpoints(place / "checkpoints"),
        checkpoint_every=every * max(1, config.evaluations // 4),
        progress=optsde.Progress(f"{group[0].group:24}"),
        stop_at_divergence=False,
    )
    return report.split_columns(metrics.read(log), group, config.seeds)


def _keys(config: ConfigDict, count: int):
    """The same seeds for every arm, so that differences are paired."""
    import jax

    return jax.random.split(jax.random.key(config.seed), count)
