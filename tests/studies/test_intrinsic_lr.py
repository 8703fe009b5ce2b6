"""experiments.intrinsic_lr: checks, arms, exact rescaling, verdicts on known curves."""

import numpy as np
import pytest

from configs import intrinsic_lr as configs
from experiments.intrinsic_lr import (
    PACKAGE,
    decay,
    equilibrium,
    full_batch,
    runs,
    same_product,
    swa,
)
from experiments.intrinsic_lr.runs import Arm, sgd
from experiments.intrinsic_lr.setting import build, shifted
from experiments.launch import UsageError
from experiments.rundir import RunDir

TINY = dict(
    seeds=2, train_size=64, test_size=40, judged=64, statistics=64, steps=40, every=20
)

LATE = dict(steps=20_000, every=100)


def tiny(preset, **changes):
    config = configs.get_config(preset).unlock()
    config.update({k: v for k, v in (TINY | changes).items() if k in config})
    if "options" in config and "options" not in changes:
        config.options.hidden = (8, 8)
    return config


@pytest.mark.parametrize("preset", configs.PRESETS)
def test_presets_pass_their_own_checks(preset):
    PACKAGE.check(configs.get_config(preset))


@pytest.mark.parametrize(
    ("preset", "changes", "says"),
    [
        ("equilibrium", dict(seeds=1), "seeds=1: needs at least 2"),
        ("equilibrium", dict(draws=20), "draws=20: needs a multiple of 8 from 16 on"),
        ("equilibrium", dict(steps=50), "steps=50: needs a multiple of every = 20"),
        ("equilibrium", dict(decays=(0.1,)), "needs as many numbers as lrs has, 3"),
        ("equilibrium", dict(weigh_every=7), "needs a number that divides every = 20"),
        ("equilibrium", dict(augment="flip"), "augment=flip: needs one of"),
        ("equilibrium", dict(model="mpl"), "model=mpl: model 'mpl' is none of"),
        (
            "same_product",
            dict(lrs=tuple(range(1, 10)), decays=(0.03,) * 9),
            "another arm of the first one's product",
        ),
        ("equilibrium", dict(seed=-1), "seed=-1: needs an integer from 0"),
        ("equilibrium", dict(options=dict(hidden=())), "needs one or more widths"),
        ("decay", dict(factor=1.5), "factor=1.5: needs a number between 0 and 1"),
        ("decay", dict(LATE, drop_at=300), "at least four looks, 400 steps"),
        ("swa", dict(seeds=5), "seeds=5: needs an even number from 4 on"),
        ("decay", dict(drop_at=80), "at least 2.5/λ_e′ = 25000 steps after drop_at"),
        ("only_the_last", dict(LATE, middle_lr=2.0), "a number from lr to large_lr"),
        ("swa", dict(memories=100.0, seeds=4), "100000 steps, in the last 80%"),
        ("full_batch", dict(steps=40), "steps=40: needs at least 1000"),
        ("momentum", dict(betas=(0.0, 1.0, 0.9, 0.9)), "needs 4 numbers 0 ≤ β < 1"),
        ("sphere", dict(lrs=(2.0, 0.1, 0.1, 0.1)), "times decays below 0.1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(preset, changes, says):
    with pytest.raises(UsageError, match=says.replace(".", r"\.")):
        PACKAGE.check(tiny(preset, **changes))


def test_drops_take_effect_where_they_are_said_to():
    arm = Arm("a", sgd(1.0, 0.01), drops=((20, 0.3), (40, 0.1)))
    assert [arm.at(step).lr for step in (0, 19, 20, 39, 40)] == [1, 1, 0.3, 0.3, 0.1]
    assert arm.at(50).weight_decay == 0.01
    optimizers, scales = runs.members_of([arm, Arm("b", sgd(2.0, 0.02), 4.0)], 2, 20)
    np.testing.assert_allclose(optimizers.lr, [0.3, 0.3, 2, 2])
    np.testing.assert_allclose(scales, [1, 1, 4, 4])


def test_shifts_are_those_of_a_padded_image():
    images = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3, 1)
    found, labels = shifted((images, np.array([5, 6])))
    np.testing.assert_array_equal(found[:2], images)
    assert labels.tolist() == [5, 6] * 9
    distinct = {tuple(x.ravel().tolist()) for x in found[::2]}
    assert len(distinct) == 9
    right = np.array([[0, 0, 1], [3, 3, 4], [6, 6, 7]], np.uint8)  # edges repeated
    assert tuple(right.ravel().tolist()) in distinct


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(config, arms, curves, run directory) of four arms, with noise at the last look.

    The second is the first with lr × 4, decay ÷ 4, initial weights × 2.
    """
    config = tiny(
        "same_product",
        lrs=(0.1, 0.4, 0.1, 0.2),
        decays=(0.5, 0.125, 0.5, 0.5),
        scales=(1.0, 2.0, 4.0, 1.0),
    )
    config.update(lr_bound=1e-3, draws=16, weigh_every=20)
    PACKAGE.check(config)
    rundir = RunDir(tmp_path_factory.mktemp("runs"), "intrinsic_lr", {})
    setting = build(config)
    arms = same_product.arms_of(config)
    curves = runs.train_arms(config, setting, rundir, arms, lambda step: step == 40)
    return config, arms, curves, rundir


def test_a_rescaled_run_is_the_same_run(trained):
    """Bit for bit, since all factors are powers of 2; the norm is twice as large."""
    config, arms, curves, _ = trained
    first, rescaled, other = (curves[arm.name] for arm in arms[:3])
    for name in runs.JUDGED:
        np.testing.assert_array_equal(first[name], rescaled[name])
        assert np.ptp(first["train_loss"], axis=1).min() > 0.1
    np.testing.assert_array_equal(4 * first["square"], rescaled["square"])
    np.testing.assert_array_equal(first["noise"][:, -1], rescaled["noise"][:, -1])
    assert np.isnan(first["noise"][:, 0]).all()
    assert np.abs(first["train_loss"] - other["train_loss"])[:, -1].min() > 1e-3
    assert same_product.is_rescaled(arms[1], arms[0])
    assert not same_product.is_rescaled(arms[2], arms[0])
    verdicts = {v.claim: v for v in same_product.judge(config, arms, curves, 20)}
    assert verdicts["rescaled_run_2_is_the_first"].holds
    assert verdicts["same_product_2_same_effective_lr"].holds
    assert not verdicts["same_product_3_same_effective_lr"].holds
    assert "other_product_0.1_differs_4" in verdicts


def test_finished_arms_are_read_and_not_run(trained):
    config, arms, curves, rundir = trained
    again = runs.train_arms(config, None, rundir, arms)
    for name, value in again[arms[0].name].items():
        np.testing.assert_array_equal(value, curves[arms[0].name][name])


def test_a_net_that_is_not_invariant_is_refused():
    config = tiny("equilibrium", model="mlp")
    config.options = {"hidden": ()}
    setting = build(config)
    with pytest.raises(UsageError, match="Dense_0/kernel are not scale invariant"):
        runs.report(config, setting, Arm("a", sgd(0.1, 0.1)))


def stationary(arm, factor=1.0, signal=10.0, noise=90.0):
    """Curves at equilibrium, with an effective lr `factor` times the predicted one."""
    steps = np.arange(0, 41, 20)
    rate = arm.optimizer.lr * arm.optimizer.weight_decay
    lr = factor * np.sqrt(rate * (2 - rate) / (signal + noise))
    level = arm.optimizer.lr / lr * (1 + 1e-3 * np.arange(3)[:, None])
    flat = np.ones((3, len(steps)))
    losses = dict.fromkeys(runs.JUDGED, flat)
    return losses | {
        "square": level * flat,
        "signal": signal * flat,
        "noise": noise * flat,
        "step": steps,
    }


def test_verdicts_on_the_equilibrium():
    config, arm = tiny("equilibrium"), Arm("0.001", sgd(0.1, 0.01))
    right, without = equilibrium.judge(config, arm, stationary(arm), 20)
    assert right.holds
    assert abs(right.value) < 0.2
    np.testing.assert_allclose(without.value, 100 * (0.9**0.5 - 1), atol=0.2)
    assert not without.holds
    assert not without.expected
    wrong, _ = equilibrium.judge(config, arm, stationary(arm, 1.05), 20)
    assert not wrong.holds
    np.testing.assert_allclose(wrong.value, 5, atol=0.2)


def test_verdicts_on_a_drop():
    """The effective lr goes to .4, as noise falls to 1/1.6; the loss 1, .2, .3."""
    config = configs.get_config("decay").unlock()
    steps = np.arange(0, config.steps + 1, config.every)
    arm = Arm("drop", sgd(config.lr, config.decay), drops=((config.drop_at, 0.01),))
    time = (steps - config.drop_at) / 10_000
    jitter = 1 + 0.01 * np.linspace(-1, 1, 4)[:, None]
    gain = np.where(time < 0, config.lr, 0.1 * config.lr)
    lrs = np.where(time < 0, 1.0, 0.1 + 0.3 * np.clip(time, 0, 1))
    loss = np.select([time <= 0, time < 0.7], [1.0, 0.2], 0.3) * jitter
    push = np.where(time <= 0, 100.0, 62.5) + 0 * jitter
    curves = dict.fromkeys(runs.JUDGED, loss) | {
        "square": gain / (1e-3 * lrs) + 0 * jitter,
        "signal": 0.1 * push,
        "noise": 0.9 * push,
        "step": steps,
    }
    found = decay.Windows(config, arm, curves, 10_000)
    np.testing.assert_allclose(found.settled().mean, 0, atol=1e-9)
    verdicts = {v.claim: v for v in found.verdicts()}
    assert all(v.holds for v in verdicts.values())
    np.testing.assert_allclose(verdicts["test_loss_rises_again"].value, 50, rtol=1e-6)
    np.testing.assert_allclose(verdicts["test_loss_falls_first"].value, 400, rtol=1e-6)
    curves = curves | {"signal": 2 * curves["signal"], "noise": 2 * curves["noise"]}
    curves["noise"] = np.where(time <= 0, curves["noise"] / 2, curves["noise"])
    verdicts = decay.Windows(config, arm, curves, 10_000).verdicts()
    assert not {v.claim: v for v in verdicts}["settles_where_the_noise_says"].holds


def test_spikes_and_the_edge_before_them():
    config = tiny("full_batch", steps=2000)
    config.every = 25
    loss = np.full((2, 2000), 0.01)
    loss[0, 1200:1240] = 3.0
    loss[1, 900:940] = 3.0
    edge = np.full((2, 80), 1.0)
    edge[:, [35, 47]] = 2.3
    square = np.exp(-0.002 * 25 * np.arange(80)) * np.ones((2, 1))
    curves = {"loss": loss, "edge": edge, "square": square}
    assert [s[0].start for s in full_batch.spikes_of(curves)] == [1200, 900]
    np.testing.assert_allclose(full_batch.edge_before(config, curves), 2.3)
    late = curves | {"edge": np.where(np.arange(80) == 48, 900.0, edge)}
    np.testing.assert_allclose(full_batch.edge_before(config, late), 2.3)
    np.testing.assert_allclose(full_batch.shrinking(config, curves), 0.002)
    early = {"loss": np.full((1, 2000), 0.01), "square": square[:1]}
    early["loss"][0, 150:190] = 3.0
    assert np.isnan(full_batch.shrinking(config, early)).all()
    calm = {"loss": np.linspace(2, 1, 2000) * np.ones((2, 1))}
    spikeless = full_batch.judge(
        config, {"decay": curves | calm, "none": curves | calm}
    )
    assert not any(v.holds for v in spikeless if "sharpness" in v.claim)
    verdicts = full_batch.judge(config, {"decay": curves, "none": curves | calm})
    holds = {v.claim: v.holds for v in verdicts}
    assert holds["decay_makes_spikes"]
    assert holds["none_without_decay"]
    assert holds["no_step_up_without_decay"]
    assert holds["lr_times_sharpness_before_a_spike"]


def test_averages_of_weights_and_of_predictions(tmp_path, capsys, monkeypatch):
    """All of the study, small; the second time everything is read."""
    monkeypatch.setattr(runs, "report", lambda *_: None)  # tested above
    config = tiny("swa", lrs=(0.1, 0.2), decays=(0.5, 0.5), memories=1.0, steps=60)
    config.every, config.seeds = 2, 4
    PACKAGE.check(config)
    rundir = RunDir(tmp_path / "run", "intrinsic_lr", {})
    rundir.begin()
    verdicts = swa.run(config, rundir)
    held = rundir.curves()
    assert held["0.05/time"].tolist() == list(range(0, 22, 2))
    assert held["0.1/time"].tolist() == list(range(0, 12, 2))
    np.testing.assert_allclose(held["0.05/turned"][:, 0], 1, rtol=1e-5)
    assert held["0.05/turned"][:, -1].max() < 0.95
    assert np.all(held["0.1/apart_averaged"] < held["0.1/apart_single"])
    singles = held["0.1/single/test_loss"]
    assert np.all(held["0.1/average/test_loss"] < singles)
    by_pair = held["0.1/apart_single"], held["0.1/two_runs/test_loss"]
    assert all(x.shape == (2,) for x in by_pair)
    assert len(verdicts) == 8
    assert rundir.figure("swa").stat().st_size > 10_000
    capsys.readouterr()
    assert swa.run(config, rundir) == verdicts
    assert "swa            t =" not in capsys.readouterr().err
