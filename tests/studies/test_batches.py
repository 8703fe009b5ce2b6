"""experiments.batches: stages, arms, a closed form, verdicts of known outcome."""

import dataclasses

import jax
import numpy as np
import pytest

import optsde
from configs.batches import PRESETS
from experiments.batches import (
    branching,
    critical,
    foreseen,
    growing,
    regression,
    stages,
)
from experiments.batches.growing import FALLS, GROWS
from optsde.run import Series
from optsde.study import ArmRuns, RunDir, Runs, UsageError, build_task
from optsde.study.study import run

SMALL_NET = dict(options={"hidden": (8,)}, train_size=64, test_size=64)
TINY = SMALL_NET | dict(
    seeds=3,
    horizon=64.0,
    drops=(32.0,),
    evaluations=4,
)


def tiny(preset="adam", **changes):
    return dataclasses.replace(PRESETS[preset].settings, **TINY | changes)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_pass_their_own_checks(preset):
    PRESETS[preset].settings.checked()


def test_arms_change_what_their_names_tell():
    s = tiny(drops=(32.0, 48.0)).checked()
    last = {name: way[-1] for name, way in growing.ways(s).items()}
    lr, b1 = s.optimizer.lr, s.optimizer.b1
    for name, rate, batch, decay, switches in (
        (FALLS, lr / 4, 2, b1, True),
        (GROWS, lr, 32, b1**16, True),
        (growing.STAYS, lr, 2, b1, True),
        (growing.by_other(2), lr, 8, b1**4, True),
        (growing.BETAS, lr, 32, b1, True),
        (growing.STATE, lr, 32, b1**16, False),
    ):
        plan = last.pop(name).plan
        np.testing.assert_allclose(plan.optimizer.lr, rate)
        np.testing.assert_allclose(plan.optimizer.b1, decay)
        assert plan.batch_size == batch
        assert growing.ways(s)[name][-1].switches == switches
    assert not last
    sgd = growing.ways(tiny("sgd"))
    assert list(sgd) == [FALLS, GROWS, growing.STAYS, growing.by_other(4)]
    assert sgd[FALLS][-1].plan.optimizer.lr == 0.02
    taken = [stages.steps(way, (32, 64)) for way in sgd.values()]
    assert taken == [64, 48, 64, 40]


@pytest.mark.full
def test_stages_are_one_run_with_milestones():
    """Drops of lr as stages, and as the schedule of a run that never stops."""
    s = tiny(drops=(32.0, 48.0)).checked()
    task, times = build_task(s), [0, 16, 32, 48, 64]
    way = {FALLS: growing.ways(s)[FALLS]}
    found = stages.train(way, s.ends, times, s.sampler(task), task, s.keys())
    schedule = optsde.schedules.milestones((32, 48), growing.factor(s, 4))
    plan = dataclasses.replace(s.base_plan(), schedule=schedule)
    probes = [task.evaluation(times=times)]
    dynamics = optsde.discrete(plan, s.sampler(task), task.init)
    whole = optsde.fit(dynamics, s.keys(), 64, probes=probes).metrics["test_loss"]
    np.testing.assert_array_equal(found[FALLS]["test_loss@times"], whole.times)
    np.testing.assert_allclose(found[FALLS]["test_loss"], whole.values, rtol=2e-5)


def test_the_state_is_switched_or_left():
    """v of an arm that switches is divided by κ, and left alone by the other."""
    plan = tiny().base_plan()
    memory = plan.transform().init(jax.numpy.ones(2))
    full = memory._replace(direction=memory.direction._replace(v=np.full(2, 8.0)))
    state = optsde.discrete(plan, lambda b: _nothing(), jax.numpy.ones(2))
    state = jax.vmap(state.init)(jax.random.split(jax.random.key(0), 1))
    state = state._replace(optimizer=jax.tree.map(lambda x: x[None], full))
    for switches, v in ((True, 2.0), (False, 8.0)):
        after = stages.Stage(optsde.scale(plan, 4), switches)
        found = stages._switched(state, (stages.Stage(plan), after)).optimizer
        np.testing.assert_allclose(found.direction.v, [[v, v]])
        assert found.clock.dt == 4


def _nothing():
    return optsde.gradients.FunctionOracle(lambda source, x, draw: (0.0, 0 * x))


@pytest.mark.full
def test_a_growing_batch_is_run_judged_and_drawn(tmp_path, capsys):
    s = tiny("sgd", others=()).checked()
    verdicts = run(growing.study, s, RunDir.open(tmp_path, "batches", s.config()))
    names = ["drops_lower_the_loss", "same_after_drop_1"]
    assert [v.claim for v in verdicts] == names
    out = capsys.readouterr().out
    assert "64 steps one after the other become 48, 25% fewer" in out
    assert (tmp_path / "figures" / "growing.png").is_file()
    assert (
        run(growing.study, s, RunDir.open(tmp_path, "batches", s.config())) == verdicts
    )


def known(**factors):
    """Runs whose losses after the drop are these times those of falling lr."""
    s = tiny(seeds=8)
    times, noise = 16.0 * np.arange(5), 1e-3 * np.arange(8)[:, None]
    runs = {}
    for name in growing.ways(s):
        values = np.where(times > 32, factors.get(name, 1.0), 1.0) + noise
        runs[name] = ArmRuns(name, {"test_loss": Series(times, values)})
    return s, Runs(runs)


def test_verdicts_of_known_runs():
    factors = {growing.STAYS: 1.2, GROWS: 1.01}
    factors |= {growing.BETAS: 1.1, growing.STATE: 1.0, growing.by_other(2): 0.9}
    s, runs = known(**factors)
    verdicts = {v.claim: v for v in growing.claims(s, runs)}
    assert {name: v.outcome for name, v in verdicts.items()} == {
        "drops_lower_the_loss": "holds",
        "same_after_drop_1": "holds",
        "nearer_than_growth_by_2": "holds",
        "nearer_than_betas_alone": "holds",
        "nearer_than_v_alone": "fails",
    }
    np.testing.assert_allclose(verdicts["same_after_drop_1"].value, 1.0, atol=0.01)
    s, runs = known(**{GROWS: 1.2})
    outcomes = [v.outcome for v in growing.claims(s, runs)]
    assert outcomes[:2] == ["fails", "fails"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(drops=(30.0,)), "drops.*times of evaluations, each 16"),
        (dict(drops=(64.0,)), "drops.*before the horizon"),
        (dict(growth=32), "growth=32: needs whole steps in .* = 16"),
        (dict(others=(32,)), "others=32: needs whole steps"),
        (dict(others=(4,)), "factors other than growth=4"),
        (dict(warmup=40.0), "warmup=40.0: needs less than the first drop"),
        (dict(optimizer=optsde.AdaGrad(lr=0.1)), "an optimizer whose lr follows"),
        (dict(optimizer=optsde.Adam(b1=0.5), memory="linear"), "b1=0.5 has no memory"),
        (dict(group=3), "group=3: needs at most batch_size=2"),
    ],
)
def test_settings_that_cannot_run_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        tiny(**change).checked()


# ---- the regression


def small(**changes):
    sizes = dict(dimension=4, noise=1.0, steps=512, halvings=2, evaluations=8)
    return regression.Settings(**sizes | changes)


def test_closed_form_of_one_curvature():
    """The second moment of one parameter goes to η σ²/(2B − η (B + 2)) at h = 1."""
    s = small(dimension=1, steps=4096, lr=0.1, batch_size=2)
    arms = regression.of_lr(s, 0.1)
    last = regression.excess(s, growing.ways(arms)[growing.STAYS], arms)[-1]
    np.testing.assert_allclose(2 * last, 0.1 / (4 - 0.1 * 4), rtol=1e-9)


def test_the_regression_is_judged_and_drawn(tmp_path):
    s = small()
    verdicts = run(regression.study, s, RunDir.open(tmp_path, "batches", s.config()))
    claims = ["difference_falls_as_lr", "growth_by_4_stays_apart"]
    assert [v.claim for v in verdicts] == claims
    assert (tmp_path / "figures" / "regression.png").is_file()
    with pytest.raises(UsageError, match="a stable one, below"):
        small(lr=1.5).checked()


# ---- branches


def branched(**changes):
    sizes = dict(times=(32.0, 64.0, 96.0), stretch=32.0, kappas=(2, 4, 8))
    sizes |= dict(fixed=(1, 4), horizon=128.0, seeds=8)
    preset = PRESETS["critical"].settings
    return dataclasses.replace(preset, **sizes | changes).checked()


def outcome(s, critical_kappas, power=1.0, late=1.0):
    """Branches that are 1% per doubling of κ over the critical one higher than 3%."""
    noise = 1e-4 * np.arange(8)[:, None] * np.ones(5)
    times = np.arange(0, 129, 8.0)
    base = np.exp(-times / 64) + noise[:, :1]
    runs = {critical.BASE: _run(critical.BASE, times, base)}
    for time, kappa in zip(s.times, critical_kappas, strict=True):
        at = critical.measured(s, time)[1:]
        for each in s.kappas:
            off = 1 + 0.03 * np.log2(each) / np.log2(kappa)
            name = critical.branch(time, each)
            values = base[:, np.searchsorted(times, at)] * off
            runs[name] = _run(name, at, values)
    ones = np.ones((8, 3)) + noise[:, :3]
    ratio = np.array(critical_kappas) ** (1 / power)
    gradients = dict(signal=ones, noise=ones * ratio, base=ones)
    gradients["slowed"] = np.repeat(ones[:, :, None], 3, axis=2)
    names = {critical.FOLLOWS: late, critical.fixed(1): 1.0, critical.fixed(4): 1.1}
    whole = {n: _run(n, [128.0], x + noise[:, :1]) for n, x in names.items()}
    kappas = critical.chosen(s, Runs(runs))
    return critical.Outcome(Runs(runs), gradients, kappas, Runs(whole))


def _run(name, times, values):
    return ArmRuns(name, {"test_loss": Series(np.array(times), values)})


def test_a_critical_batch_is_found_and_judged():
    s = branched()
    found = outcome(s, (2.0, 3.0, 6.0), late=1.01)
    logs = critical.critical(s, found.branches).mean
    # Interpolated between κ = 4 and 8, and between 2 and 4, the line is the same.
    np.testing.assert_allclose(2**logs, [2.0, 3.0, 6.0], rtol=1e-3)
    assert found.kappas == (1, 2, 4) or found.kappas == (2, 2, 4)
    verdicts = {v.claim: v for v in branching.claims(s, found)}
    grows = verdicts["critical_batch_grows"]
    np.testing.assert_allclose(grows.value, np.log2(3), rtol=1e-3)
    follows = verdicts["critical_batch_follows_noise"]
    np.testing.assert_allclose(follows.value, 1.0, rtol=1e-2)
    assert verdicts["schedule_keeps_the_loss"].holds
    assert verdicts["fixed_batch_ends_higher"].value != 0
    unlike = outcome(s, (2.0, 3.0, 6.0), power=0.2, late=1.2)
    verdicts = {v.claim: v for v in branching.claims(s, unlike)}
    assert verdicts["critical_batch_follows_noise"].fails
    assert verdicts["schedule_keeps_the_loss"].fails


def test_a_critical_batch_that_is_not_seen_decides_nothing():
    s = branched()
    found = outcome(s, (100.0, 100.0, 100.0))
    assert not critical.seen(s, found.branches).any()
    assert found.kappas == (8, 8, 8)
    verdicts = {v.claim: v.outcome for v in branching.claims(s, found)}
    for name in ("critical_batch_grows", "critical_batch_follows_noise"):
        assert verdicts[name] == "open"
    assert "critical_batch_is_foreseen" not in verdicts
    text = "".join(branching.tables(s, found))
    assert text.count("above 8") == 6


def test_speeds_foretell_a_lag():
    """At half the speed from the start, half of the samples are seen."""
    s = branched(optimizer=optsde.RMSprop(lr=1e-3, beta=0.0))
    curve = np.repeat(np.linspace(1.0, 0.6, 5)[None], 2, axis=0)
    base, slowed = np.ones((2, 3)), np.full((2, 3, 3), 1.0)
    assert foreseen.foreseen(s, 0, curve, base, slowed) == 3
    # At κ = 4 and speed ½ the late loss is .825 and not .65, 27% more; at κ = 2, 0.
    slowed[..., 1:] = 0.5
    found = foreseen.foreseen(s, 0, curve, base, slowed)
    np.testing.assert_allclose(found, 1 + 3 / (100 * 0.175 / 0.65), rtol=0.02)


@pytest.mark.full
def test_branches_are_run_judged_and_drawn(tmp_path):
    s = branched(**SMALL_NET, seeds=3, times=(32.0, 64.0), kappas=(2,))
    s = dataclasses.replace(s, fixed=(1,), draws=32)
    verdicts = run(branching.study, s, RunDir.open(tmp_path, "batches", s.config()))
    assert verdicts[0].claim == "critical_batch_grows"
    assert (tmp_path / "figures" / "critical.png").is_file()
