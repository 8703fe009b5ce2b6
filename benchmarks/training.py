"""What do the full-batch step and the training loop add to bare gradients?

A small conv net with BatchNorm on 1,024 digits in blocks of 128, one replica, one
device. The bare contender adds up the gradients of the same blocks and moves along
them; the loop writes metrics, evaluates every 100 steps and keeps checkpoints.

    make bench
"""

import io
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp

import optsde
from benchmarks.timing import clocked, interleaved, report
from optsde import data, models, run
from optsde.gradients import Penalty, full_batch, minibatch, penalized
from optsde.mesh import expose_cpu_cores

expose_cpu_cores()

SIZE, BLOCK, STEPS, LOOP_STEPS = 1024, 128, 10, 1500
SET = data.load("digits", train_size=SIZE)
MODEL = models.build("digitsnet", 10, form="patches")
TASK = run.Task(
    MODEL,
    models.cross_entropy,
    jax.tree.map(jnp.asarray, SET.train),
    jax.tree.map(jnp.asarray, SET.test),
    jnp.asarray(SET.train[0]),
    SET.normalise,
)
KEYS = jax.random.split(jax.random.key(0), 1)


def run_of(sampler, batch: int, horizon: int):
    optimizer = optsde.HeavyBall(lr=0.05, beta=0.9, nesterov=True, l2=5e-4)
    plan = optsde.Plan(optimizer=optimizer, batch_size=batch, horizon=horizon)
    return optsde.discrete(plan, sampler, TASK.init)


def bare_loop(sampler, batch: int, steps: int):
    """Seconds of the compiled loop, with nothing around it."""
    engine = run.Engine(run_of(sampler, batch, steps), 1, with_info=True)
    zeros = engine.zeros(engine.init(KEYS))

    def advance():
        jax.block_until_ready(engine.advance(engine.init(KEYS), zeros, steps))

    return clocked(advance)


def step_of(penalty: Penalty | None):
    """Seconds of STEPS full-batch steps."""
    sampler = full_batch(TASK.losses, TASK.train, BLOCK)
    if penalty is not None:
        sampler = penalized(sampler, penalty)
    return bare_loop(sampler, SIZE, STEPS)


def bare():
    """The same blocks' gradients in a scan, and a move along their mean."""
    blocks = jax.tree.map(lambda x: x.reshape(-1, BLOCK, *x.shape[1:]), TASK.train)

    def mean(params, block):
        return jnp.mean(TASK.losses(params, block))

    @jax.jit
    def run(params, blocks):
        def step(_, params):
            def add(total, block):
                return jax.tree.map(jnp.add, total, jax.grad(mean)(params, block)), None

            zero = jax.tree.map(jnp.zeros_like, params)
            total, _ = jax.lax.scan(add, zero, blocks)
            return jax.tree.map(lambda p, g: p - 0.05 / 8 * g, params, total)

        return jax.lax.fori_loop(0, STEPS, step, params)

    params = TASK.init(jax.random.key(0))
    return clocked(lambda: jax.block_until_ready(run(params, blocks)))


def loops():
    """(with everything around it, the compiled loop alone), on minibatches of 256.

    A run compiles anew, and times itself without that.
    """
    sampler = minibatch(TASK.losses, TASK.train, group=64, at_once=4)

    def whole() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return optsde.fit(
                run_of(sampler, 256, LOOP_STEPS),
                KEYS,
                LOOP_STEPS,
                every=50,
                probes=[TASK.evaluation(times=100)],
                writers=[run.JsonLines(Path(folder) / "metrics.jsonl")],
                journal=Path(folder) / "checkpoints",
                checkpoint_every=500,
                progress=optsde.Progress("bench", io.StringIO()),
            ).seconds

    return whole, bare_loop(sampler, 256, LOOP_STEPS)


def main() -> None:
    whole, alone = loops()
    forward = Penalty(0.5, lambda time: 0.1)
    taken = interleaved(
        {"bare": bare(), "full": step_of(None), "penalty": step_of(forward)}
    )
    loop = interleaved({"whole": whole, "alone": alone}, rounds=5)
    report(
        "What do the full-batch step and the training loop add to bare gradients?",
        {
            "full-batch step ÷ bare gradients of the blocks": (
                taken["full"] / taken["bare"],
                1.05,
            ),
            "with the penalty by finite differences ÷ bare": (
                taken["penalty"] / taken["bare"],
                2.15,
            ),
            "loop with metrics, evaluation, checkpoints ÷ bare loop": (
                loop["whole"] / loop["alone"],
                1.08,
            ),
        },
    )


if __name__ == "__main__":
    main()
