"""What do an SVAG step and an SDE step cost, in gradients?

SVAG against two bare minibatch gradients, the Euler–Maruyama step of Adam's SDE (noise
and diagonal of Σ from the data) against one bare full-batch gradient. Digits, 64-64-10
MLP, Adam, 16 replicas on one device; each contender is a compiled loop of many steps.
"""

import jax
import jax.numpy as jnp

import optsde
from benchmarks import problem
from benchmarks.question import Answer, Picture, Row, asked
from benchmarks.timing import clocked, race
from optsde import models
from optsde.gradients import Draw, by_layers, from_data, full_batch

REPLICAS, SMALL_STEPS, LARGE_STEPS = 16, 2000, 20
ELLS = (1, 2, 4, 8, 16)
TINY = dict(REPLICAS=2, SMALL_STEPS=2, LARGE_STEPS=1, ELLS=(1, 4, 16))


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

    params = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (REPLICAS, *x.shape)), problem.PARAMS
    )
    return step, (problem.keys(REPLICAS), jnp.zeros(REPLICAS, jnp.int32), params)


def dynamics_loop(dynamics, count: int):
    step = lambda state: dynamics.step(state, dynamics.source)[0]  # noqa: E731
    return loop(step, jax.vmap(dynamics.init)(problem.keys(REPLICAS)), count)


def small(seconds: float):
    """The steps of minibatches."""
    plan = problem.plan(1000)

    def run_of(plan):
        dynamics = optsde.discrete(plan, problem.SAMPLER, problem.PARAMS)
        return dynamics_loop(dynamics, SMALL_STEPS)

    minibatch = problem.SAMPLER(problem.BATCH)
    contenders = {f"ell {ell}": run_of(optsde.svag(plan, ell)) for ell in ELLS}
    contenders |= {
        "adam": run_of(plan),
        "two": loop(*bare(minibatch, 2), SMALL_STEPS),
    }
    return race(contenders, [("ell 4", "two"), ("ell 16", "ell 1")], seconds)


def large(seconds: float):
    """The steps that read all examples."""
    plan = problem.plan(1000)
    sums = by_layers(problem.MODEL, models.cross_entropy, problem.EXAMPLES)
    law = from_data(problem.LOSSES, problem.EXAMPLES, problem.BATCH, sums)
    by_blocks = from_data(problem.LOSSES, problem.EXAMPLES, problem.BATCH)
    full = full_batch(problem.LOSSES, problem.EXAMPLES)()

    def run_of(law):
        return dynamics_loop(optsde.sde(plan, law, problem.PARAMS), LARGE_STEPS)

    contenders = {
        "sde": run_of(law),
        "blocks": run_of(by_blocks),
        "full": loop(*bare(full, 1), LARGE_STEPS),
    }
    return race(contenders, [("sde", "full"), ("blocks", "full")], seconds)


def ask(seconds: float) -> Answer:
    first, second = small(seconds / 2), large(seconds / 2)
    two, full = "two minibatch gradients", "one full-batch gradient"
    rows = [
        Row(f"SVAG step of Adam ÷ {two}", first.ratio("ell 4", "two"), aim=1.15),
        Row(f"plain step of Adam ÷ {two}", first.ratio("adam", "two")),
        Row("SVAG step, ℓ = 16 ÷ ℓ = 1", first.ratio("ell 16", "ell 1"), aim=1.1),
        Row(f"SDE step, Σ by layers ÷ {full}", second.ratio("sde", "full"), aim=1.5),
        Row(f"SDE step, Σ by blocks ÷ {full}", second.ratio("blocks", "full")),
    ]
    scale = 1e6 / (REPLICAS * SMALL_STEPS)
    each = [first.seconds(f"ell {ell}", scale) for ell in ELLS]
    picture = Picture("ℓ", "µs per step of a replica", ELLS, {"SVAG(ℓ), Adam": each})
    return Answer(rows, [f"{first.rounds} and {second.rounds} rounds"], picture)


if __name__ == "__main__":
    asked(ask)
