"""What do an SVAG step and an SDE step cost, in gradients?

SVAG against two bare minibatch gradients, the Euler–Maruyama step of Adam's SDE (noise
and diagonal of Σ from the data) against one bare full-batch gradient. Digits, 64-64-10
MLP, Adam, 16 replicas on one device; each contender is a compiled loop of many steps.

    make bench
"""

import jax
import jax.numpy as jnp

import optsde
from benchmarks import problem
from benchmarks.timing import clocked, interleaved, report
from optsde import models
from optsde.gradients import Draw, by_layers, from_data, full_batch

REPLICAS = 16


def loop(step, carry, count: int):
    """A call of `count` steps, vmapped over replicas."""
    many = jax.vmap(step)

    def run(carry):
        return jax.lax.fori_loop(0, count, lambda _, c: many(c), carry)

    compiled = jax.jit(run).lower(carry).compile()
    return clocked(lambda: jax.block_until_ready(compiled(carry)))


def bare(oracle, draws: int):
    """Nothing but the sum of `draws` gradients, at a point that this sum moves."""

    def step(carry):
        key, k, params = carry
        grads = [oracle(params, Draw(key, draws * k + i))[1] for i in range(draws)]
        params = jax.tree.map(lambda p, *g: p - 1e-3 * sum(g), params, *grads)
        return key, k + 1, params

    keys = jax.random.split(jax.random.key(0), REPLICAS)
    params = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (REPLICAS, *x.shape)), problem.PARAMS
    )
    return step, (keys, jnp.zeros(REPLICAS, jnp.int32), params)


def dynamics_loop(dynamics, count: int):
    keys = jax.random.split(jax.random.key(0), REPLICAS)
    step = lambda state: dynamics.step(state, dynamics.source)[0]  # noqa: E731
    return loop(step, jax.vmap(dynamics.init)(keys), count)


def main() -> None:
    plan = problem.plan(1000)
    svag = optsde.discrete(optsde.svag(plan, 4), problem.SAMPLER, problem.PARAMS)
    adam = optsde.discrete(plan, problem.SAMPLER, problem.PARAMS)
    sums = by_layers(problem.MODEL, models.cross_entropy, problem.EXAMPLES)
    law = from_data(problem.LOSSES, problem.EXAMPLES, problem.BATCH, sums)
    by_blocks = from_data(problem.LOSSES, problem.EXAMPLES, problem.BATCH)
    full = full_batch(problem.LOSSES, problem.EXAMPLES)()
    minibatch = problem.SAMPLER(problem.BATCH)
    small = interleaved(
        {
            "svag": dynamics_loop(svag, 2000),
            "adam": dynamics_loop(adam, 2000),
            "two": loop(*bare(minibatch, 2), 2000),
        }
    )
    large = interleaved(
        {
            "sde": dynamics_loop(optsde.sde(plan, law, problem.PARAMS), 20),
            "blocks": dynamics_loop(optsde.sde(plan, by_blocks, problem.PARAMS), 20),
            "full": loop(*bare(full, 1), 20),
        }
    )
    report(
        "What do an SVAG step and an SDE step cost, in gradients?",
        {
            "SVAG step of Adam ÷ two minibatch gradients": (
                small["svag"] / small["two"],
                1.15,
            ),
            "plain step of Adam ÷ two minibatch gradients": (
                small["adam"] / small["two"],
                None,
            ),
            "SDE step, Σ by layers ÷ one full-batch gradient": (
                large["sde"] / large["full"],
                3.0,
            ),
            "SDE step, Σ by blocks ÷ one full-batch gradient": (
                large["blocks"] / large["full"],
                None,
            ),
        },
    )


if __name__ == "__main__":
    main()
