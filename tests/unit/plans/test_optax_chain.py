"""Optax chains as plans: the same updates, rescaled; what has no rule is named."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import optsde

PARAMS = {
    "body": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)},
    "head": {"kernel": jnp.ones((2, 3))},
}
SIZES = dict(batch_size=256, horizon=100)
PEAK = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100)


def matrices(params):
    return jax.tree.map(lambda x: x.ndim > 1, params)


def top(params):
    return {
        name: jax.tree.map(lambda _, n=name: n, part) for name, part in params.items()
    }


def run(transform, steps=5, state=None):
    """Returns updates after some steps, and the state."""
    params = PARAMS
    state = transform.init(params) if state is None else state
    for step in range(steps):
        grads = jax.tree.map(lambda x, s=step: jnp.sin(3 * x + s), params)
        updates, state = transform.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def same(found, expected, rtol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol), found, expected)


CHAINS = {
    "sgd": (optax.sgd(0.1), optsde.SGD(lr=0.1)),
    "momentum": (
        optax.sgd(0.1, 0.9, nesterov=True),
        optsde.HeavyBall(lr=0.1, beta=0.9, nesterov=True),
    ),
    "l2": (
        optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(0.1, 0.9)),
        optsde.HeavyBall(lr=0.1, beta=0.9, l2=1e-2),
    ),
    "average": (
        optax.chain(optax.ema(0.8, debias=False), optax.scale(-0.1)),
        optsde.Momentum(lr=0.1, beta=0.8),
    ),
    "adam": (optax.adam(1e-3, 0.8, 0.9), optsde.Adam(lr=1e-3, b1=0.8, b2=0.9)),
    "adamw": (
        optax.adamw(1e-3, weight_decay=0.1),
        optsde.Adam(lr=1e-3, weight_decay=0.1),
    ),
    "rmsprop": (
        optax.rmsprop(1e-2, 0.9, 1e-6, initial_scale=0.5),
        optsde.RMSprop(
            lr=1e-2, beta=0.9, eps=0.0, eps_root=1e-6, v0=0.5, bias_correction=False
        ),
    ),
    "rmsprop, corrected": (
        optax.rmsprop(1e-2, 0.9, eps_in_sqrt=False, bias_correction=True),
        optsde.RMSprop(lr=1e-2, beta=0.9),
    ),
    "adagrad": (
        optax.adagrad(1e-2, 0.3),
        optsde.AdaGrad(lr=1e-2, s0=0.3, eps=0.0, eps_root=1e-7),
    ),
    "lion": (
        optax.lion(1e-4, weight_decay=0.1),
        optsde.Lion(lr=1e-4, weight_decay=0.1),
    ),
    "signs": (optax.sign_sgd(1e-3), optsde.SignSGD(lr=1e-3)),
    "signs of averages": (
        optax.chain(optax.trace(0.8), optax.scale_by_sign(), optax.scale(-1e-3)),
        optsde.Signum(lr=1e-3, beta=0.8),
    ),
    "lamb": (
        optax.lamb(1e-3, b2=0.9, weight_decay=0.1),
        optsde.LAMB(lr=1e-3, b2=0.9, inner_decay=0.1),
    ),
    "two memories": (
        contrib.ademamix(1e-3, b3=0.99, alpha=3.0, weight_decay=0.1),
        optsde.AdEMAMix(lr=1e-3, b3=0.99, alpha=3.0, weight_decay=0.1),
    ),
    "schedule-free sgd": (
        contrib.schedule_free_sgd(0.1, b1=0.8, weight_decay=0.1),
        optsde.ScheduleFreeSGD(lr=0.1, beta=0.8, l2=0.1),
    ),
    "schedule-free adamw": (
        contrib.schedule_free_adamw(1e-2, b2=0.9, weight_decay=0.1),
        optsde.ScheduleFreeAdam(lr=1e-2, b2=0.9, weight_decay=0.1),
    ),
    "named": (
        optax.named_chain(("a", optax.identity()), ("b", optax.adam(1e-3))),
        optsde.Adam(lr=1e-3),
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_known_chains_are_read(name):
    chain, expected = CHAINS[name]
    plan = optsde.from_optax(chain, PARAMS, **SIZES)
    assert plan.optimizer == expected
    assert plan.schedule is plan.clip is None
    assert plan.average == expected.average()
    same(run(plan.transform())[0], run(chain)[0])


def test_a_chain_as_transformers_have_it_is_rescaled():
    """Clip, AdamW with a mask, warm-up and cosine: at four times the batch."""
    chain = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(PEAK, 0.9, 0.95, weight_decay=0.1, mask=matrices),
    )
    plan = optsde.from_optax(chain, PARAMS, **SIZES)
    same(run(plan.transform(), 20)[0], run(chain, 20)[0])
    big = optsde.scale(plan, 4)
    parts = big.optimizer.by_group()
    assert (big.batch_size, big.steps, big.clip) == (1024, 25, 0.5)
    assert [part.lr for part in parts.values()] == pytest.approx([2e-3, 2e-3], 1e-5)
    assert [part.weight_decay for part in parts.values()] == pytest.approx(
        [0.2, 0], 1e-5
    )
    assert parts["decayed"].b2 == pytest.approx(0.8)
    np.testing.assert_allclose(big.rate(10.0), 2e-3, 1e-4)
    np.testing.assert_allclose(big.rate(55.0), 2 * PEAK(55), 1e-4)
    assert "1 − b2" in optsde.explain(plan, big)


def test_groups_of_their_own_lr_and_decay():
    """Three groups, one with a mask of its own, one frozen; schedules in proportion."""
    chain = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.partition(
            {
                "body": optax.adamw(PEAK, weight_decay=0.1, mask=matrices),
                "head": optax.adamw(lambda t: 10 * PEAK(t), weight_decay=0.01),
            },
            top,
        ),
    )
    plan = optsde.from_optax(chain, PARAMS, **SIZES)
    assert sorted(plan.optimizer.parts) == ["body", "body, not decayed", "head"]
    same(run(plan.transform(), 12)[0], run(chain, 12)[0])
    frozen = optax.partition({"body": optax.set_to_zero(), "head": optax.sgd(0.1)}, top)
    plan = optsde.from_optax(frozen, PARAMS, **SIZES)
    same(run(plan.transform())[0], run(frozen)[0])
    assert optsde.svag(plan, 2).optimizer.parts["head"].lr == 0.05
    assert plan.optimizer.lr == 0.1


@pytest.mark.parametrize("rms", [None, 0.2])
def test_muon_is_read_with_the_adam_of_all_that_is_no_matrix(rms):
    chain = contrib.muon(
        1e-2,
        nesterov=False,
        weight_decay=0.1,
        adam_b2=0.9,
        adam_learning_rate=1e-3,
        consistent_rms=rms,
    )
    plan = optsde.from_optax(chain, PARAMS, **SIZES)
    muon, adam = (plan.optimizer.parts[name] for name in ("muon", "adam"))
    assert adam == optsde.Adam(lr=1e-3, b2=0.9)
    assert muon == optsde.Muon(
        lr=1e-2, nesterov=False, match_rms=rms is not None, weight_decay=0.1
    )
    same(run(plan.transform())[0], run(chain)[0], 1e-4)
    big = optsde.scale(plan, 4).optimizer.parts
    assert (big["muon"].lr, big["adam"].lr) == pytest.approx((4e-2, 2e-3))


def test_labels_may_be_a_prefix_and_no_strings():
    chain = optax.partition({1: optax.sgd(0.1), 2: optax.adam(1e-3)}, top_numbers)
    plan = optsde.from_optax(chain, PARAMS, **SIZES)
    same(run(plan.transform())[0], run(chain)[0])


def top_numbers(params):
    return {name: 1 if name == "body" else 2 for name in params}


def test_shapes_are_enough():
    shapes = jax.eval_shape(lambda: PARAMS)
    plan = optsde.from_optax(optax.adam(1e-3), shapes, **SIZES)
    assert plan.optimizer == optsde.Adam(lr=1e-3)


def test_what_comes_first_may_be_left_as_it_is():
    chain = optax.chain(optax.clip(0.2), optax.adam(1e-3))
    with pytest.raises(
        ValueError, match=r"clip\(max_delta=0.2\) has no scaling rule.*use leave="
    ):
        optsde.from_optax(chain, PARAMS, **SIZES)
    plan = optsde.from_optax(chain, PARAMS, **SIZES, leave=("clip",))
    same(run(plan.transform())[0], run(chain)[0])
    assert optsde.scale(plan, 2).before is plan.before
    with pytest.raises(ValueError, match="before, clip and average must be None"):
        optsde.sde(plan, None, PARAMS)
    squares = dataclasses.replace(plan, optimizer=optsde.InvariantAdam())
    with pytest.raises(ValueError, match="before: is for a gradient"):
        squares.checked()


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (
            optax.nadam(1e-3),
            r"scale_by_adam\(.*nesterov=True\) has no scaling rule here",
        ),
        (contrib.muon(1e-3), "muon has one with nesterov=False"),
        (contrib.muon(1e-3, nesterov=False, ns_steps=4), "the usual ns_coeffs"),
        (contrib.muon(1e-3, nesterov=False, consistent_rms=0.3), "None or 0.2"),
        (
            contrib.ademamix(1e-3, alpha=PEAK),
            "ademamix has a schedule of b3 or alpha: give numbers",
        ),
        (optax.lamb(1e-3, weight_decay=0.1, mask=matrices), "partition of two lambs"),
        (
            optax.chain(
                optax.scale_by_rms(), optax.scale_by_trust_ratio(), optax.scale(-0.1)
            ),
            "with its defaults, after adam and its decay, it is lamb",
        ),
        (
            contrib.schedule_free_sgd(0.1, warmup_steps=3),
            "give weight_lr_power=0, or no warm-up",
        ),
        (
            contrib.schedule_free(optax.lion(1e-3), 1e-3),
            "schedule_free of Lion has no rule here",
        ),
        (
            contrib.schedule_free(
                optax.chain(optax.add_decayed_weights(0.1, matrices), optax.sgd(0.1)),
                0.1,
            ),
            "schedule_free of Groups has no rule here",
        ),
        (optax.adafactor(1e-3), "has no scaling rule here"),
        (
            optax.rmsprop(1e-3, momentum=0.9),
            r"trace\(decay=0.9, nesterov=False\) has no scaling rule",
        ),
        (optax.MultiSteps(optax.sgd(0.1), 4), "batch of all accumulated steps"),
        (optax.inject_hyperparams(optax.adam)(1e-3), "give the chain that it makes"),
        (optax.adam(-1e-3), "descends only where that is negative"),
        (optax.adam(lambda t: 0.1 - t), "go from -99.9 to 0.1"),
        (optax.scale_by_adam(), "multiplies updates by 1"),
        (optax.adam(1e-3, mu_dtype="bfloat16"), "in another dtype"),
        (
            optax.partition({"body": optax.sgd(PEAK), "head": optax.sgd(0.1)}, top),
            "follow other schedules",
        ),
        (
            optax.chain(optax.adam(1e-3), optax.clip_by_global_norm(1.0)),
            "as the first piece of the chain",
        ),
    ],
)
def test_what_has_no_rule_is_named(chain, message):
    with pytest.raises(ValueError, match=message):
        optsde.from_optax(chain, PARAMS, **SIZES)


def scale(step_size):
    def update_fn(updates, state, params=None):
        return jax.tree.map(lambda g: step_size * g**3, updates), state

    return optax.GradientTransformation(lambda params: (), update_fn)


def test_a_piece_that_is_not_what_it_seems_is_refused():
    """Its name and numbers are those of `optax.scale`, and it does something else."""
    with pytest.raises(ValueError, match="makes other updates"):
        optsde.from_optax(scale(-0.1), PARAMS, **SIZES)


@pytest.mark.parametrize(
    "chain",
    [
        optax.adamw(PEAK, weight_decay=0.1, mask=matrices),
        optax.partition(
            {"body": optax.adam(1e-3), "head": optax.sgd(0.1, momentum=0.9)}, top
        ),
        optax.rmsprop(1e-2, bias_correction=True),
        contrib.muon(1e-2, nesterov=False),
        contrib.ademamix(1e-3),
    ],
)
def test_a_state_of_optax_goes_on_in_the_plan(chain):
    plan = optsde.from_optax(chain, PARAMS, **SIZES)
    _, state = run(chain, 4)
    ours = optsde.optax_state(state, plan, PARAMS)
    assert int(ours.clock.count) == 4
    expected = run(plan.transform(), 4)[1]
    same(ours, expected, 1e-4)
    big = optsde.scale(plan, 2, memory="power")
    moved = optsde.switch(ours, plan, big)
    assert float(moved.clock.time) == 4


def test_a_state_that_counts_no_steps_needs_them():
    chain = optax.sgd(0.1, 0.9)
    plan = optsde.from_optax(chain, PARAMS, **SIZES)
    _, state = run(chain, 4)
    with pytest.raises(ValueError, match="counts no steps: give step="):
        optsde.optax_state(state, plan, PARAMS)
    assert int(optsde.optax_state(state, plan, PARAMS, step=4).clock.count) == 4
    other = optsde.Plan(optimizer=optsde.Adam(), **SIZES)
    with pytest.raises(ValueError, match="no memory of Adam"):
        optsde.optax_state(state, other, PARAMS, step=4)
    with pytest.raises(ValueError, match="optax_state makes one"):
        optsde.switch(state, plan, optsde.scale(plan, 2))


def test_schedules_that_are_multipliers_are_let_through():
    """One that has not come to its peak, and small factors of a larger peak."""
    short = optsde.schedules.warmup_cosine(1000, 10_000)
    narrow = optsde.schedules.milestones([2.0], factor=1e-3)
    for schedule in (short, narrow, lambda t: 0 * t):
        plan = optsde.Plan(optimizer=optsde.SGD(lr=0.5), schedule=schedule, **SIZES)
        assert plan.checked() is plan
    broken = optsde.Plan(optimizer=optsde.SGD(lr=0.5), schedule=jnp.log, **SIZES)
    with pytest.raises(ValueError, match="schedule is not finite at time 0"):
        broken.checked()


@pytest.mark.parametrize("peak", [1e-3, 0.05])
def test_a_schedule_of_learning_rates_is_no_multiplier(peak):
    rates = optax.warmup_cosine_decay_schedule(0.0, peak, 10, 100)
    optimizer = optsde.Adam(lr=1e-3)
    plan = optsde.Plan(optimizer=optimizer, schedule=rates, **SIZES)
    with pytest.raises(ValueError, match="this looks like learning rates"):
        plan.checked()
    schedule = optsde.schedules.absolute(rates, 1e-3)
    plan = optsde.Plan(optimizer=optimizer, schedule=schedule, **SIZES).checked()
    np.testing.assert_allclose(plan.rate(10.0), peak, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optax.adamw(1e-3), "optsde.from_optax makes a plan"),
        (
            lambda: optsde.Adam(lr=PEAK),
            "needs a positive number; a schedule is the plan's",
        ),
        (lambda: optsde.Adam(lr={"head": 0.1}), "rates of parts of a net are Groups'"),
        (lambda: optsde.Adam(b1="0.9"), "b1='0.9': needs 0 ≤ decay < 1"),
    ],
)
def test_what_is_no_optimizer_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        optsde.Plan(optimizer=make(), **SIZES).checked()
