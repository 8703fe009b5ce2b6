"""How far is a step that is priced on paper from one that is run?

Eight devices of this processor share the gradient of one net. Its step is priced by
what they multiply and send a second, which is measured, and run. Times are seconds of
the processor, in which other programs do not count.

    python -m benchmarks.growth [NET …]
"""

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

import optsde
from optsde import gradients, models
from optsde.analysis import table
from optsde.dynamics import Dynamics
from optsde.mesh import DATA, SplitRule, expose_cpu_cores, largest_axis
from optsde.run import Accelerator, Engine, cost

DEVICES, EXAMPLES, ROUNDS = 8, 512, 5
WIDE, SENT = 1024, 2**22  # a matrix; numbers that are summed over devices


def image(name: str, shape: tuple[int, ...], batch: int, group: int | None, **options):
    net = models.build(name, 10, **options)
    inputs = jnp.zeros((EXAMPLES, *shape)), jnp.zeros(EXAMPLES, jnp.int32)
    return net, models.cross_entropy, inputs, batch, group


def text(length: int, batch: int, group: int | None, **options):
    net = models.build("transformer", 1000, length=length, **options)
    tokens = jnp.zeros((EXAMPLES, length), jnp.int32)
    return net, models.token_cross_entropy, (tokens, tokens), batch, group


NETS: dict[str, Callable] = {
    "mlp": partial(image, "mlp", (784,), 1024, None, hidden=(1024, 1024)),
    "preresnet20": partial(image, "preresnet20", (32, 32, 3), 128, 16),
    "resnet18, group norm": partial(
        image, "resnet18", (32, 32, 3), 32, None, norm="group"
    ),
    "vgg16": partial(image, "vgg16", (32, 32, 3), 64, 8),
    "transformer": partial(text, 256, 32, 4, width=256, depth=4, heads=4),
}


def dynamics_of(net, loss, examples, batch, group) -> Dynamics:
    losses = models.supervised(net, loss)
    plan = optsde.Plan(optimizer=optsde.Adam(lr=1e-3), batch_size=batch, horizon=1e6)
    sampler = gradients.minibatch(losses, examples, group=group)
    return optsde.discrete(
        plan, sampler, lambda key: models.init_params(net, key, examples[0])
    )


def median_of(run: Callable[[], Any]) -> float:
    """Returns the processor's seconds of a call, the median of some."""
    jax.block_until_ready(run())
    found = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        jax.block_until_ready(run())
        found.append(time.process_time() - begun)
    return statistics.median(found)


def this_machine() -> Accelerator:
    """Returns what each device multiplies and sends a second, all of them at work."""
    mesh = Mesh(np.array(jax.devices()), (DATA,))
    own = PartitionSpec(DATA)
    over = partial(jax.shard_map, mesh=mesh, in_specs=own, out_specs=own)
    matrices = jnp.ones((DEVICES, WIDE, WIDE))
    multiply = jax.jit(over(lambda x: x @ x))
    vectors = jnp.ones((DEVICES, SENT))
    add = jax.jit(over(lambda x: x + jax.lax.psum(x, DATA)))
    seconds = median_of(lambda: multiply(matrices))
    sent = 2 * 4 * SENT * (DEVICES - 1) / DEVICES
    return Accelerator(
        flops=2 * WIDE**3 / seconds,
        share=1.0,
        bandwidth=sent / median_of(lambda: add(vectors)),
    )


def measured(dynamics: Dynamics, rule: SplitRule | None) -> tuple[float, int]:
    """Returns the seconds of a step, and the bytes that it needs beside its inputs."""
    engine = Engine(dynamics, 1, shards=DEVICES, sharded=rule, with_info=True)
    state = engine.init(jax.random.split(jax.random.key(0), 1))
    lowered = engine.lower(state)
    memory: Any = lowered.compile().memory_analysis()
    engine.compile(lowered)
    carry = state, engine.zeros(state)

    def step():
        nonlocal carry
        carry = engine.advance(*carry, steps=1)
        return engine.reached

    return median_of(step), memory.temp_size_in_bytes


def main() -> None:
    names = sys.argv[1:] or list(NETS)
    jax.config.update("jax_num_cpu_devices", DEVICES)
    expose_cpu_cores(DEVICES)
    rows = []
    for name in names:
        dynamics = dynamics_of(*NETS[name]())
        for words, rule in (("whole", None), ("split", largest_axis)):
            device = this_machine()
            priced = cost(dynamics, DEVICES, rule)
            expected = priced.seconds(device)
            took, memory = measured(dynamics, rule)
            rows.append(
                [
                    f"{name}, {words}",
                    f"{DEVICES * priced.flops / 1e9:.3g}",
                    f"{device.flops / 1e9:.3g}, {device.bandwidth / 1e6:.3g}",
                    f"{expected.compute:.3g} + {expected.wire:.3g}",
                    f"{took:.3g}",
                    f"{took / expected.in_turn:.2f}",
                    f"{priced.working / 2**20:.1f}",
                    f"{memory / 2**20:.1f}",
                    f"{priced.working / memory:.2f}",
                ]
            )
            print(" ".join(rows[-1]), flush=True)
    header = ["net, parameters", "GFLOP", "GFLOP/s, MB/s of each", "on paper, s"]
    header += ["took, s", "× paper", "MiB on paper", "compiled", "ratio"]
    print(table(header, rows, "l" + "r" * 8))


if __name__ == "__main__":
    main()
