"""What share of a device's matmul peak does a ResNet's full-batch step reach?

Images of CIFAR's shape and random content, SGD with momentum, in blocks that share
BatchNorm's statistics, in float32 and bfloat16, against the same in torch:
channels_last, torch.compile, autocast. The peak is a large matmul of the same type in
the same rounds. A gradient's operations are those that XLA counts in the program of
one block. On recent GPUs jax multiplies float32 by TF32, which torch may do here too.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import optsde
from benchmarks import peers
from benchmarks.question import Answer, Row, asked, missing
from benchmarks.timing import clocked, race
from benchmarks.torch_resnet import resnet
from optsde import models, run
from optsde.gradients import full_batch

NETS = {
    "ResNet-18": dict(blocks=(2, 2, 2, 2), width=64, bottleneck=False),
    "ResNet-50": dict(blocks=(3, 4, 6, 3), width=64, bottleneck=True),
}
TYPES = ("float32", "bfloat16")
SIZE, BLOCK, SIDE = 4096, 512, 32
MATRIX, PRODUCTS = 8192, 10
TINY = dict(
    NETS={"a ResNet": dict(blocks=(1,), width=8, bottleneck=True)},
    **dict(SIZE=8, BLOCK=4, SIDE=8, MATRIX=128, PRODUCTS=2),
)


def matmul(dtype: str) -> Callable[[], float]:
    """The seconds of products of large matrices, one after the other."""
    matrix = jnp.ones((MATRIX, MATRIX), dtype) / MATRIX

    @jax.jit
    def run(x, y):
        return jax.lax.fori_loop(0, PRODUCTS, lambda _, x: x @ y, x)

    return clocked(lambda: jax.block_until_ready(run(matrix, matrix)))


def task(options: dict, dtype: str) -> run.Task:
    keys = jax.random.split(jax.random.key(0))
    images = jax.random.normal(keys[0], (SIZE, SIDE, SIDE, 3))
    train = images, jax.random.randint(keys[1], (SIZE,), 0, 10)
    model = models.ResNet(10, dtype=jnp.dtype(dtype), **options)
    return run.Task(model, models.cross_entropy, train, train, images[:2])


def step(task: run.Task) -> Callable[[], float]:
    """The seconds of one full-batch step in the engine's compiled loop."""
    optimizer = optsde.HeavyBall(lr=0.01, beta=0.9)
    plan = optsde.Plan(optimizer=optimizer, batch_size=SIZE, horizon=1)
    sampler = full_batch(task.losses, task.train, BLOCK)
    engine = run.Engine(optsde.discrete(plan, sampler, task.init), 1, with_info=True)
    keys = jax.random.split(jax.random.key(0), 1)
    zeros, start = engine.zeros(engine.init(keys)), engine.init

    def timed() -> float:
        state = jax.block_until_ready(start(keys))
        advance = clocked(
            lambda: jax.block_until_ready(engine.advance(state, zeros, 1))
        )
        return advance()

    return timed


def operations(task: run.Task) -> float:
    """The floating-point operations of one example's gradient, as XLA counts them."""
    block = jax.tree.map(lambda x: x[:BLOCK], task.train)
    params = task.init(jax.random.key(0))

    def mean(params, block):
        return jnp.mean(task.losses(params, block))

    found: Any = jax.jit(jax.grad(mean)).lower(params, block).cost_analysis()
    return found["flops"] / BLOCK


def torch_step(torch: Any, options: dict, dtype: str) -> tuple[Any, int, bool]:
    """Returns (the step, how many parameters, whether it is compiled)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    net = resnet(torch, **options).to(device, memory_format=torch.channels_last)
    sgd = torch.optim.SGD(net.parameters(), 0.01, 0.9)
    x = torch.randn(SIZE, 3, SIDE, SIDE, device=device)
    x = x.to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (SIZE,), device=device)
    mixed = dtype == "bfloat16"

    def loss(x, y):
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            outputs = net(x)
        return torch.nn.functional.cross_entropy(outputs.float(), y) * (BLOCK / SIZE)

    fast, compiled = peers.compiled(torch, loss, x[:BLOCK], y[:BLOCK])

    def run():
        sgd.zero_grad()
        for block in zip(x.split(BLOCK), y.split(BLOCK), strict=True):
            fast(*block).backward()
        sgd.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run, sum(p.numel() for p in net.parameters()), compiled


def measured(label: str, options: dict, dtype: str, seconds: float) -> Answer:
    """Returns the rows of one net in one type."""
    ours = task(options, dtype)
    contenders = {"matmul": matmul(dtype), "optsde": step(ours)}
    notes = []
    if torch := peers.installed("torch"):
        theirs, count, compiled = torch_step(torch, options, dtype)
        contenders["torch"] = clocked(theirs)
        params = jax.eval_shape(ours.init, jax.random.key(0))
        if count != sum(x.size for x in jax.tree.leaves(params)):
            raise RuntimeError(f"{label}: torch's net has {count} parameters")
        if not compiled:
            notes.append(f"{label}: torch.compile failed, and torch is eager")
    else:
        notes.append(missing("torch"))
    nets = [name for name in contenders if name != "matmul"]
    found = race(contenders, [("optsde", name) for name in nets[1:]], seconds)
    product = 2 * MATRIX**3 * PRODUCTS
    work = operations(ours) * SIZE / product
    rows = [
        Row(f"{label}: optsde ÷ {name}", found.ratio("optsde", name), aim=1)
        for name in nets[1:]
    ]
    for name in nets:
        images, share = found.rate(name, SIZE), found.ratio("matmul", name, work)
        rows += [
            Row(f"{label}, {name}: images", images, "a second", more=True),
            Row(f"{label}, {name}: share of the peak", share, more=True),
        ]
    peak = found.rate("matmul", product / 1e12)
    rows.append(Row(f"matmul beside {label}", peak, "TFLOP/s", more=True))
    return Answer(rows, notes)


def ask(seconds: float) -> Answer:
    each = seconds / (len(TYPES) * len(NETS))
    answers = [
        measured(f"{name}, {dtype}", options, dtype, each)
        for name, options in NETS.items()
        for dtype in TYPES
    ]
    notes = dict.fromkeys(note for answer in answers for note in answer.notes)
    return Answer([row for answer in answers for row in answer.rows], [*notes])


if __name__ == "__main__":
    asked(ask)
