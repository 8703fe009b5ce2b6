"""A run that goes on in stretches is the run in one go, until its members change."""

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from optsde.gradients import FunctionOracle
from optsde.measure.probe import Probe
from optsde.run import Run


def descent(lrs, probes=()):
    oracle = FunctionOracle(lambda source, x, draw: (x**2 / 2, x))

    def dynamics(lr):
        plan = optsde.Plan(optimizer=optsde.SGD(lr=lr), batch_size=1, horizon=9)
        return optsde.discrete(plan, lambda batch_size: oracle, 1.0)

    keys = jax.random.split(jax.random.key(0), len(lrs))
    return Run(dynamics, keys, every=1.0, members=lrs, probes=probes)


def counting(times):
    """A probe of how often it has measured."""

    def observe(source, state, count):
        return {"count": count, "x": state.params}, count + 1

    return Probe(observe, lambda state: jnp.int32(1), times=times)


def test_stretches_are_the_run_in_one_go():
    """Also from `to(0)` on, which measures the start once and for all."""
    lrs = jnp.array([0.1, 0.5])
    whole = descent(lrs, [counting((0, 3, 6))]).to(6)
    run = descent(lrs, [counting((0, 3, 6))])
    parts = [run.to(time) for time in (0, 3, 4, 6)]
    for name in ("loss", "count", "x"):
        found = [p.metrics[name].values for p in parts if name in p.metrics]
        np.testing.assert_array_equal(
            np.concatenate(found, axis=1), whole.metrics[name].values
        )
    np.testing.assert_array_equal(whole.metrics["count"].values[0], [1, 2, 3])
    assert [part.steps for part in parts] == [0, 3, 1, 2]
    np.testing.assert_array_equal(parts[-1].state.params, whole.state.params)


def test_members_change_between_stretches_and_nothing_is_compiled_again(caplog):
    run = descent(jnp.array([0.5, 0.5]))
    other = jnp.array([0.0, 1.0])
    run.to(2)
    with jax.log_compiles():
        run.set_members(other)
        ended = run.to(3).state.params
    assert not caplog.records
    np.testing.assert_allclose(ended, [0.25, 0.0])
