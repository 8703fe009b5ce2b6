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
from optsde.dynamics import discrete
from optsde.mesh import shards_for
from optsde.run import Accelerator, Engine, Task, cost
from optsde.study import UsageError

SHAPES = {  # of one image, and how many there are
    "cifar10": ((32, 32, 3), 10, 50_000),
    "cifar100": ((32, 32, 3), 100, 50_000),
    "mnist": ((28, 28, 1), 10, 60_000),
    "fashion_mnist": ((28, 28, 1), 10, 60_000),
    "svhn_cropped": ((32, 32, 3), 10, 73_257),
}
COLLECTIVES = r"(all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)"


def report(
    s: recipe.Shared,
    task: Task | None = None,
    *,
    pod: int | None = None,
    flops: float | None = None,
    share: float | None = None,
    bandwidth: float = math.inf,
    memory: float = math.inf,
) -> None:
    """Compiles each row's step for the devices there are, and prints what it needs.

    Args:
      s: settings of the rows.
      task: of one's own, in place of the built-in one.
      pod: how many accelerators the machine has on which the run is meant to be; None:
        as many devices as there are here.
      flops: the peak of each, in FLOP/s. None: they multiply as fast as those here,
        which is measured.
      share: of that peak that a net reaches.
      bandwidth: bytes/s that each sends.
      memory: bytes of each.
    """
    if task is None:
        task = recipe.build_task(dataclasses.replace(s, stream=False), stand_in(s))
    module: Any = task.net.module
    if getattr(module, "form", "") == "auto":  # as on an accelerator, also on CPUs
        task = dataclasses.replace(task, model=module.clone(form="direct"))
    if flops is None and share is not None:
        raise UsageError(f"--share={share:g}: is of a peak; give it by --flops=F")
    dtype, here = s.options.get("dtype") or "float32", jax.device_count()
    if flops is None:
        flops, share = matmul_rate(dtype) / here, 1.0
        speed = f"multiplying {dtype} as each of those here, without a pause"
    else:
        share = Accelerator.share if share is None else share
        speed = f"of which a net reaches {share:g} (--share)"
    device = Accelerator(flops, share, bandwidth, memory)
    count = pod or here
    rows = [
        [name, *_costs(s, row, task, device, count)] for name, row in s.table().items()
    ]
    header = ["row", "parameters", "devices", "compile s", "FLOPs a step"]
    header += ["memory a device", "collectives a step", "sent a device a step"]
    header += ["step s", "run", f"memory a device of {count} ≈"]
    print(table(header, rows, "l" + "r" * 10))
    wire = "; what is sent takes no time without --bandwidth"
    if bandwidth < math.inf:
        wire = (
            f"; each sends {bandwidth:g} bytes/s: from all of it while they multiply, "
            "to none of it"
        )
    whose = "devices here" if pod is None else f"devices of --pod={pod}"
    print(f"\nstep: on {count} devices of {flops:.3g} FLOP/s, {speed}{wire}")
    print(f"sent: by each of the {count} {whose}, in rings, and as much is received")
    if memory < math.inf:
        print(f"memory: {memory / 2**20:,.0f} MiB a device; ! marks what may not fit")


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
    s: recipe.Shared, row: recipe.Row, task: Task, device: Accelerator, count: int
) -> list[str]:
    plan = recipe.build_plan(s, row, task.size)
    dynamics = discrete(plan, recipe.build_sampler(s, row, plan, task), task.init)
    rule = recipe.split_rule(s)
    engine = Engine(
        dynamics, s.seeds, shards=shards_for(s.seeds), sharded=rule, with_info=True
    )
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), s.seeds))
    lowered = engine.lower(engine.shapes(keys))
    begun = time.monotonic()
    compiled = lowered.compile()
    seconds = time.monotonic() - begun
    memory: Any = compiled.memory_analysis()
    needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    collectives = re.findall(
        rf"= .* {COLLECTIVES}(?:-start)?\(", compiled.as_text() or ""
    )
    params = jax.eval_shape(task.init, jax.random.key(0))
    sharing = max(1, count // s.seeds)
    in_turn = -(-s.seeds * sharing // count)  # seeds that a device has
    each = cost(dynamics, sharing, rule)
    step = each.seconds(device)
    least, most = in_turn * step.overlapped, in_turn * step.in_turn
    held = each.data + in_turn * (each.state + each.working)
    return [
        f"{sum(math.prod(x.shape) for x in jax.tree.leaves(params)):,}",
        f"{jax.device_count()}",
        f"{seconds:.1f}",
        f"{s.seeds * sharing * each.flops:.3g}",
        f"{needed / 2**20:,.0f} MiB",
        f"{len(collectives)} {' '.join(sorted(set(collectives)))}".strip(),
        f"{in_turn * each.exchange.sent / 2**20:,.3g} MiB",
        _between(f"{least:.3g}", f"{most:.3g}"),
        _between(duration(least * row.steps), duration(most * row.steps)),
        f"{'! ' if held > device.memory else ''}{held / 2**20:,.0f} MiB",
    ]


def _between(least: str, most: str) -> str:
    return least if least == most else f"{least} to {most}"


def duration(seconds: float) -> str:
    """Returns a time in the unit that suits it."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds > length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
