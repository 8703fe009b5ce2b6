"""What a run refuses: states, times and names that would mean something else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optsde
from optsde import measure
from optsde.gradients import FunctionOracle
from optsde.run import Run

ORACLE = FunctionOracle(lambda source, x, draw: (x**2 / 2, x))
PLAN = optsde.Plan(optimizer=optsde.SGD(lr=0.1), batch_size=4, horizon=8)
COARSE = optsde.scale(PLAN, 2)


def run(replicas=2, plan=PLAN, lrs=None, **options):
    def dynamics(lr):
        return optsde.discrete(plan, lambda batch_size: ORACLE, 1.0)

    given = dynamics(0.1) if lrs is None else dynamics
    keys = jax.random.split(jax.random.key(0), replicas)
    return Run(given, keys, members=lrs, every=2.0, **options)


def state(replicas=2, plan=PLAN, until=4):
    return run(replicas, plan).to(until).state


def apart(state):
    clock = state.optimizer.clock
    late = clock._replace(count=clock.count + jnp.arange(2))
    return state._replace(optimizer=state.optimizer._replace(clock=late))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: state(plan=COARSE), "steps of 2 base steps.*steps of 1.*switch"),
        (lambda: state(replicas=3), "3 replicas, and there are 2 keys"),
        (lambda: apart(state()), r"at different times: \[4. 5.\]"),
    ],
    ids=["another dt", "another count", "mixed times"],
)
def test_a_state_of_another_run(make, says):
    other = make()
    with pytest.raises(ValueError, match=says):
        run(state=other)


def test_a_state_goes_on_with_its_own_keys():
    """So that those given may be equal; without a state these are the same run."""
    dynamics = optsde.discrete(PLAN, lambda batch_size: ORACLE, 1.0)
    same = jax.random.split(jax.random.key(0), 1)[jnp.zeros(2, int)]
    with pytest.raises(ValueError, match="one key twice, for replicas 0 and 1"):
        optsde.fit(dynamics, same, 8)
    assert optsde.fit(dynamics, same, 8, state=state()).steps == 4
    found = optsde.ensemble(dynamics, same, [8.0], lambda s: s.time, state=state())
    assert found.values.tolist() == [[8.0], [8.0]]


def test_members_may_be_keys():
    def dynamics(key):
        start = jax.random.normal(key, ())
        return optsde.discrete(PLAN, lambda batch_size: ORACLE, start)

    keys = jax.random.split(jax.random.key(0), 2)
    same = keys[jnp.zeros(2, int)]
    ends = optsde.fit(dynamics, same, 8, members=keys).state.params
    assert ends[0] != ends[1]
    with pytest.raises(ValueError, match="one key twice"):
        optsde.fit(dynamics, same, 8, members=same)


def test_a_state_that_is_switched_goes_on():
    old = state()
    switched = jax.vmap(lambda memory: optsde.switch(memory, PLAN, COARSE))
    new = old._replace(optimizer=switched(old.optimizer))
    assert run(plan=COARSE, state=new).to(8).steps == 2


def test_times_that_are_over():
    begun = run()
    begun.to(4)
    with pytest.raises(ValueError, match="horizon 2 lies before the time reached, 4"):
        begun.to(2)
    lrs = jnp.array([0.1, 0.2])
    with pytest.raises(ValueError, match="a change at time 4 comes after the run's"):
        run(lrs=lrs).to(4, changes={4.0: lrs})


def test_a_name_that_is_another_metric_s():
    def probe(name):
        return measure.probe(lambda _, state: {name: state.params}, times=2.0)

    for probes in ([probe("loss")], [probe("x"), probe("x")]):
        name = "loss" if len(probes) == 1 else "x"
        with pytest.raises(ValueError, match=f"gives '{name}', which is another"):
            run(probes=probes).to(4)


def test_a_journal_of_another_beginning(tmp_path):
    run(state=state(), journal=tmp_path).to(6)
    with pytest.raises(ValueError, match="another run: beginning, initial state diff"):
        run(journal=tmp_path).to(6)


def test_a_result_keeps_its_state():
    """Steps give their state away, and what a result has is a copy."""
    going = run()
    first = going.to(2).state
    before = np.array(first.params)
    going.to(8)
    np.testing.assert_array_equal(first.params, before)
