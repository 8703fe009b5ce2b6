"""What a run of experiments.fullbatch would cost, without its data: --dry_run."""

import dataclasses
import math
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.fullbatch import recipe
from optsde import data
from optsde.analysis import table
from optsde.data.dataset import Dataset
from optsde.dynamics import Dynamics, discrete
from optsde.mesh import SplitRule, shards_for
from optsde.run import Engine, Task, exchange
from optsde.study import UsageError

SHAPES = {  # of one image, and how many there are
    "cifar10": ((32, 32, 3), 10, 50_000),
    "cifar100": ((32, 32, 3), 100, 50_000),
    "mnist": ((28, 28, 1), 10, 60_000),
    "fashion_mnist": ((28, 28, 1), 10, 60_000),
    "svhn_cropped": ((32, 32, 3), 10, 73_257),
}
COLLECTIVES = r"(all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)"
GRADIENTS = {"forward": 2, "central": 3, "exact": 2.5}  # of a block, with a penalty


def report(
    s: recipe.Shared,
    task: Task | None = None,
    *,
    flops: float | None = None,
    pod: int | None = None,
) -> None:
    """Compiles each row's step for the devices there are, and prints what it needs.

    Args:
      s: settings of the rows.
      task: of one's own, in place of the built-in one.
      flops: FLOP/s of another machine, all its devices together, on which the run is
        meant to be; those of this one are measured where it is None.
      pod: how many devices that machine has; those of this one where it is None.
    """
    if task is None:
        task = recipe.build_task(dataclasses.replace(s, stream=False), stand_in(s))
    module: Any = task.net.module
    if getattr(module, "form", "") == "auto":  # as on an accelerator, also on CPUs
        task = dataclasses.replace(task, model=module.clone(form="direct"))
    dtype = s.options.get("dtype") or "float32"
    speed = matmul_rate(dtype) if flops is None else flops
    others = pod or jax.device_count()
    rows = [
        [name, *_costs(s, row, task, speed, others)] for name, row in s.table().items()
    ]
    header = ["row", "parameters", "devices", "compile s", "FLOPs a step"]
    header += ["memory a device", "collectives a step", "sent a device a step"]
    header += ["step s ≥", "run ≥"]
    print(table(header, rows, "l" + "r" * 9))
    count = jax.device_count()
    where = (
        f"{f'the {count} devices' if count > 1 else 'the device'} here, all at work, "
        f"multiply at {speed / 1e9:,.0f} GFLOP/s"
        if flops is None
        else f"a machine of --flops={flops:g} would multiply without a pause"
    )
    print(f"\nat least: as if all were matrix products in {dtype}, which {where}")
    whose = "devices here" if pod is None else f"devices of --pod={pod}"
    print(f"sent: by each of the {others} {whose}, in rings, and as much is received")


def stand_in(s: recipe.Shared) -> Dataset:
    """Returns data of the right shape and size: the real ones, where they are here."""
    if s.dataset in data.loading.AT_HAND:
        return s.load()
    if s.dataset not in SHAPES:
        raise UsageError(
            f"--config.dataset={s.dataset}: its shape is not known without the data; "
            f"a dry run takes {', '.join([*data.loading.AT_HAND, *SHAPES])}"
        )
    shape, classes, size = SHAPES[s.dataset]
    size = s.train_size or size
    small = data.load("synthetic", shape=shape, classes=classes, train=2, test=2)
    images = np.zeros((size, *shape), np.uint8), np.zeros(size, np.int32)
    return dataclasses.replace(small, name=s.dataset, train=images)


def matmul_rate(dtype: str, size: int = 1024) -> float:
    """Returns the FLOP/s of matrix products on all devices at once.

    Devices of one processor share its cores, so that eight of them are no faster.
    """
    x = jnp.ones((size, size), dtype)
    each = [jax.device_put(x, device) for device in jax.local_devices()]
    product = jax.jit(lambda x: x @ x)
    jax.block_until_ready([product(x) for x in each])
    rounds, begun = 0, time.monotonic()
    while time.monotonic() - begun < 0.5:
        jax.block_until_ready([product(x) for x in each])
        rounds += 1
    seconds = time.monotonic() - begun
    return rounds * 2 * size**3 / seconds * jax.device_count()


def _costs(
    s: recipe.Shared, row: recipe.Row, task: Task, speed: float, devices: int
) -> list[str]:
    plan = recipe.build_plan(s, row, task.size)
    dynamics = discrete(plan, recipe.build_sampler(s, row, plan, task), task.init)
    rule = recipe.split_rule(s)
    engine = Engine(
        dynamics, s.seeds, shards=shards_for(s.seeds), sharded=rule, with_info=True
    )
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), s.seeds))
    lowered = engine.lower(jax.eval_shape(engine.init, keys))
    begun = time.monotonic()
    compiled = lowered.compile()
    seconds = time.monotonic() - begun
    memory: Any = compiled.memory_analysis()
    needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    collectives = re.findall(
        rf"= .* {COLLECTIVES}(?:-start)?\(", compiled.as_text() or ""
    )
    params = jax.eval_shape(task.init, jax.random.key(0))
    flops = s.seeds * flops_of_a_step(s, row, task)
    step = flops / speed
    return [
        f"{sum(math.prod(x.shape) for x in jax.tree.leaves(params)):,}",
        f"{jax.device_count()}",
        f"{seconds:.1f}",
        f"{flops:.3g}",
        f"{needed / 2**20:,.0f} MiB",
        f"{len(collectives)} {' '.join(sorted(set(collectives)))}".strip(),
        f"{_sent(dynamics, rule, s.seeds, devices) / 2**20:,.3g} MiB",
        f"{step:.3g}",
        _duration(step * row.steps),
    ]


def _sent(
    dynamics: Dynamics, rule: SplitRule | None, seeds: int, devices: int
) -> float:
    """Returns the bytes that each of so many devices sends in a step of all seeds."""
    sharing = max(1, devices // seeds)
    in_turn = -(-seeds * sharing // devices)
    return in_turn * exchange(dynamics, sharing, rule).sent


def flops_of_a_step(s: recipe.Shared, row: recipe.Row, task: Task) -> float:
    """Returns those of all gradients: of one block as XLA counts, times the blocks."""
    size = row.batch_size or task.size
    rows = min(row.block, size)
    block = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), task.train
    )
    params = jax.eval_shape(task.init, jax.random.key(0))
    gradient = jax.grad(lambda p, examples: jnp.mean(task.losses(p, examples)))
    cost: Any = jax.jit(gradient).lower(params, block).cost_analysis()
    passes = GRADIENTS[s.penalty_form] if row.penalty else 1
    return cost["flops"] * (size / rows) * passes


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds > length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
