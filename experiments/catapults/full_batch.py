"""Full-batch descent on (1/n)Σ|f − y|², each replica with data and rates of its own."""

from functools import partial
from typing import Any, NamedTuple

import optsde
from experiments.catapults import nets
from optsde.dynamics import Engine

HELD_OUT = 1500  # the digits from here on are never trained on
WARM = 3  # power iterations a step, from the vector of the step before


class Member(NamedTuple):
    """One replica's; leaves [replicas, ...] where they are stacked.

    lr follows triangles from lr·low to lr·high·growth^c in cycle c.
    """

    lr: Any
    examples: Any  # inputs [n, d], targets [n, c]
    start: Any  # parameters
    low: Any = 1.0
    high: Any = 1.0
    growth: Any = 1.0


def engine_of(
    model, members: Member, steps: int, period: float = 1.0, family: Any = optsde.SGD
) -> Engine:
    """All replicas as one compiled loop. Without a cycle, leave low = high = 1."""
    import jax

    from optsde import gradients, schedules

    def dynamics(member: Member):
        plan = optsde.Plan(
            optimizer=family(lr=member.lr),
            batch_size=member.examples[0].shape[0],
            horizon=steps,
            schedule=schedules.exponential_cyclic(
                period, member.low, member.high, member.growth
            ),
        )
        oracle = gradients.full_batch(
            nets.losses_of(model), member.examples, group=None
        )
        return optsde.discrete(plan, lambda _: oracle, member.start)

    replicas = jax.tree.leaves(members)[0].shape[0]
    return Engine(dynamics, replicas, members=members, with_info=True)


def started(engine: Engine) -> Any:
    """Its states at the start, for runs without a draw: all that is random is held."""
    import jax

    return engine.init(jax.random.split(jax.random.key(0), engine.replicas))


def norms(engine: Engine, model, members: Member, iterations: int = 40):
    """(look for `watch` that says ‖K‖ as "norm", the memory that it begins with)."""
    from optsde.measure import ntk

    apply, inputs = nets.apply_of(model), engine.spread(members.examples[0])

    def of_one(count, inputs, params, vector):
        return ntk.norm(apply, params, inputs, vector, count)

    warm = engine.each(partial(of_one, WARM))
    first = engine.each(lambda inputs, params: of_one(iterations, inputs, params, None))
    _, memory = first(inputs, engine.spread(members.start))

    def look(state, vector):
        norm, vector = warm(inputs, state.params, vector)
        return {"norm": norm}, vector

    return look, memory


def digits_members(config, model) -> Member:
    """One for each seed: its own images and weights, lr at the critical one."""
    import jax
    import jax.numpy as jnp

    inputs, targets = map(jnp.asarray, nets.centred_digits())

    def make(seed):
        pick, draw = jax.random.split(jax.random.fold_in(jax.random.key(0), seed))
        chosen = jax.random.permutation(pick, HELD_OUT)[: config.train_size]
        examples = inputs[chosen], targets[chosen]
        start = nets.initial(draw, model, inputs)
        lr = nets.critical_lr(nets.apply_of(model), start, examples[0])
        one = jnp.ones(())
        return Member(lr, examples, start, one, one, one)

    return jax.jit(jax.vmap(make))(config.seed + jnp.arange(config.seeds))


def repeated(tree, times: int):
    """Seed by seed, `times` copies of each, one after the other."""
    import jax
    import jax.numpy as jnp

    return jax.tree.map(lambda x: jnp.repeat(x, times, axis=0), tree)
