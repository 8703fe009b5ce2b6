"""What do the full-batch step and its penalty add to bare gradients?

A small conv net with BatchNorm on 1,024 digits in blocks of 128, one replica, one
device. The bare contender adds up the gradients of the same blocks and moves along
them. For larger sets the same digits are taken several times.
"""

import jax
import jax.numpy as jnp

import optsde
from benchmarks.question import Answer, Picture, Row, asked
from benchmarks.timing import clocked, race
from optsde import data, models, run
from optsde.gradients import Penalty, full_batch, penalized
from optsde.mesh import enable_compilation_cache, expose_cpu_cores

expose_cpu_cores()
enable_compilation_cache()

SIZE, BLOCK, EXAMPLES = 1024, 128, 10 * 1024  # EXAMPLES: of each call
SIZES = (1, 4, 16, 64)  # in thousands, of 1,024
TINY = dict(SIZE=64, BLOCK=32, EXAMPLES=64, SIZES=(1, 2))


def task(size: int) -> run.Task:
    """Digits, as often as it takes to have so many."""
    digits = data.load("digits", train_size=SIZE)
    train = jax.tree.map(
        lambda x: jnp.resize(jnp.asarray(x), (size, *x.shape[1:])), digits.train
    )
    return run.Task(
        models.build("digitsnet", 10, form="patches"),
        models.cross_entropy,
        train,
        jax.tree.map(jnp.asarray, digits.test),
        jnp.asarray(digits.train[0]),
        digits.normalise,
    )


def bare_loop(task: run.Task, sampler, batch: int, steps: int):
    """Seconds of the engine's compiled loop, with nothing around it."""
    optimizer = optsde.HeavyBall(lr=0.05, beta=0.9, nesterov=True, l2=5e-4)
    plan = optsde.Plan(optimizer=optimizer, batch_size=batch, horizon=steps)
    dynamics = optsde.discrete(plan, sampler, task.init)
    engine = run.Engine(dynamics, 1, with_info=True)
    keys = jax.random.split(jax.random.key(0), 1)
    zeros = engine.zeros(engine.init(keys))

    def advance():
        jax.block_until_ready(engine.advance(engine.init(keys), zeros, steps))

    return clocked(advance)


def steps_of(task: run.Task, penalty: Penalty | None = None):
    """Seconds of as many full-batch steps as read EXAMPLES."""
    size = jax.tree.leaves(task.train)[0].shape[0]
    sampler = full_batch(task.losses, task.train, BLOCK)
    if penalty is not None:
        sampler = penalized(sampler, penalty)
    return bare_loop(task, sampler, size, steps(size))


def steps(size: int) -> int:
    return max(1, EXAMPLES // size)


def bare(task: run.Task):
    """The same blocks' gradients in a scan, and a move along their mean."""
    blocks = jax.tree.map(lambda x: x.reshape(-1, BLOCK, *x.shape[1:]), task.train)
    count = len(blocks[0])

    def mean(params, block):
        return jnp.mean(task.losses(params, block))

    @jax.jit
    def run(params, blocks):
        def step(_, params):
            def add(total, block):
                return jax.tree.map(jnp.add, total, jax.grad(mean)(params, block)), None

            zero = jax.tree.map(jnp.zeros_like, params)
            total, _ = jax.lax.scan(add, zero, blocks)
            return jax.tree.map(lambda p, g: p - 0.05 / count * g, params, total)

        return jax.lax.fori_loop(0, steps(SIZE), step, params)

    params = task.init(jax.random.key(0))
    return clocked(lambda: jax.block_until_ready(run(params, blocks)))


def ask(seconds: float) -> Answer:
    small = task(SIZE)
    forward = Penalty(0.5, lambda time: 0.1)
    contenders = {
        "bare": bare(small),
        "full": steps_of(small),
        "penalty": steps_of(small, forward),
    }
    pairs = [("full", "bare"), ("penalty", "bare")]
    first = race(contenders, pairs, seconds / 2)
    sizes = [thousands * SIZE for thousands in SIZES]
    growing = {str(size): steps_of(task(size)) for size in sizes}
    least, most = str(sizes[0]), str(sizes[-1])
    second = race(growing, [(most, least)], seconds / 2)
    read = {size: size * steps(size) for size in sizes}
    flat = second.ratio(most, least, read[sizes[0]] / read[sizes[-1]])
    bare_ones = "bare gradients of the blocks"
    rows = [
        Row(f"full-batch step ÷ {bare_ones}", first.ratio("full", "bare"), aim=1.05),
        Row(
            f"with the penalty by finite differences ÷ {bare_ones}",
            first.ratio("penalty", "bare"),
            aim=2.15,
        ),
        Row(f"an example of {sizes[-1]:,} ÷ of {sizes[0]:,}", flat, aim=1.05),
    ]
    each = [second.seconds(str(size), 1e3 / steps(size)) for size in sizes]
    picture = Picture("examples", "ms per full-batch step", sizes, {"digitsnet": each})
    rounds = f"{first.rounds} and {second.rounds} rounds"
    return Answer(rows, [rounds], picture)


if __name__ == "__main__":
    asked(ask)
