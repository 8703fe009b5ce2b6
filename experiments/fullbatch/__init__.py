"""Can gradient descent on the full batch generalise as well as SGD?

The recipes of Geiping et al. (ICLR 2022) row by row: longer, clipped, penalised, in
smaller blocks. A preset of one row trains it, with checkpoints; a table trains all rows
as ensembles of the same seeds and gives verdicts on the paper's orderings. --dry_run
compiles the step and says what it costs, without data.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

import optsde
from experiments import probes, tasks
from experiments.fullbatch import recipe, report
from experiments.launch import launch
from experiments.rundir import RunDir
from optsde.analysis import verdict_table
from optsde.run import writers as metrics

KINKS = (
    "note: on ReLU the penalty's finite difference is not the Hessian times the "
    "gradient, since it crosses kinks; --config.penalty_form=exact is"
)


def main() -> None:
    launch(
        "fullbatch",
        __doc__,
        "configs/fullbatch.py:digits_table",
        recipe.check,
        run,
        dry_run=recipe_costs,
    )


def run(config: ConfigDict, rundir: RunDir) -> None:
    dataset = tasks.load(config)
    rundir.begin()
    rows = recipe.rows_of(config)
    if "rows" not in config:
        columns = train_row(rows["run"], dataset, rundir.path, "train")
        report.draw_run(columns, rundir.figure("run"))
        rundir.finish("done", [], last=report.last_row(columns))
        print(f"\n{report.run_table(columns)}")
    else:
        ends: dict[str, Mapping] = {}
        for name, row in rows.items():
            folder = rundir.path / "rows" / name
            ends[name] = train_row(row, dataset, folder, name)
        verdicts = report.judge(ends, config.known_false)
        print("", report.row_table(ends, config), "", sep="\n")
        print(report.difference_table(ends), "", sep="\n")
        print(verdict_table(verdicts))
        report.draw_rows(ends, config, rundir.figure("table"))
        rundir.finish("done", verdicts)
    print(f"\nfigures: {rundir.path / 'figures'}")
    print(f"summary: {rundir.path / 'summary.json'}")


def train_row(config: ConfigDict, dataset, folder: Path, label: str) -> dict[str, list]:
    """Train, or go on, in `folder`; the columns of its metrics."""
    import jax

    from optsde import train
    from optsde.dynamics import Engine

    log = folder / "metrics.jsonl"
    columns = metrics.read(log)
    if columns and columns["step"][-1] == config.steps:
        print(f"{label}: read from {folder}")
        return columns
    folder.mkdir(parents=True, exist_ok=True)
    built = recipe.build_run(config, tasks.build_task(config, dataset))
    if recipe.differences_cross_kinks(config, built.task.model):
        print(KINKS, file=sys.stderr)
    shards = max(1, jax.device_count() // config.seeds)
    engine = Engine(built.dynamics, config.seeds, shards=shards, with_info=True)
    extra = {
        "tensorboard": lambda: run.TensorBoard(folder / "tensorboard"),
        "wandb": lambda: run.Wandb(folder, config.to_dict()),
    }
    run.fit(
        engine,
        jax.random.split(jax.random.key(config.seed), config.seeds),
        config.steps,
        evaluate=built.task.evaluator(engine),
        log_every=config.log_every,
        evaluate_every=config.evaluate_every,
        probes=probes.build(config, built.plan, built.task, built.sampler),
        probe_every=config.probe_every,
        describe=lambda step: {"lr": float(built.plan.rate(step))},
        writers=[
            probes.writer(config, log),
            *(extra[name]() for name in config.writers),
        ],
        checkpoints=run.Checkpoints(folder / "checkpoints"),
        checkpoint_every=config.checkpoint_every or None,
        progress=optsde.Progress(f"{label:24}"),
    )
    return metrics.read(log)


def recipe_costs(config: ConfigDict) -> None:
    from experiments.fullbatch import costs

    costs.report(config)
