"""Every row of the rule table, the refusals, and what explain says of them."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optsde
from optsde import EMA, SWA, Plan, scale, svag, switch
from optsde.plans.schedules import (
    cosine,
    exponential_warmup,
    milestones,
    warmup,
    warmup_cosine,
)

KAPPA = 4.0


def plan(optimizer, **options):
    return Plan(optimizer=optimizer, batch_size=64, horizon=1000, **options)


def factors(optimizer, kappa=KAPPA, **options):
    """Each hyperparameter after rescaling over before; 1 − β for decays."""
    new = optimizer.rescaled(kappa, **options)
    ratios = {}
    for field in dataclasses.fields(optimizer):
        a, b = getattr(optimizer, field.name), getattr(new, field.name)
        if field.name.startswith("b"):
            a, b = 1 - a, 1 - b
        if a and not isinstance(a, bool):
            ratios[field.name] = b / a
    return ratios


DECAYS = dict(l2=0.1, weight_decay=0.1, absolute_decay=0.1)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (
            optsde.SGD(lr=0.1, **DECAYS),
            dict(lr=4, l2=1, weight_decay=1, absolute_decay=4),
        ),
        (
            optsde.Momentum(lr=0.1, beta=0.9, **DECAYS),
            dict(lr=4, beta=4, l2=1, weight_decay=1, absolute_decay=4),
        ),
        (
            optsde.HeavyBall(lr=0.1, beta=0.9, **DECAYS),
            dict(lr=16, beta=4, l2=1, weight_decay=1 / 4, absolute_decay=4),
        ),
        (
            optsde.RMSprop(lr=0.1, eps=0.1, eps_root=0.1, v0=0.1, **DECAYS),
            dict(lr=2, beta=4, eps=1 / 2, eps_root=1 / 4, v0=1 / 4, l2=1)
            | dict(weight_decay=2, absolute_decay=4),
        ),
        (
            optsde.Adam(lr=0.1, eps=0.1, eps_root=0.1, **DECAYS),
            dict(lr=2, b1=4, b2=4, eps=1 / 2, eps_root=1 / 4, l2=1)
            | dict(weight_decay=2, absolute_decay=4),
        ),
        (
            optsde.AdaGrad(lr=0.1, eps=0.1, eps_root=0.1, s0=0.1, **DECAYS),
            dict(lr=1, eps=1 / 4, eps_root=1 / 16, s0=1 / 16, l2=1)
            | dict(weight_decay=4, absolute_decay=4),
        ),
        (
            optsde.SignSGD(lr=0.1, **DECAYS),
            dict(lr=2, l2=1, weight_decay=2, absolute_decay=4),
        ),
        (
            optsde.Signum(lr=0.1, beta=0.9, **DECAYS),
            dict(lr=4, beta=4, l2=1, weight_decay=1, absolute_decay=4),
        ),
    ],
    ids=lambda x: type(x).__name__,
)
def test_rule_table(optimizer, expected):
    assert factors(optimizer) == pytest.approx(expected)


def test_lion_rule():
    lion = optsde.Lion(lr=1e-4, b1=0.9, b2=0.99, weight_decay=0.1)
    new = lion.rescaled(KAPPA)
    assert new.b1 == pytest.approx(0.9 * 0.99**3)
    assert new.b2 == pytest.approx(0.99**4)

    def share(o):
        return (1 - o.b1) ** 2 + o.b1**2 * (1 - o.b2) / (1 + o.b2)

    r = (KAPPA * share(new) / share(lion)) ** 0.5
    assert new.lr == pytest.approx(1e-4 * r)
    assert new.weight_decay == pytest.approx(0.1 * KAPPA / r)


def test_power_form_of_memory():
    new = optsde.Adam(lr=0.1, b1=0.9, b2=0.99).rescaled(64, "power")
    assert (new.b1, new.b2) == pytest.approx((0.9**64, 0.99**64))


def test_scale_sets_batch_steps_clip_and_average():
    base = plan(optsde.Adam(), clip=1.0, average=EMA(0.99), schedule=cosine(1000))
    big = scale(base, KAPPA)
    assert (big.batch_size, big.steps, big.dt, big.noise_gain) == (256, 250, 4, 1)
    assert big.clip == pytest.approx(0.5)
    assert big.average.decay == pytest.approx(0.99**4)
    assert big.schedule is base.schedule
    assert scale(base, KAPPA, clip="signal").clip == 1.0
    assert scale(base, 3).steps == 334  # 333.3, rounded up


def test_swa_keeps_its_times():
    swa = SWA(start=10, every=5)
    assert scale(plan(optsde.SGD(), average=swa), KAPPA).average == swa


@pytest.mark.parametrize(
    ("optimizer", "gain"), [(optsde.Adam(), 16), (optsde.SGD(), 4), (optsde.Lion(), 16)]
)
def test_svag_is_the_rule_below_one(optimizer, gain):
    fine = svag(plan(optimizer, clip=1.0), 4)
    assert fine.optimizer == optimizer.rescaled(1 / gain)
    assert (fine.batch_size, fine.noise_gain) == (64, gain)
    assert fine.steps == 1000 * gain
    assert fine.clip == pytest.approx(gain**0.5)
    assert svag(plan(optimizer, clip=1.0), 4, clip="signal").clip == 1.0


def test_scaling_twice_is_scaling_once():
    base = plan(optsde.Adam(b1=0.99), clip=1.0, average=EMA(0.99))
    twice, once = scale(scale(base, 2), 4), scale(base, 8)
    assert twice.steps == once.steps
    for a, b in zip(jax.tree.leaves(twice), jax.tree.leaves(once), strict=True):
        assert a == pytest.approx(b, rel=1e-12)


@pytest.mark.parametrize(
    ("rule", "lr"), [("linear", 0.4), ("sqrt_lr_only", 0.2), ("fixed", 0.1)]
)
def test_controls_change_only_lr(rule, lr):
    base = plan(optsde.Adam(lr=0.1, weight_decay=0.1), clip=1.0, average=EMA(0.9))
    big = scale(base, KAPPA, rule)
    assert big.optimizer == dataclasses.replace(base.optimizer, lr=lr)
    assert (big.clip, big.average) == (base.clip, base.average)
    assert (big.batch_size, big.steps) == (256, 250)


@pytest.mark.parametrize("optimizer", [optsde.Adam(b1=0.9, b2=0.99), optsde.RMSprop()])
def test_signal_rule_is_the_rule_times_a_boost(optimizer):
    """lr·√κ·b(t); twice √κ is κ, and so is the product of the boosts."""
    base = plan(optimizer)
    big = scale(base, KAPPA, "signal", boost=lambda t: 1 + t)
    assert big.optimizer == scale(base, KAPPA).optimizer
    np.testing.assert_allclose(big.rate(0.5) / base.rate(0.5), 2 * 1.5, rtol=1e-6)
    twice = scale(base, 2, "signal", boost=lambda t: 1 + t)
    twice = scale(twice, 2, "signal", boost=lambda t: 2 + t)
    np.testing.assert_allclose(twice.rate(0.5) / base.rate(0.5), 2 * 1.5 * 2.5)
    assert "lr over time" in optsde.explain(base, big)
    assert "departure" not in optsde.explain(base, big)


@pytest.mark.parametrize(
    "optimizer", [optsde.SGD(), optsde.AdaGrad(), optsde.Lion(), optsde.InvariantAdam()]
)
def test_signal_rule_is_refused_to_those_without_an_average_of_squares(optimizer):
    with pytest.raises(ValueError, match="does not, and its own rule is that of rule="):
        scale(plan(optimizer), 2, "signal", boost=lambda t: 1.0)


@pytest.mark.usefixtures("x64")
def test_a_boost_lengthens_the_direction_and_no_decay():
    """One step of the run, and drift and noise of the SDE, at time 3 · 2."""
    decays = dict(weight_decay=0.3, absolute_decay=0.01)
    optimizer = optsde.Adam(lr=0.1, eps=1.0, **decays)
    x, g, boost = jnp.array([1.0, -2.0]), jnp.array([0.5, 0.2]), lambda t: 1 + t
    system = optimizer.sde(boost=boost, dt=2.0)
    state = system.init(x)
    u = -g / (jnp.sqrt(g) + 1)  # m = g and v = g, the limits of empty averages
    flow, _ = system.drift(3.0, x, state, g, g)
    shrunk = -(0.1 * 0.3 + 0.01) * x
    np.testing.assert_allclose(flow, 0.1 * 7 * u + shrunk, rtol=1e-12)
    kicked = optsde.RMSprop(lr=0.1).sde(boost=boost, dt=2.0)
    plain = optsde.RMSprop(lr=0.1).sde(dt=2.0)
    one, other = (s.noise(3.0, x, s.init(x), g, g, g, g)[0] for s in (kicked, plain))
    np.testing.assert_allclose(one, 7 * other, rtol=1e-12)
    transform = optimizer.transform(boost=lambda t: 7.0)
    change, _ = transform.update(g, transform.init(x), x)
    u = -g / (jnp.abs(g) + 1)
    np.testing.assert_allclose(change, 0.1 * 7 * u + shrunk, rtol=1e-12)


def test_refuses_a_negative_decay_and_says_what_to_do():
    base = plan(optsde.Adam(b1=0.9, b2=0.99))
    with pytest.raises(ValueError, match=r"b1=0\.9.*kappa ≤ 10,.*memory='power'"):
        scale(base, 16)
    assert scale(base, 16, memory="power").optimizer.b1 == pytest.approx(0.9**16)
    assert scale(plan(optsde.Adam(b1=0.9)), 10).optimizer.b1 == pytest.approx(0)


def test_refuses_stacked_decays_by_the_fastest():
    optimizer = optsde.RMSprop(beta=np.array([0.9, 0.5]))
    with pytest.raises(ValueError, match="kappa ≤ 2"):
        scale(plan(optimizer), 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: scale(p, 0), "positive"),
        (lambda p: scale(p, float("nan")), "positive"),
        (lambda p: scale(p, 1 / 128), "whole number"),
        (lambda p: scale(p, 1.001), "whole number"),
        (
            lambda p: scale(p, 2, "cubic"),
            "one of: sde, signal, linear, sqrt_lr_only, fixed",
        ),
        (
            lambda p: scale(p, 2, "signal"),
            "the signal rule, and no other, needs a boost",
        ),
        (lambda p: scale(p, 2, boost=cosine(9)), "the signal rule, and no other"),
        (lambda p: scale(p, 2, memory="short"), "one of: linear, power"),
        (lambda p: scale(p, 2, clip="none"), "one of: noise, signal"),
        (lambda p: svag(p, 2, clip="none"), "one of: noise, signal"),
        (lambda p: svag(p, 0.5), "ell=0.5: needs a number from 1"),
        (lambda p: svag(p, math.nan), "ell=nan: needs a number from 1"),
        (lambda p: svag(p, 1e200), "ell=1e\\+200: needs"),
        (lambda p: scale(p, 1e30), "whole number from 1 to 2147483647"),
        (lambda p: svag(plan(optsde.Lion(b1=0.99, b2=0.9)), 2), "needs b1 ≤ b2"),
        (lambda p: warmup_cosine(100, 100), "warmup=100 must lie in"),
        (lambda p: optsde.Lion().rescaled(2, "short"), "one of: linear, power"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(plan(optsde.Adam()))


def test_switch_rescales_the_state_and_keeps_the_clock():
    old = plan(optsde.Adam(lr=0.1), clip=1.0, schedule=cosine(1000))
    new = scale(old, KAPPA)
    params = jnp.array([1.0, -2.0])
    state = old.transform().init(params)
    for _ in range(5):
        _, state = old.transform().update(jnp.array([0.3, 0.1]), state, params)
    after = switch(state, old, new)
    np.testing.assert_allclose(after.direction.v, state.direction.v / KAPPA)
    np.testing.assert_array_equal(after.direction.m, state.direction.m)
    assert float(after.clock.time) == 5.0
    assert float(after.clock.tick().time) == 9.0


def test_switch_of_sums():
    grad = SGRAD = jnp.array([1.0, 2.0])
    for optimizer, name, power in [
        (optsde.AdaGrad(lr=0.1), "s", -2),
        (optsde.HeavyBall(lr=0.1, beta=0.9), "m", -1),
        (optsde.Momentum(lr=0.1, beta=0.9), "m", 0),
    ]:
        old = plan(optimizer)
        _, state = old.transform().update(grad, old.transform().init(SGRAD), SGRAD)
        after = switch(state, old, scale(old, KAPPA))
        np.testing.assert_allclose(
            getattr(after.direction, name),
            getattr(state.direction, name) * KAPPA**power,
            rtol=1e-6,
        )


@pytest.mark.parametrize(
    "optimizer",
    [
        optsde.Adam(b2=0.95),
        optsde.RMSprop(beta=0.95),
        optsde.AdaGrad(s0=0.0),
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
@pytest.mark.parametrize("tree", [True, False])
def test_a_switch_keeps_the_share_of_the_signal(optimizer, tree):
    """v after gradients of the mean square N + G, switched, is that of N/κ + G."""
    old = plan(optimizer)
    new = scale(old, KAPPA, memory="power")
    noise, signal = np.float32([[1.0, 2.0], [3.0, 0.5]])
    if not tree:
        signal = 3 * noise

    def after(plan, steps, second):
        params = {"w": jnp.zeros(2)}
        transform = plan.transform()
        state = transform.init(params)
        for _ in range(steps):
            _, state = transform.update({"w": jnp.sqrt(second)}, state, params)
        return state

    share = {"w": signal / (noise + signal)} if tree else 0.75
    at_switch = after(old, 8, noise + signal)
    found = switch(at_switch, old, new, signal=share).direction
    expected = after(new, 2, noise / KAPPA + signal).direction
    for name in optimizer.state_rule:
        ours, theirs = getattr(found, name)["w"], getattr(expected, name)["w"]
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_a_switch_refuses_shares_that_are_none():
    old = plan(optsde.Adam())
    state = old.transform().init(jnp.ones(2))
    with pytest.raises(ValueError, match=r"signal=1\.5: needs a share of v"):
        switch(state, old, scale(old, 2), signal=1.5)
    old = plan(optsde.SGD())
    state = old.transform().init(jnp.ones(2))
    with pytest.raises(ValueError, match="SGD has no such v"):
        switch(state, old, scale(old, 2), signal=0.5)


def test_a_heavy_ball_goes_on_smoothly():
    """After a switch the step per unit of time is what it was: lr·v/dt."""
    old = plan(optsde.HeavyBall(lr=0.1, beta=0.9))
    new = scale(old, KAPPA)
    velocity = jnp.array([3.0])
    state = old.transform().init(velocity)
    state = state._replace(direction=state.direction._replace(m=velocity))
    after = switch(state, old, new)
    np.testing.assert_allclose(
        new.optimizer.lr * after.direction.m / new.dt,
        old.optimizer.lr * velocity / old.dt,
        rtol=1e-6,
    )


def test_explain_names_powers_and_departures():
    base = plan(optsde.Adam(lr=1e-3, weight_decay=0.1), clip=1.0)
    text = optsde.explain(base, scale(base, KAPPA))
    assert "departure" not in text
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "√κ" in lines["lr"]
    assert "κ^-0.5" in lines["eps"]
    assert "√κ" in lines["weight_decay"]
    assert "κ^-0.5" in lines["clip"]
    text = optsde.explain(base, scale(base, KAPPA, "sqrt_lr_only"))
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "departure" not in lines["lr"]
    assert "the rule sets 0.4" in lines["1 − b1"]
    assert "the rule sets 5e-09" in lines["eps"]


def test_explain_of_svag_and_of_powers_has_no_departures():
    base = plan(optsde.Adam())
    assert "departure" not in optsde.explain(base, svag(base, 4))
    assert "departure" not in optsde.explain(base, scale(base, 64, memory="power"))


def test_explain_names_what_no_rule_changes():
    base = plan(optsde.Momentum(), clip=1.0)
    other = dataclasses.replace(
        scale(base, KAPPA),
        horizon=500,
        clip=None,
        optimizer=optsde.Momentum(nesterov=True).rescaled(KAPPA),
    )
    text = optsde.explain(base, other)
    for name in ("horizon", "clip", "nesterov"):
        assert any(
            line.startswith(name) and "no rule adds, removes or replaces this" in line
            for line in text.splitlines()
        ), name


def test_explain_refuses_two_optimizers():
    stacked = plan(optsde.SGD(lr=np.array([0.1, 0.2])))
    with pytest.raises(ValueError, match="single plans"):
        optsde.explain(stacked, scale(stacked, 2))
    with pytest.raises(ValueError, match="SGD and Adam"):
        optsde.explain(plan(optsde.SGD()), plan(optsde.Adam()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(batch_size=0), "batch_size=0: needs a whole number from 1"),
        (dict(batch_size=1.5), "batch_size=1.5: needs a whole number from 1"),
        (dict(batch_size=math.inf), "batch_size=inf: needs a whole number"),
        (dict(horizon=-1), "horizon=-1: needs a positive time"),
        (dict(horizon=math.inf), "horizon=inf: needs a positive time"),
        (dict(horizon=1e10), r"is 1e\+10 steps: the clock counts to 2147483647"),
        (dict(noise_gain=math.nan), "noise_gain=nan: needs a positive number"),
        (dict(average=SWA(start=0.0, every=0.0)), "every=0.0: needs a positive time"),
        (dict(average=SWA(start=math.nan, every=1.0)), "start=nan: needs a time"),
        (
            dict(average=SWA(start=1e9, every=1.0)),
            r"start=1000000000.0: needs a time up to the horizon",
        ),
        (dict(clip=-1.0), "clip=-1.0: needs a positive norm"),
        (dict(average=EMA(1.5)), "decay=1.5: needs 0 ≤ decay < 1"),
        (dict(optimizer=optsde.SGD(lr=-1.0)), "lr=-1.0: needs a positive number"),
        (
            dict(optimizer=optsde.RMSprop(bias_correction=False, lagged=True)),
            "set v0 > 0",
        ),
        (dict(optimizer=optsde.RMSprop(v0=1.0)), "set v0=0 or bias_correction=False"),
    ],
)
def test_plans_are_checked(changes, message):
    base = plan(optsde.Adam())
    assert base.checked() is base
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(base, **changes).checked()


def test_switch_refuses_other_states():
    old = plan(optsde.Adam())
    state = old.transform().init(jnp.ones(2))
    with pytest.raises(ValueError, match=r"state\.optimizer"):
        switch((1, 2, state), old, scale(old, 2))
    with pytest.raises(ValueError, match="two plans of one optimizer"):
        switch(state, old, plan(optsde.SGD()))


def test_explain_of_nothing_is_empty():
    base = plan(optsde.Adam())
    assert len(optsde.explain(base, base).splitlines()) == 3


@pytest.mark.parametrize(
    ("schedule", "times", "values"),
    [
        (cosine(100, end=0.2), (0, 50, 100, 200), (1, 0.6, 0.2, 0.2)),
        (warmup(10), (0, 5, 10, 99), (0, 0.5, 1, 1)),
        (warmup(10, cosine(20)), (10, 20, 30), (1, 0.5, 0)),
        (warmup_cosine(0, 20), (0, 10, 20), (1, 0.5, 0)),
        (warmup_cosine(10, 30), (0, 5, 10, 20, 30), (0, 0.5, 1, 0.5, 0)),
        (exponential_warmup(10, 1e-2), (0, 5, 10, 20), (1e-2, 1e-1, 1, 1)),
        (milestones((10, 20)), (9, 10, 20), (1, 0.1, 0.01)),
    ],
)
def test_schedules(schedule, times, values):
    found = [float(schedule(jnp.float32(t))) for t in times]
    assert found == pytest.approx(values, abs=1e-6)
