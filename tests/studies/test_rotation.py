"""experiments.intrinsic_lr.rotation: arms, angles, and verdicts on known runs."""

import dataclasses

import numpy as np
import pytest

from configs.intrinsic_lr import PRESETS
from experiments.intrinsic_lr import angles, nets, rotation
from optsde.dynamics.discrete import State
from optsde.run import Series
from optsde.study import RunDir, UsageError
from optsde.study.runs import ArmRuns, Runs

TINY = dict(
    steps=40,
    every=20,
    turn_every=10,
    seeds=2,
    train_size=64,
    test_size=40,
    judged=64,
    statistics=64,
    options={"hidden": (8, 8)},
    known_false=(),
)


def tiny(**changes):
    settings = PRESETS["rotation"].settings
    return dataclasses.replace(settings, **(TINY | changes)).checked()


def test_the_angle_is_that_of_single_steps():
    """Turned by 60° at step 10 and by 10⁻³ at 11, whatever the lengths are."""
    probe = angles.turns(tiny())
    assert probe.times == [10, 11, 20, 21, 30, 31]

    def at(angle, length):
        params = {"w": length * np.array([[np.cos(angle), np.sin(angle)]])}
        return State(0, None, params, None, None)

    memory, seen = probe.init(at(0.0, 3.0)), []
    for angle, length in ((np.pi / 3, 2.0), (np.pi / 3 + 1e-3, 5.0)):
        metrics, memory = probe.observe((), at(angle, length), memory)
        seen.append(metrics["turn"])
    np.testing.assert_allclose(np.ravel(seen), [np.pi / 3, 1e-3], rtol=1e-4)
    run = ArmRuns(None, {"turn": Series(np.array([10, 11]), np.stack(seen)[None])})
    times, found = angles.angle(run)
    assert times.tolist() == [11]
    np.testing.assert_allclose(found, [[[1e-3]]], rtol=1e-4)


def known(s, angles, losses):
    """Runs in which each arm turns by these angles and ends with this loss."""
    times, turning = np.array([0, 20, 40]), np.array(s.turning()) + 1
    jitter = 1 + 1e-3 * np.array([-1.0, 1.0])[:, None]
    runs = {}
    for arm in rotation.arms(s):
        loss = Series(times, losses[arm.name] * jitter * np.ones(3))
        layers = np.multiply(angles[arm.name], [1.0, 1.02])
        seen = layers * jitter[..., None] * np.ones((len(turning), 1))
        metrics = dict.fromkeys(nets.LOSSES, loss) | {"angle": Series(turning, seen)}
        runs[arm.name] = ArmRuns(arm, metrics)
    return Runs(runs)


def test_verdicts_on_known_angles(tmp_path):
    s = tiny()
    foreseen = rotation.predictions(s)
    names = list(foreseen)
    losses = dict.fromkeys(names, 1.0) | {names[5]: 0.5}
    angles = foreseen | {names[-1]: 1.0, names[2]: 1.2 * foreseen[names[2]]}
    runs = known(s, angles, losses)
    verdicts = {v.claim: v for v in rotation.claims(s, runs)}
    wrong = {"adamw_3_layer_1_turns_as_foreseen", "adamw_3_layer_2_turns_as_foreseen"}
    assert {name for name, v in verdicts.items() if not v.holds} == wrong
    found = verdicts["adamw_3_layer_2_turns_as_foreseen"]
    np.testing.assert_allclose(found.value, 22.4, atol=0.1)
    assert verdicts["arm_6_of_another_timescale_differs"].holds
    assert verdicts["rescaled_run_4_is_run_3"].holds
    assert not verdicts["adam_l2_8_layers_turn_alike"].expected
    assert len(verdicts) == 7 * 2 + 8 + 1 + 2 + 2 + 1
    (table,) = rotation.tables(s, runs)
    assert "initial × 4" in table
    rotation.figure(s, runs, tmp_path / "rotation.png")
    runs = known(s, angles, losses | {names[3]: 1.01, names[4]: 1.2})
    holds = {v.claim: v.holds for v in rotation.claims(s, runs)}
    assert not holds["rescaled_run_4_is_run_3"]
    assert not holds["arm_5_of_the_same_timescale_same_train_loss"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(betas=(0.9,) * 8), "betas=.*: needs 0 where families has sgd"),
        (dict(lrs=(9.0,) * 8), "times decays below 0.1"),
        (dict(turn_every=39), "turn_every=39: needs an angle in the later part"),
        (dict(families=("adam",) * 8), "families=.*: needs one of sgd, heavy_ball"),
        (
            dict(
                families=("sgd",) * 2,
                lrs=(0.1,) * 2,
                decays=(0.1,) * 2,
                betas=(0.0,) * 2,
                scales=(1.0,) * 2,
            ),
            "needs arms that all differ",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        tiny(**changes)


@pytest.mark.full
def test_adamw_sees_directions_alone(tmp_path, monkeypatch):
    """lr × 4, decay ÷ 4, initial weights × 4: angles and losses are the same bits."""
    monkeypatch.setattr(nets, "report", lambda *_: None)  # tested elsewhere
    s = tiny(
        families=("adamw",) * 3,
        lrs=(0.01, 0.04, 0.04),
        decays=(0.3, 0.075, 0.075),
        betas=(0.9,) * 3,
        scales=(1.0, 4.0, 1.0),
    )
    rundir = RunDir(tmp_path / "run", "intrinsic_lr", {})
    rundir.begin()
    first, rescaled, other = rotation.simulate(s, rundir, nets.build_task(s)).values()
    for name in nets.LOSSES:
        np.testing.assert_array_equal(first[name].values, rescaled[name].values)
    np.testing.assert_array_equal(first.angle.values, rescaled.angle.values)
    assert first.angle.values.shape == (2, 3, 2)
    assert np.abs(first.angle.values - other.angle.values).max() > 1e-3
    squares = 16 * first.square_norm.values
    np.testing.assert_array_equal(squares, rescaled.square_norm.values)
