"""experiments.scaling.rows: rows by frequency, verdicts of known outcome."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optsde
from configs import scaling as configs
from experiments.scaling import groups, rows
from optsde.analysis import estimate
from optsde.gradients import minibatch
from optsde.run import Series
from optsde.study import ArmRuns, RunDir, Runs, UsageError, build_task

NET = dict(dtype="float32", depth=1, width=8, heads=2, length=8, tied=False)


def tiny(**changes):
    small = dict(options=NET, train_size=300, test_size=32, seeds=4, warmup=4.0)
    small |= dict(horizon=32.0, evaluations=4, kappas=(2, 8), draws=32) | changes
    return dataclasses.replace(configs.PRESETS["rare_rows"].settings, **small)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(rare=0.6), r"rare=0.6: needs less than 1 − frequent = 0.5"),
        (dict(options=NET | dict(tied=True)), "options.tied.*False"),
        (dict(augment="masked"), "augment=masked: needs none"),
        (dict(warmup=32.0), "warmup=32.0: needs less than the horizon, 32"),
        (dict(kappas=(3,)), "kappas=3: needs whole steps in"),
    ],
)
def test_settings_that_cannot_run_are_refused(changes, says):
    with pytest.raises(UsageError, match=says):
        tiny(**changes).checked()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kappa", [1, 4, 32])
def test_a_row_that_is_read_once_moves_as_far_under_the_rule(kappa):
    """The closed form is the sum of Adam's updates, and κ changes it by under 1%."""
    lr, b1, b2 = 7e-4, 0.975, 0.995

    def closed(lr, b1, b2):
        return lr * (1 - b1) / (np.sqrt(1 - b2) * (1 - b1 / np.sqrt(b2)))

    optimizer = optsde.Adam(lr=lr, b1=b1, b2=b2, eps=1e-30)
    plan = optsde.Plan(optimizer=optimizer, batch_size=2, horizon=4096)
    scaled = optsde.scale(plan, kappa, memory="power").optimizer.single()
    transform = scaled.transform()
    grads = np.zeros(4096 // kappa)
    grads[len(grads) // 2] = 3.0 / kappa  # a mean over κ times as many examples

    def step(carry, grad):
        state, x = carry
        update, state = transform.update(grad, state, x)
        return (state, x + update), None

    start = jnp.zeros(())
    carry = transform.init(start), start
    (_, moved), _ = jax.lax.scan(step, carry, jnp.asarray(grads))
    expected = closed(float(scaled.lr), float(scaled.b1), float(scaled.b2))
    np.testing.assert_allclose(-moved, expected, rtol=1e-4)  # bias correction
    np.testing.assert_allclose(expected, closed(lr, b1, b2), rtol=0.01)


def counted(text: list[int], **changes):
    """Returns settings, and a task whose training text is this."""
    s = tiny(**changes)
    task = build_task(s)
    tokens = np.array(text, np.uint8).reshape(-1, 8)
    train = jnp.asarray(tokens), jnp.asarray(tokens.astype(np.int32))
    return s, dataclasses.replace(task, train=train)


def test_tokens_are_grouped_by_their_share_of_the_text():
    """Counts 16, 8, 4, 2, 1, 1 of 32: half, then up to 90%, then the rest."""
    text = 16 * [7] + 8 * [3] + 4 * [9] + 2 * [200] + [0, 255]
    s, task = counted(text, rare=0.1)
    found = rows.tokens_of(s, task)
    assert {name: mine.tolist() for name, mine in found.of.items()} == {
        "frequent": [7],
        "middling": [3, 9, 200],
        "rare": [0, 255],
    }
    assert found.shares == pytest.approx(
        {"frequent": 0.5, "middling": 14 / 32, "rare": 2 / 32}
    )
    with pytest.raises(UsageError, match="shares that leave rare tokens"):
        rows.tokens_of(*counted(text, rare=0.01))
    tied = dataclasses.replace(task, model=task.model.clone(tied=True))
    with pytest.raises(UsageError, match="a last layer 'output'"):
        rows.tokens_of(s, tied)


@pytest.mark.full
def test_noise_of_groups_is_that_of_the_examples():
    """Signal and noise of a batch of 2, within 4 s.e. over eight keys."""
    s = tiny(train_size=40, draws=512)
    task = build_task(s)
    tokens = rows.tokens_of(s, task)
    params = task.init(jax.random.key(0))
    params = jax.tree.map(lambda x: 5 * x, params)

    def rows_of(example):
        one = jax.tree.map(lambda x: x[None], example)
        return jax.grad(lambda p: task.losses(p, one)[0])(params)["tokens"]

    each = np.asarray(jax.jit(jax.vmap(rows_of))(task.train), np.float64)
    probe = rows.of_rows(s, minibatch(task.losses, task.train), tokens)
    direction = s.optimizer.direction().init(params)

    def observe(key):
        memory = SimpleNamespace(direction=direction)
        state = SimpleNamespace(
            params=params, optimizer=memory, key=key, step=jnp.int32(0), time=0.0
        )
        return probe.observe(probe.source, state, ())[0]

    found = jax.jit(jax.vmap(observe))(jax.random.split(jax.random.key(1), 8))
    for number, mine in enumerate(tokens.of.values()):
        mean = each[:, mine].mean(0)
        signal = np.sum(mean**2)
        noise = (np.sum(each[:, mine] ** 2) / len(each) - signal) / s.batch_size
        for metric, exact in (("signal", signal), ("noise", noise)):
            seen = estimate(np.asarray(found[metric])[:, number])
            assert abs(seen.mean - exact) < 4 * seen.se


def test_verdicts_of_known_outcome(tmp_path):
    s = tiny(seeds=8, kappas=(2, 8))
    wobble = 1 + 0.001 * np.linspace(-1, 1, 8)[:, None]
    times, runs = s.every * np.arange(5), {}
    changes = {"frequent": 0.2, "middling": 0.1, "rare": 0.005}
    for arm in groups.arms(rows.RULE, s.base_plan(), s.kappas):
        metrics = {
            f"{name}_{metric}": Series(
                times, wobble * (1 + (arm.plan.dt > 2) * size) + np.zeros(5)
            )
            for name, size in changes.items()
            for metric in rows.METRICS
        }
        runs[arm.name] = ArmRuns(arm, metrics)
    levels = dict(signal=[0.3, 0.1, 0.01], noise=[1.0, 1.0, 1.0], v=[5.0, 3.0, 2.0])
    for metric, values in levels.items():
        array = wobble[:, None] * np.array(values) + np.zeros((8, 2, 3))
        runs["rule/1"].metrics[metric] = Series(times[:2], array)
    runs["rule/1"].metrics["descent"] = runs["rule/1"].metrics["noise"]
    slowed = np.array([[0.9, 0.5], [0.95, 0.8], [1.0, 1.0]])
    array = wobble[:, None, None] * slowed + np.zeros((8, 2, 3, 2))
    runs["rule/1"].metrics["slowed"] = Series(times[:2], array)
    tokens = rows.Tokens(
        dict(frequent=np.arange(2), middling=np.arange(2, 5), rare=np.arange(5, 9)),
        dict(frequent=0.5, middling=0.4, rare=0.1),
    )
    outcome = rows.Outcome(tokens, Runs(runs))
    verdicts = list(rows.claims(s, outcome))
    by_name = {v.claim: v for v in verdicts}
    assert {name for name, v in by_name.items() if v.outcome == "fails"} == {
        *(
            f"{n}_{m}_holds_at_8"
            for n in ("frequent", "middling")
            for m in rows.METRICS
        ),
        *(f"rare_{m}_further_off_at_{k}" for m in rows.METRICS for k in (2, 8)),
    }
    values = {
        "rare_have_more_of_v": 10.0,
        "rare_have_less_signal": 0.29,
        "frequent_foreseen_to_lag_more_at_8": 50.0,
        "frequent_loss_holds_at_8": 20.0,
        "rare_moved_further_off_at_8": -19.5,
    }
    for name, value in values.items():
        assert by_name[name].value == pytest.approx(value)
    text = rows.answer(s, outcome, verdicts)
    assert "frequent loss κ = 2, " in text
    assert text.endswith("rare loss κ = 8, rare moved κ = 8")
    first, second = rows.tables(s, outcome)
    assert "20.0 ± 0.0" in first
    assert "+20.0 [+20.0, +20.0]" in second
    rows.figure(s, outcome, tmp_path / "figure.png")


@pytest.mark.full
def test_rows_are_run(tmp_path):
    s = tiny(kappas=(2,)).checked()
    outcome = rows.simulate(s, RunDir(tmp_path, "scaling", {}), build_task(s))
    base = outcome.runs["rule/1"]
    assert list(outcome.runs) == ["rule/1", "rule/2"]
    assert base.slowed.values.shape == (4, 2, 3, 1)
    moved = sum(base[f"{name}_moved"].values for name in rows.GROUPS)
    assert (moved[:, 0] == 0).all()
    assert (moved[:, 1:] > 0).all()
    assert len(list(rows.claims(s, outcome))) == 3 + 6 + 2
