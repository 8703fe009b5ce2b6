"""What each process of a test runs: python job.py FILE.npz [COORDINATOR PROCESS_ID].

Two processes of four devices, one of eight or one of one: the numbers are in the file.
"""

import sys
from functools import partial
from pathlib import Path

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

import optsde
from optsde import data, gradients, hosts, measure, models, run
from optsde.mesh import largest_axis

EXAMPLES = tuple(x[:96] for x in data.digits())
MODEL = models.MLP((6, 10))
LOSSES = models.supervised(MODEL, models.cross_entropy)
ADAM = optsde.Adam(lr=3e-3)
PLAN = optsde.Plan(optimizer=ADAM, batch_size=16, horizon=24)


def init(key):
    return models.init_params(MODEL, key, EXAMPLES[0])


def keys(count):
    return jax.random.split(jax.random.key(7), count)


def ensemble(folder):
    """Six seeds on eight devices: two places stay empty."""
    del folder
    sampler = gradients.minibatch(LOSSES, EXAMPLES)
    far = measure.probe(
        lambda start, state: {"moved": measure_distance(start, state.params)},
        init(jax.random.key(1)),
        times=[0, 7, 24],
    )
    return optsde.fit(
        optsde.discrete(PLAN, sampler, init), keys(6), 24, every=5, probes=[far]
    )


def measure_distance(start, params):
    pairs = zip(jax.tree.leaves(start), jax.tree.leaves(params), strict=True)
    return sum(jnp.sum((x - y) ** 2) for x, y in pairs)


def members(folder):
    """Learning rates stacked, and changed on the way."""
    del folder
    sampler = gradients.minibatch(LOSSES, EXAMPLES)
    rates = jnp.geomspace(1e-3, 1e-2, 5)

    def dynamics(lr):
        plan = optsde.Plan(optimizer=optsde.Adam(lr=lr), batch_size=16, horizon=24)
        return optsde.discrete(plan, sampler, init)

    changes = {10: rates / 2}
    each = keys(5)
    return optsde.fit(dynamics, each, 24, every=6, members=rates, changes=changes)


def shared(folder):
    """One replica, its full batch on all devices: groups of twelve, and a clip."""
    del folder
    plan = optsde.Plan(optimizer=ADAM, batch_size=96, horizon=12, clip=1.0)
    sampler = gradients.full_batch(LOSSES, EXAMPLES, group=12)
    shards = jax.device_count()
    made = optsde.discrete(plan, sampler, init)
    return optsde.fit(made, keys(1), 12, every=3, shards=shards)


def svag(folder):
    """SVAG of two replicas, which share four devices each."""
    del folder
    plan = optsde.svag(PLAN, 2)
    sampler = gradients.minibatch(LOSSES, EXAMPLES)
    shards = max(1, jax.device_count() // 2)
    made = optsde.discrete(plan, sampler, init)
    return optsde.fit(made, keys(2), 6, every=2, shards=shards)


def split(folder):
    """SVAG of one replica, whose parameters are split over all devices."""
    del folder
    sampler = gradients.minibatch(LOSSES, EXAMPLES, group=4)
    made = optsde.discrete(optsde.svag(PLAN, 2), sampler, init)
    rule, shards = partial(largest_axis, least=0), jax.device_count()
    fitted = optsde.fit(made, keys(1), 6, every=2, shards=shards, sharded=rule)
    params = hosts.gathered(fitted.state.params)
    return fitted._replace(state=fitted.state._replace(params=params))


def sde(folder):
    """The SDE of three replicas."""
    del folder
    law = gradients.from_data(LOSSES, EXAMPLES, PLAN.batch_size)
    made = optsde.sde(PLAN, law, init(jax.random.key(2)), substeps=2)
    times, seen = [0, 3, 6], jax.flatten_util.ravel_pytree
    return optsde.ensemble(made, keys(3), times, lambda s: seen(s.params)[0])


def stream(folder):
    """Batches that are read ahead, for two replicas of four devices each."""
    del folder
    read = data.Stream(data.Arrays(*map(np.asarray, EXAMPLES)))
    shards = max(1, jax.device_count() // 2)
    made = optsde.discrete(PLAN, gradients.epochs(LOSSES, read), init)
    engine = run.Engine(made, 2, shards=shards)
    replicas, _ = engine._feed._read  # of the examples of a step: a process has its own
    assert len(replicas) == 2 * 16 // jax.process_count()
    return optsde.fit(made, keys(2), 24, every=8, shards=shards)


def resumed(folder):
    """A run to the middle, and another that goes on from what it saved."""

    def to(horizon):
        made = optsde.discrete(PLAN, gradients.minibatch(LOSSES, EXAMPLES), init)
        return optsde.fit(made, keys(3), horizon, every=5, journal=folder / "resumed")

    to(12)
    return to(24)


def continued(folder):
    """A run that begins with the state of another."""
    del folder
    made = optsde.discrete(PLAN, gradients.minibatch(LOSSES, EXAMPLES), init)
    begun = optsde.fit(made, keys(3), 12, every=5)
    return optsde.fit(made, keys(3), 24, every=5, state=begun.state)


class Listener:
    """A writer that process 0 alone has."""

    def begin(self, step, rows):
        assert hosts.first()

    def write(self, row):
        assert hosts.first()

    def close(self):
        assert hosts.first()


def written(folder):
    """Rows for a writer, of a run that would go on without finite numbers."""
    del folder
    made = optsde.discrete(PLAN, gradients.minibatch(LOSSES, EXAMPLES), init)
    options = dict(every=5, writers=[Listener()], stop_at_divergence=False)
    return optsde.fit(made, keys(3), 24, **options)


JOBS = ensemble, members, shared, svag, split, sde, stream, resumed, continued, written


def main(file, coordinator=None, process_id=None):
    if coordinator:
        hosts.connect(coordinator, 2, int(process_id))
    found = {}
    for job in JOBS:
        result = job(Path(file).parent)
        metrics = getattr(result, "metrics", None) or {"seen": result}
        for name, series in metrics.items():
            found[f"{job.__name__}/{name}"] = np.asarray(series.values)
        for path, leaf in jax.tree_util.tree_leaves_with_path(result.state.params):
            name = jax.tree_util.keystr(path)
            found[f"{job.__name__}/params{name}"] = np.asarray(leaf)
    found["devices"] = np.array(jax.device_count())
    if hosts.first():
        np.savez(file, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
