"""What do 2 to 8 devices that share a gradient exchange in a step?

Counted in the traced program, for ResNet-18 and SGD with momentum, where parameters lie
whole on each device or are split over them: no timing. The aims are one sum of the
gradient, or one gather of the parameters and one scatter of the gradient, in a ring.
Where parameters are split, each block of a device's examples gathers them anew.
"""

import jax
import jax.numpy as jnp

import optsde
from benchmarks.question import Answer, Picture, Row, asked, exactly
from optsde import gradients, mesh, models, run

DEVICES = (2, 4, 8)
BATCH, SIDE, BLOCKS = 64, 32, 4
RESERVE = 1.01  # the loss and what else a step tells of itself, on top of an aim
NET = "resnet18"
TINY = dict(NET="resnet20", BATCH=32, SIDE=8)
WAYS = {"whole": None, "split": mesh.largest_axis}


def dynamics(group: int):
    """A step on images, of which only the shapes count."""
    images = jnp.zeros((BATCH, SIDE, SIDE, 3))
    train = images, jnp.zeros(BATCH, jnp.int32)
    model = models.build(NET, 10)
    task = run.Task(model, models.cross_entropy, train, train, images)
    optimizer = optsde.HeavyBall(lr=0.1, beta=0.9)
    plan = optsde.Plan(optimizer=optimizer, batch_size=BATCH, horizon=10)
    sampler = gradients.full_batch(task.losses, task.train, group)
    return optsde.discrete(plan, sampler, task.init)


def ask(seconds: float) -> Answer:
    del seconds  # nothing is timed
    made = {(n, 1): dynamics(BATCH // n) for n in DEVICES}
    most = DEVICES[-1]
    made[most, BLOCKS] = dynamics(BATCH // most // BLOCKS)
    init = made[most, 1].init
    state = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)))
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.params))
    rows, curves = [], {}
    for way, rule in WAYS.items():
        for (n, blocks), step in made.items():
            sent = run.exchange(step, n, rule).sent
            words = f"{n} devices, parameters {way}"
            if blocks > 1:
                words += f", {blocks} blocks each"
            else:
                curves.setdefault(way, []).append(exactly(sent / 1e6))
            aim = round(RESERVE * 2 * (n - 1) / n, 3) if blocks == 1 else None
            row = f"{words}: sent by each ÷ bytes of parameters", exactly(sent / size)
            rows.append(Row(*row, aim=aim))
    note = f"{NET}, {size / 1e6:.1f} MB of parameters"
    return Answer(rows, [note], Picture("devices", "MB sent a step", DEVICES, curves))


if __name__ == "__main__":
    asked(ask)
