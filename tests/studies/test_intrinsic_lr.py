"""experiments.intrinsic_lr: settings, arms, exact rescaling, verdicts on known runs."""

import dataclasses

import numpy as np
import pytest

from configs.intrinsic_lr import PRESETS
from experiments.intrinsic_lr import (
    decay,
    equilibrium,
    full_batch,
    momentum,
    nets,
    only_the_last,
    same_product,
    sphere,
    swa,
)
from optsde.measure import intrinsic_rates
from optsde.optimizers import SGD
from optsde.run import Series
from optsde.study import RunDir, UsageError
from optsde.study.runs import ArmRuns, Runs

TINY = dict(
    seeds=2, train_size=64, test_size=40, judged=64, statistics=64, steps=40, every=20
)
LATE = dict(steps=20_000, every=100)


def tiny(preset, **changes):
    settings = PRESETS[preset].settings
    known = {field.name for field in dataclasses.fields(settings)}
    small = {name: value for name, value in TINY.items() if name in known}
    if "options" in known:
        small["options"] = settings.options | {"hidden": (8, 8)}
    return dataclasses.replace(settings, **(small | changes))


@pytest.fixture
def rundir(tmp_path):
    out = RunDir(tmp_path / "run", "intrinsic_lr", {})
    out.begin()
    return out


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_pass_their_own_checks(preset):
    PRESETS[preset].settings.checked()


@pytest.mark.parametrize(
    ("preset", "changes", "words"),
    [
        (
            "equilibrium",
            dict(draws=20),
            "draws=20: needs an integer ≥ 16, a mult",
        ),
        ("equilibrium", dict(steps=50), "steps=50: needs a multiple of every = 20"),
        ("equilibrium", dict(weigh_every=7), "needs a number that divides every = 20"),
        ("equilibrium", dict(augment="flip"), "augment=flip: needs one of"),
        (
            "same_product",
            dict(lrs=tuple(range(1, 10)), decays=(0.03,) * 9),
            "another arm of the first one's product",
        ),
        ("same_product", dict(scales=(1,) * 9), "needs arms that all differ"),
        ("equilibrium", dict(options=dict(hidden=())), "needs one or more widths"),
        ("decay", dict(factor=1.5), "factor=1.5: needs a number in"),
        ("decay", dict(LATE, drop_at=300), "at least four measurements, 400 steps"),
        ("swa", dict(seeds=5), "seeds=5: needs an even number from 4 on"),
        ("decay", dict(drop_at=80), "at least 2.5/λ_e′ = 25000 steps after drop_at"),
        ("only_the_last", dict(LATE, middle_lr=2.0), "a number from lr to large_lr"),
        ("swa", dict(memories=100.0, seeds=4), "100000 steps, in 80% of the run"),
        ("full_batch", dict(steps=40), "steps=40: needs at least 1000"),
        ("sphere", dict(lrs=(2.0, 0.1, 0.1, 0.1)), "times decays below 0.1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(preset, changes, words):
    with pytest.raises(UsageError, match=words.replace(".", r"\.")):
        tiny(preset, **changes).checked()


def test_drops_of_the_learning_rate():
    s = PRESETS["only_the_last"].settings
    plain, one, two = only_the_last.arms(s)
    times = 0, 1999, 2000, 4000
    assert [plain.at(time).lr for time in times] == [0.1] * 4
    assert [one.at(time).lr for time in times] == [1.0, 1.0, 1.0, 0.1]
    assert [two.at(time).lr for time in times] == [1.0, 1.0, 0.3, 0.1]
    norm = Series(np.array(times), np.full((2, 4), 2.0))
    lrs = nets.effective_lr(ArmRuns(two, {"square_norm": norm}))
    np.testing.assert_allclose(lrs.values, [[0.5, 0.5, 0.15, 0.05]] * 2)


def test_momentum_is_compared_at_equal_and_at_other_products():
    arms = momentum.arms(PRESETS["momentum"].settings)
    rates = [intrinsic_rates(arm.plan.optimizer).intrinsic for arm in arms]
    np.testing.assert_allclose(rates, [0.003, 0.003, 0.003, 0.03])


# ---- runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(settings, runs) of four arms, with the noise at the last step.

    The second is the first with lr × 4, decay ÷ 4, initial weights × 2.
    """
    s = tiny(
        "same_product",
        lrs=(0.1, 0.4, 0.1, 0.2),
        decays=(0.5, 0.125, 0.5, 0.5),
        scales=(1.0, 2.0, 4.0, 1.0),
        lr_bound=1e-3,
    ).checked()
    weighed = tiny("equilibrium", draws=16, weigh_every=20)
    rundir = RunDir(tmp_path_factory.mktemp("runs"), "intrinsic_lr", {})
    task, arms = nets.build_task(s), list(same_product.arms(s))
    noise = nets.noise_probe(weighed, task, arms[0], lambda step: step == 40)
    return s, nets.train(s, rundir, task, arms, [noise])


def test_a_rescaled_run_is_the_same_run(trained):
    """Bit for bit, since all factors are powers of 2; the norm is twice as large."""
    _, runs = trained
    first, rescaled, other = list(runs.values())[:3]
    for name in nets.LOSSES:
        np.testing.assert_array_equal(first[name].values, rescaled[name].values)
    assert np.ptp(first.train_loss.values, axis=1).min() > 0.1
    squares = 4 * first.square_norm.values
    np.testing.assert_array_equal(squares, rescaled.square_norm.values)
    np.testing.assert_array_equal(first.noise.values, rescaled.noise.values)
    assert first.noise.times.tolist() == [40]
    assert np.abs(first.train_loss.values - other.train_loss.values).max() > 1e-3
    assert same_product.is_rescaled(rescaled.arm, first.arm)
    assert not same_product.is_rescaled(other.arm, first.arm)


def test_verdicts_on_products(trained, tmp_path):
    s, runs = trained
    verdicts = {v.claim: v for v in same_product.claims(s, runs)}
    assert verdicts["rescaled_run_2_is_the_first"].holds
    assert verdicts["same_product_2_same_effective_lr"].holds
    assert not verdicts["same_product_3_same_effective_lr"].holds
    assert "other_product_0.1_differs_4" in verdicts
    (table,) = same_product.tables(s, runs)
    assert table.count("initial × 1") == 2
    same_product.figure(s, runs, tmp_path / "same.png")


def test_a_net_that_is_not_invariant_is_refused():
    s = tiny("equilibrium", model="mlp", options={"hidden": ()})
    task = nets.build_task(s)
    with pytest.raises(UsageError, match="Dense_0/kernel are not scale invariant"):
        nets.report(s, task, s.arm("a", SGD(lr=0.1, weight_decay=0.1)))


@pytest.mark.parametrize(
    ("study", "changes", "arms", "weighed"),
    [
        (equilibrium, dict(weigh_every=10), 3, [30, 40]),
        (momentum, dict(weigh_every=20), 4, [40]),
        (only_the_last, {}, 3, None),
        (
            decay,
            dict(drop_at=80, decay=2.0, steps=280, weigh_every=20),
            1,
            [60, 80, 200, 220, 240, 260, 280],
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_when_the_noise_is_measured(study, changes, arms, weighed, monkeypatch):
    s = tiny(study.study.key, **changes)
    calls = []

    def train(s, rundir, task, arms, probes=()):
        calls.append((list(arms), [probe.times for probe in probes]))
        return {"drop": None}

    monkeypatch.setattr(nets, "train", train)
    study.simulate(s, None, nets.build_task(s))
    ((ran, times),) = calls
    assert len(ran) == arms
    assert times == ([] if weighed is None else [weighed])


# ---- verdicts on known runs


def known(arm, **values):
    """The runs of an arm from its metrics, each (times, values [seeds, times])."""
    series = {name: Series(*map(np.asarray, x)) for name, x in values.items()}
    return ArmRuns(arm, series)


def stationary(arm, factor=1.0, signal=10.0, noise=90.0):
    """Runs at equilibrium, with an effective lr `factor` times the predicted one."""
    times = np.arange(0, 41, 20)
    rates = intrinsic_rates(arm.plan.optimizer)
    push = noise + rates.share * signal
    lr = factor * np.sqrt(rates.intrinsic * (2 - rates.intrinsic) / push)
    flat = np.ones((3, len(times)))
    lrs = lr / (1 + 1e-3 * np.arange(3)[:, None]) * flat
    names = dict.fromkeys(nets.LOSSES, (times, flat))
    push = dict(signal=(times, signal * flat), noise=(times, noise * flat))
    return known(arm, effective_lr=(times, lrs), **names, **push)


def test_verdicts_on_the_equilibrium(tmp_path):
    s = tiny("equilibrium", lrs=(0.1,), decays=(0.01,))
    (arm,) = equilibrium.arms(s)
    runs = Runs({arm.name: stationary(arm)})
    right, without = equilibrium.claims(s, runs)
    assert right.holds
    assert abs(right.value) < 0.2
    np.testing.assert_allclose(without.value, 100 * (0.9**0.5 - 1), atol=0.2)
    assert not without.holds
    assert not without.expected
    wrong, _ = equilibrium.claims(s, Runs({arm.name: stationary(arm, 1.05)}))
    assert not wrong.holds
    np.testing.assert_allclose(wrong.value, 5, atol=0.2)
    (table,) = equilibrium.tables(s, runs)
    assert "0.111" in table  # of signal and noise
    equilibrium.figure(s, runs, tmp_path / "equilibrium.png")


def test_verdicts_on_momentum(tmp_path):
    """At equilibrium all are where they are predicted, and the losses agree."""
    s = tiny("momentum")
    runs = Runs({arm.name: stationary(arm) for arm in momentum.arms(s)})
    verdicts = {v.claim: v for v in momentum.claims(s, runs)}
    assert all(verdicts[f"equilibrium_of_arm_{i}"].holds for i in range(1, 5))
    assert verdicts["arm_2_of_the_same_product_same_test_loss"].holds
    faster = verdicts["arm_3_of_the_same_product_same_effective_lr"]
    share = intrinsic_rates(runs["β 0.9, lr 0.04, l2 0.0075"].arm.plan.optimizer).share
    expected = 100 * (np.sqrt(100 / (90 + 10 * share)) - 1)
    np.testing.assert_allclose(faster.value, expected, atol=0.1)
    assert not verdicts["arm_4_of_the_same_lr_l2_differs"].holds
    momentum.study.figures["momentum"](s, runs, tmp_path / "momentum.png")


def test_verdicts_on_a_drop(tmp_path):
    """The effective lr goes to .4, as noise falls to 1/1.6; the loss 1, .2, .3."""
    s = PRESETS["decay"].settings
    times = np.arange(0, s.steps + 1, s.every)
    time = (times - s.drop_at) / 10_000
    jitter = 1 + 0.01 * np.linspace(-1, 1, 4)[:, None]
    lrs = np.where(time < 0, 1.0, 0.1 + 0.3 * np.clip(time, 0, 1))
    loss = np.select([time <= 0, time < 0.7], [1.0, 0.2], 0.3) * jitter
    push = np.where(time <= 0, 100.0, 62.5) + 0 * jitter
    metrics = dict.fromkeys(nets.LOSSES, (times, loss))
    metrics["effective_lr"] = times, 1e-3 * lrs + 0 * jitter
    metrics |= {"signal": (times, 0.1 * push), "noise": (times, 0.9 * push)}
    runs = {"drop": known(None, **metrics)}
    np.testing.assert_allclose(decay.settled(s, runs["drop"]).mean, 0, atol=1e-9)
    verdicts = {v.claim: v for v in decay.claims(s, runs)}
    assert all(v.holds for v in verdicts.values())
    np.testing.assert_allclose(verdicts["test_loss_rises_again"].value, 50, rtol=1e-6)
    np.testing.assert_allclose(verdicts["test_loss_falls_first"].value, 400, rtol=1e-6)
    (table,) = decay.tables(s, runs)
    assert "2 on" in table
    decay.figure(s, runs, tmp_path / "decay.png")
    louder = np.where(time <= 0, 1, 2) * push
    runs = {"drop": known(None, **metrics | {"noise": (times, louder)})}
    verdicts = {v.claim: v for v in decay.claims(s, runs)}
    assert not verdicts["settles_where_the_noise_says"].holds


def test_verdicts_on_the_last_learning_rate(tmp_path):
    """Runs that differ before the last drop, and end alike but for one effective lr."""
    s = PRESETS["only_the_last"].settings
    times = np.arange(0, s.steps + 1, s.every)
    jitter = 1 + 0.01 * np.linspace(-1, 1, 3)[:, None]
    early, ends = times <= s.second_drop, (1.0, 1.0, 1.1)
    runs = {}
    for place, (arm, end) in enumerate(zip(only_the_last.arms(s), ends, strict=True)):
        loss = np.where(early, 1.0 + place, 0.5) * jitter
        metrics = dict.fromkeys(nets.LOSSES, (times, loss))
        lrs = times, end * jitter * np.ones(len(times))
        runs[arm.name] = known(arm, effective_lr=lrs, **metrics)
    runs = Runs(runs)
    holds = {v.claim: v.holds for v in only_the_last.claims(s, runs)}
    assert not holds.pop("two_drops_same_effective_lr")
    assert len(holds) == 7
    assert all(holds.values())
    (table,) = only_the_last.tables(s, runs)
    assert "lr 1, 0.3, 0.1" in table
    only_the_last.figure(s, runs, tmp_path / "last.png")
    means = only_the_last.smooth(Series(np.arange(25), np.arange(25)[None] ** 2))
    assert means.times.tolist() == [4.5, 14.5]
    assert means.values.tolist() == [[28.5, 218.5]]


def test_spikes_and_the_edge_before_them(tmp_path):
    s = tiny("full_batch", steps=2000, every=25)
    arms = [None, None]
    loss = np.full((2, 2000), 0.01)
    loss[0, 1200:1240] = 3.0
    loss[1, 900:940] = 3.0
    times, steps = 25 * np.arange(80), np.arange(1, 2001)
    edge = np.full((2, 80), 1.0)
    edge[:, [35, 47]] = 2.3
    square = np.exp(-0.002 * times) * np.ones((2, 1))
    metrics = dict(loss=(steps, loss), edge=(times, edge), square_norm=(times, square))
    spiky = known(arms[0], **metrics)
    assert [x[0].start for x in full_batch.spikes_of(spiky)] == [1200, 900]
    np.testing.assert_allclose(full_batch.edge_before(spiky), 2.3)
    rising = times, np.where(np.arange(80) == 48, 900.0, edge)
    late = known(arms[0], **metrics | {"edge": rising})
    np.testing.assert_allclose(full_batch.edge_before(late), 2.3)
    np.testing.assert_allclose(full_batch.shrinking(s, spiky), 0.002)
    loss = np.full((1, 2000), 0.01)
    loss[0, 150:190] = 3.0
    early = known(arms[0], loss=(steps, loss), square_norm=(times, square[:1]))
    assert np.isnan(full_batch.shrinking(s, early)).all()
    falling = steps, np.linspace(2, 1, 2000) * np.ones((2, 1))
    calm = known(arms[1], **metrics | {"loss": falling})
    spikeless = full_batch.claims(s, {"decay": calm, "none": calm})
    assert not any(v.holds for v in spikeless if "sharpness" in v.claim)
    runs = {"decay": spiky, "none": calm}
    holds = {v.claim: v.holds for v in full_batch.claims(s, runs)}
    assert holds["decay_makes_spikes"]
    assert holds["none_without_decay"]
    assert holds["no_step_up_without_decay"]
    assert holds["lr_times_sharpness_before_a_spike"]
    (table,) = full_batch.tables(s, runs)
    assert "900 to 1200" in table
    full_batch.figure(s, runs, tmp_path / "spikes.png")


# ---- whole studies, small


def test_gradient_descent_is_measured_at_every_step(rundir):
    s = tiny("full_batch", steps=4, every=2, train_size=16, seeds=2)
    runs = full_batch.simulate(s, rundir, nets.build_task(s))
    assert runs["none"].loss.values.shape == (2, 4)
    assert runs["none"].edge.times.tolist() == [0, 2]
    assert runs["decay"].edge.values.min() > 0
    shorter = runs["none"].square_norm.values - runs["decay"].square_norm.values
    assert shorter[:, 1].min() > 0


def test_averages_of_weights_and_of_predictions(rundir, capsys, monkeypatch):
    """The second time everything is read."""
    monkeypatch.setattr(nets, "report", lambda *_: None)  # tested above
    s = tiny("swa", lrs=(0.1, 0.2), decays=(0.5, 0.5), memories=1.0, steps=60)
    s = dataclasses.replace(s, every=2, seeds=4).checked()
    task = nets.build_task(s)
    runs = swa.simulate(s, rundir, task)
    short, long = runs["0.1"], runs["0.05"]
    assert long["time"].tolist() == list(range(0, 22, 2))
    assert short["time"].tolist() == list(range(0, 12, 2))
    np.testing.assert_allclose(long["aligned"][:, 0], 1, rtol=1e-5)
    assert long["aligned"][:, -1].max() < 0.95
    assert np.all(short["apart_averaged"] < short["apart_single"])
    assert np.all(short["average_test_loss"] < short["single_test_loss"])
    assert short["apart_single"].shape == short["two_runs_test_loss"].shape == (2,)
    verdicts = list(swa.claims(s, runs))
    assert len(verdicts) == 8
    assert sum("total variation" in text for text in swa.tables(s, runs)) == 2
    swa.figure(s, runs, rundir.figure("swa"))
    capsys.readouterr()
    again = swa.simulate(s, rundir, task)
    assert list(swa.claims(s, again)) == verdicts
    assert "t =" not in capsys.readouterr().err


def test_the_sphere_whole(rundir, tmp_path):
    s = tiny("sphere", lrs=(0.4,), decays=(0.1,), starts=(2.0,), seeds=64)
    s = dataclasses.replace(s, looks=4, bound=20.0).checked()
    runs = sphere.simulate(s, rundir)
    verdicts = list(sphere.claims(s, runs))
    assert [v.claim.rpartition("_0.4")[0] for v in verdicts] == [
        "equilibrium",
        "closed_form_at_every_time",
        "sde_has_the_loss",
    ]
    assert verdicts[0].holds
    (table,) = sphere.tables(s, runs)
    assert "lr 0.4, decay 0.1" in table
    sphere.figure(s, runs, tmp_path / "sphere.png")
