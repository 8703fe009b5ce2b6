"""Optimizers by group: each part as it is by itself, and as optax has them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optsde
from optsde import Groups, measure
from optsde.gradients import FunctionOracle

PARAMS = {"body": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "head": jnp.array([2.0, 1.0])}
ADAM = optsde.Adam(lr=1e-2, b1=0.8, b2=0.9, weight_decay=0.1)
SGD = optsde.HeavyBall(lr=0.1, beta=0.5, l2=0.01)


def labels(params):
    return jax.tree.map(lambda x: "matrix" if x.ndim > 1 else "rest", params)


def mixed():
    return Groups({"matrix": ADAM, "rest": SGD}, labels)


def plan(optimizer, **options):
    return optsde.Plan(optimizer=optimizer, batch_size=4, horizon=16, **options)


def gradient(params, step):
    """A gradient that depends on the point and on the step."""
    return jax.tree.map(lambda x: jnp.sin(x + step), params)


def run(transform, params, steps=6):
    state = transform.init(params)
    for step in range(steps):
        updates, state = transform.update(gradient(params, step), state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("change", [lambda p: p, lambda p: optsde.scale(p, 2)])
def test_each_part_moves_as_it_does_alone(change):
    """With a schedule, and rescaled: κ is one, and each rule its own."""
    schedule = optsde.schedules.warmup_cosine(2, 16)
    whole = run(change(plan(mixed(), schedule=schedule)).transform(), PARAMS)
    for name, part in (("body", ADAM), ("head", SGD)):
        alone = change(plan(part, schedule=schedule)).transform()
        expected = run(alone, {name: PARAMS[name]})
        np.testing.assert_allclose(whole[name], expected[name], rtol=1e-6)


def test_it_is_optax_partition():
    chains = {
        "matrix": optax.adamw(1e-2, 0.8, 0.9, weight_decay=0.1),
        "rest": optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.1, 0.5)),
    }
    expected = run(optax.partition(chains, labels), PARAMS)
    found = run(mixed().transform(), PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6), found, expected)


def test_decay_on_matrices_alone_is_optax_mask():
    def matrices(params):
        return jax.tree.map(lambda x: x.ndim > 1, params)

    expected = run(optax.adamw(1e-2, 0.8, 0.9, weight_decay=0.1, mask=matrices), PARAMS)
    groups = optsde.decay_where(matrices, ADAM)
    found = run(groups.transform(), PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6), found, expected)
    big = optsde.scale(plan(groups), 4, memory="power").optimizer.by_group()
    assert big["decayed"].weight_decay == pytest.approx(0.2)
    assert big["rest"].weight_decay == 0


@pytest.mark.parametrize("keep_signal", [False, True])
def test_its_sde_is_that_of_each_part(keep_signal):
    """Drift and noise of the system at a made point, part by part."""
    mean, kick, spare = (
        jax.tree.map(lambda x, c=c: jnp.cos(c * x), PARAMS) for c in (1, 2, 3)
    )
    variance = jax.tree.map(lambda x: 1 + x**2, PARAMS)
    whole = mixed().sde(dt=0.5, keep_signal=keep_signal)
    state = whole.init(PARAMS)
    for name, label, part in (("body", "matrix", ADAM), ("head", "rest", SGD)):
        alone = part.sde(dt=0.5, keep_signal=keep_signal)
        own = alone.init(PARAMS[name])
        for kind, more in (("drift", ()), ("noise", (kick, spare))):
            trees = (mean, variance, *more)
            flow, memory = getattr(whole, kind)(1.0, PARAMS, state, *trees)
            mine = [tree[name] for tree in trees]
            expected = getattr(alone, kind)(1.0, PARAMS[name], own, *mine)
            np.testing.assert_allclose(flow[name], expected[0], rtol=1e-6)
            pairs = zip(
                jax.tree.leaves(memory[label]),
                jax.tree.leaves(expected[1]),
                strict=True,
            )
            for found, leaf in pairs:
                np.testing.assert_allclose(found, leaf, rtol=1e-6)


def test_a_switch_rescales_each_memory():
    base, big = plan(mixed()), optsde.scale(plan(mixed()), 2)
    transform = base.transform()
    state = transform.init(PARAMS)
    for step in range(3):
        _, state = transform.update(gradient(PARAMS, step), state, PARAMS)
    shares = {"body": 0.25, "head": 0.5}
    moved = optsde.switch(state, base, big, signal=shares).direction
    v, old = (x["matrix"].v["body"] for x in (moved, state.direction))
    np.testing.assert_allclose(v, old / 2 * 1.25, rtol=1e-6)
    m, old = (x["rest"].m["head"] for x in (moved, state.direction))
    np.testing.assert_allclose(m, old / 2, rtol=1e-6)  # 1 − β went from .5 to 1


def test_groups_run_as_an_ensemble_and_as_svag():
    def oracle(_, params, draw):
        noise = jax.random.normal(draw.fresh(), (6,))
        noises = {"body": noise[:4].reshape(2, 2), "head": noise[4:]}
        return 0.0, jax.tree.map(jnp.add, params, noises)

    base = plan(mixed())
    keys = jax.random.split(jax.random.key(0), 3)
    assert base.optimizer.noise_exponent == 2
    for one in (base, optsde.svag(base, 2), optsde.scale(base, 2, "linear")):
        dynamics = optsde.discrete(one, lambda batch: FunctionOracle(oracle), PARAMS)
        out = optsde.ensemble(dynamics, keys, [16], lambda s: s.params)
        assert np.isfinite(out.values["body"]).all()


def test_what_differs_between_groups_is_explained_by_group():
    groups = optsde.decay_where(lambda p: jax.tree.map(lambda x: x.ndim > 1, p), ADAM)
    text = optsde.explain(plan(groups), optsde.scale(plan(groups), 2))
    assert text.count("lr ") == 1
    assert "weight_decay (decayed)" in text
    assert "weight_decay (rest)" not in text
    text = optsde.explain(plan(mixed()), optsde.scale(plan(mixed()), 2))
    assert [f"lr ({name})" in text for name in ("matrix", "rest")] == [True, True]
    with pytest.raises(ValueError, match="matrix Adam, rest HeavyBall and Adam"):
        optsde.explain(plan(mixed()), plan(ADAM))


def test_groups_of_one_kind_are_measured_as_one():
    """The head at ten times the lr counts ten times in the loss and in the descent."""

    def oracle(_, params, draw):
        noise = jax.random.normal(draw.fresh(), (6,))
        noises = {"body": noise[:4].reshape(2, 2), "head": noise[4:]}
        return 0.0, jax.tree.map(lambda n: 1.0 + n, noises)

    fast = optsde.Adam(lr=1e-1, b1=0.8, b2=0.9)
    slow = optsde.Adam(lr=1e-2, b1=0.8, b2=0.9, weight_decay=0.1)
    groups = Groups({"matrix": slow, "rest": fast}, labels)

    def measured(optimizer):
        base = plan(optimizer)
        sampler = lambda batch: FunctionOracle(oracle)  # noqa: E731
        probe = measure.noise_probe(base, sampler, 64, times=[0.0])
        run = optsde.discrete(base, sampler, PARAMS)
        key = jax.random.key(0)[None]
        return optsde.fit(run, key, 0, probes=[probe]).metrics["noise"].values

    one, grouped = measured(slow), measured(groups)
    for name, factor in (("body", 1), ("head", 10)):
        for read in (
            lambda n, k=name: n.weighted.squares[k],
            lambda n, k=name: n.descent.base[k],
            lambda n, k=name: n.descent.slowed[k],
        ):
            np.testing.assert_allclose(read(grouped), factor * read(one), rtol=1e-5)
    prediction = measure.predict(plan(groups), grouped)
    assert prediction.rule == "square-root"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Groups({}, labels), "needs an optimizer for each group"),
        (lambda: Groups({"all": ADAM}, {"body": "all"}), "needs a function of the par"),
        (lambda: Groups({"a": optax.sgd(0.1)}, labels), r"parts\['a'\] is a Gradient"),
        (lambda: Groups({"a": optsde.SGD(lr=-1.0)}, labels), "group 'a': lr=-1"),
    ],
)
def test_groups_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        plan(make()).checked()


def test_the_first_group_is_the_same_after_a_pytree_is_taken_apart():
    groups = Groups({"slow": optsde.SGD(lr=0.1), "fast": optsde.SGD(lr=1.0)}, labels)
    again = jax.tree.map(lambda x: x, groups)
    assert groups.lr == again.lr == 1.0


def test_the_signal_rule_passes_over_what_is_frozen():
    groups = Groups({"matrix": ADAM, "rest": optsde.Frozen()}, labels)
    big = optsde.scale(plan(groups), 4, "signal", memory="power", boost=lambda t: 2.0)
    assert big.optimizer.parts["matrix"].lr == pytest.approx(2 * ADAM.lr)
    with pytest.raises(ValueError, match="such as Adam; HeavyBall does not"):
        optsde.scale(plan(mixed()), 2, "signal", boost=lambda t: 1.0)


def test_a_decay_of_zero_is_none_whatever_its_type():
    """As plans have it that were taken apart as pytrees."""
    groups = optsde.decay_where(lambda p: p, ADAM)
    plain = Groups({"all": dataclasses.replace(ADAM, weight_decay=0.0)}, labels)
    for asked, expected in ((groups, True), (plain, False)):
        assert asked.decays_weights() is expected
        assert jax.tree.map(jnp.asarray, asked).decays_weights() is expected


def test_labels_without_an_optimizer_are_named():
    groups = Groups({"matrix": ADAM}, labels)
    with pytest.raises(ValueError, match="labels name 'rest'; the groups are 'matrix'"):
        plan(groups).transform().init(PARAMS)


def test_what_is_for_one_optimizer_alone_refuses_groups():
    with pytest.raises(ValueError, match="differ in more than lr and decay"):
        mixed().response()
    with pytest.raises(ValueError, match="for one optimizer of all parameters"):
        mixed().single()
    assert mixed().stability_threshold() is None
