"""Does a smaller batch give more catapults?

The critical rate of a batch fluctuates, so SGD at one rate is above it now and then, the
more often the smaller the batch (Zhu et al. 2023). Digits, from a random start, constant
rates in units of η_crit there; the loss of all training images is seen at each step.
Batches are drawn with replacement. A seed's runs share their images and their start.
"""

import itertools

import numpy as np
from ml_collections import ConfigDict

import optsde
from experiments.catapults import cyclic, full_batch, nets
from experiments.catapults.steps import watch
from experiments.launch import require
from experiments.rundir import RunDir
from optsde.analysis import Verdict, above, estimate, table
from optsde.analysis.plots import COLOURS, new_figure, plain_log_axis, save
from optsde.dynamics import Engine
from optsde.measure.catapults import find_spikes, phases


def check(config: ConfigDict) -> None:
    cyclic.check_digits(config)
    require(config.steps >= 21, config, "steps", "at least 21, to see a spike")
    sizes = (*config.batch_sizes, 0)
    falling = all(a > b for a, b in itertools.pairwise(sizes)) and len(sizes) > 2
    require(falling, config, "batch_sizes", "two or more falling integers ≥ 1")
    rising = all(a < b for a, b in itertools.pairwise((0.0, *config.ratios)))
    require(rising and config.ratios, config, "ratios", "positive, rising numbers")


def run(config: ConfigDict, rundir: RunDir) -> list[Verdict]:
    curves = rundir.once(lambda: simulate(config))
    found = summarised(curves)
    print("", cell_table(config, found), sep="\n")
    draw(config, curves, found, rundir)
    return judge(config, found)


def simulate(config: ConfigDict) -> dict[str, np.ndarray]:
    """[batches, seeds, ratios]: norm, ‖K‖ end/start; and [..., steps] two losses."""
    import jax
    import jax.numpy as jnp

    model = nets.two_layer(config.width, 10)
    members = full_batch.digits_members(config, model)
    seeds = config.seed + jnp.arange(config.seeds)
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(3), seed))(seeds)
    count = len(config.ratios)
    keys, members = full_batch.repeated((keys, members), count)
    critical = members.lr
    members = members._replace(
        lr=critical * jnp.tile(jnp.array(config.ratios), config.seeds)
    )
    shape = config.seeds, count, -1
    made = []
    for size in config.batch_sizes:
        series, ended = trained(config, model, members, keys, size)
        made.append(
            {
                "batch_loss": series.loss.reshape(shape),
                "loss": series.seen["loss"].reshape(shape),
                "norm": np.asarray(critical / ended).reshape(shape[:2]),
            }
        )
    return {name: np.stack([part[name] for part in made]) for name in made[0]}


def trained(config: ConfigDict, model, members: full_batch.Member, keys, size: int):
    """(all steps at that batch size, n/‖K‖ of each replica at the end)."""
    from optsde import gradients

    losses = nets.losses_of(model)

    def dynamics(member: full_batch.Member):
        plan = optsde.Plan(
            optimizer=optsde.SGD(lr=member.lr), batch_size=size, horizon=config.steps
        )

        def sampler(batch_size: int):
            return gradients.minibatch(losses, member.examples, batch_size)

        return optsde.discrete(plan, sampler, member.start)

    engine = Engine(dynamics, len(keys), members=members, with_info=True)
    examples = engine.spread(members.examples)
    measure = engine.each(lambda xy, state: {"loss": losses(state.params, xy).mean()})
    series = watch(
        engine,
        engine.init(keys),
        config.steps,
        lambda state, memory: (measure(examples, state), memory),
        progress=optsde.Progress(f"{len(keys)} runs at batch {size}"),
    )
    critical = engine.each(
        lambda xy, state: nets.critical_lr(nets.apply_of(model), state.params, xy[0])
    )
    return series, engine.kept(critical(examples, series.state))
