"""What a run of experiments.fullbatch would cost, without its data: --dry_run."""

import dataclasses
import math
import re
import time
from typing import Any

from ml_collections import ConfigDict

from experiments import tasks
from experiments.fullbatch import recipe
from experiments.launch import UsageError
from optsde.analysis import table

SHAPES = {  # of one image, and how many there are
    "cifar10": ((32, 32, 3), 10, 50_000),
    "cifar100": ((32, 32, 3), 100, 50_000),
    "mnist": ((28, 28, 1), 10, 60_000),
    "fashion_mnist": ((28, 28, 1), 10, 60_000),
    "svhn_cropped": ((32, 32, 3), 10, 73_257),
}
COLLECTIVES = r"(all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)"


def report(config: ConfigDict) -> None:
    """Compile each row's step for the devices there are, and print what it needs."""
    dataset = stand_in(config)
    speed = matmul_rate(config.options.dtype)
    rows = []
    for name, row in recipe.rows_of(config).items():
        rows.append([name, *_costs(row, dataset, speed)])
    header = ["row", "parameters", "devices", "compile s", "FLOPs a step"]
    header += ["memory a device", "collectives a step", "step s ≥", "run ≥"]
    print(table(header, rows, "l" + "r" * 8))
    print(
        f"\nat least: as if all were matrix products in {config.options.dtype}, which "
        f"one device here multiplies at {speed / 1e9:,.0f} GFLOP/s"
    )


def stand_in(config: ConfigDict):
    """A data set of the right shape and size: the real one, where it is at hand."""
    import dataclasses

    import numpy as np

    from optsde import data

    if config.dataset in data.loading.AT_HAND:
        return tasks.load(config)
    if config.dataset not in SHAPES:
        raise UsageError(
            f"--config.dataset={config.dataset}: its shape is not known without the "
            f"data; a dry run takes {', '.join([*data.loading.AT_HAND, *SHAPES])}"
        )
    shape, classes, size = SHAPES[config.dataset]
    size = config.train_size or size
    small = data.load("synthetic", shape=shape, classes=classes, train=2, test=2)
    images = np.zeros((size, *shape), np.uint8), np.zeros(size, np.int32)
    return dataclasses.replace(small, name=config.dataset, train=images)


def matmul_rate(dtype: str, size: int = 2048) -> float:
    """FLOP/s of a matrix product on one device."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones((size, size), dtype)
    product = jax.jit(lambda x: x @ x)
    jax.block_until_ready(product(x))
    begun = time.monotonic()
    for _ in range(3):
        y = product(x)
    jax.block_until_ready(y)
    return 3 * 2 * size**3 / (time.monotonic() - begun)


def _costs(config: ConfigDict, dataset, speed: float) -> list[str]:
    import jax

    from optsde.dynamics import Engine

    task = tasks.build_task(ConfigDict(config.to_dict() | {"stream": False}), dataset)
    if hasattr(task.model, "form"):  # as on an accelerator, wherever this is compiled
        task = dataclasses.replace(task, model=task.model.clone(form="direct"))
    built = recipe.build_run(config, task)
    devices = jax.device_count()
    shards = max(1, devices // config.seeds)
    engine = Engine(built.dynamics, config.seeds, shards=shards, with_info=True)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), config.seeds))
    state = jax.eval_shape(jax.vmap(built.dynamics.init), keys)
    begun = time.monotonic()
    compiled = engine.lower(state).compile()
    seconds = time.monotonic() - begun

    parameters = sum(math.prod(x.shape[1:]) for x in jax.tree.leaves(state.params))
    flops = _flops(config, built, state) * config.seeds
    memory: Any = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    collectives = re.findall(
        rf"= .* {COLLECTIVES}(?:-start)?\(", compiled.as_text() or ""
    )
    step = flops / speed / devices
    return [
        f"{parameters:,}",
        f"{devices}",
        f"{seconds:.1f}",
        f"{flops:.3g}",
        f"{held / 2**20:,.0f} MiB",
        f"{len(collectives)} {' '.join(sorted(set(collectives)))}".strip(),
        f"{step:.3g}",
        _duration(step * config.steps),
    ]


def _flops(config: ConfigDict, built: recipe.Run, state) -> float:
    """Of all gradients of a step: one block's as XLA counts them, times the blocks."""
    import jax
    import jax.numpy as jnp

    size = built.plan.batch_size
    rows = min(config.block, size)
    task = built.task
    block = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), task.train
    )
    params = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), state.params
    )
    gradient = jax.grad(lambda p, examples: jnp.mean(task.losses(p, examples)))
    cost: Any = jax.jit(gradient).lower(params, block).cost_analysis()
    passes = 1
    if config.penalty:
        passes = {"forward": 2, "central": 3, "exact": 2.5}[config.penalty_form]
    return cost["flops"] * (size / rows) * passes


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds > length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
