"""experiments.descent: recursions by hand, verdicts of known outcome, command."""

import dataclasses
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT

import optsde
from configs.descent import PRESETS
from experiments import descent
from experiments.descent import (
    PACKAGE,
    functions,
    held_out,
    l2_vs_weight_decay,
    methods,
    paths,
    schedules,
)
from optsde.plans.schedules import cosine
from optsde.study import RunDir
from optsde.study.study import choose, run
from optsde.study.tasks import build_task


def settings_of(preset, **changes):
    return dataclasses.replace(PRESETS[preset].settings, **changes).checked()


def study_of(preset, folder, **changes):
    """The verdicts of a study, whose figures are in folder/figures."""
    settings = settings_of(preset, **changes)
    rundir = RunDir.open(folder, "descent", settings.config())
    return run(choose(PACKAGE.studies, preset), settings, rundir)


def outcomes(verdicts):
    return {verdict.claim: verdict.holds for verdict in verdicts}


# ---- the updates, step by step

LR, STRIDE = 0.1, 0.3
CURVATURE = np.array([2.0, 6.0])  # of x² + 3y²


def recursion(name, x, steps=10):
    """Each method on the bowl, written from its paper."""
    points, m, s, v = [x], np.zeros(2), np.zeros(2), np.zeros(2)
    for t in range(1, steps + 1):
        g = CURVATURE * x
        if name == "gd":
            x = x - LR * g
        elif name == "momentum":
            m = 0.9 * m + g
            x = x - LR * m
        elif name == "nesterov":
            m = 0.9 * m + g
            x = x - LR * (g + 0.9 * m)
        elif name == "ema":
            m = 0.9 * m + 0.1 * g
            x = x - LR * m
        elif name == "adagrad":
            s = s + g**2
            x = x - 3 * STRIDE * g / (np.sqrt(s) + 1e-8)
        elif name == "rmsprop":
            v = 0.9 * v + 0.1 * g**2
            x = x - STRIDE * g / (np.sqrt(v / (1 - 0.9**t)) + 1e-8)
        elif name in ("adam", "adamw"):
            m = 0.9 * m + 0.1 * g
            v = 0.99 * v + 0.01 * g**2
            u = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
            x = x - STRIDE * (u + (0.3 * x if name == "adamw" else 0))
        elif name == "signsgd":
            x = x - STRIDE * np.sign(g)
        elif name == "lion":
            x = x - STRIDE * np.sign(0.9 * m + 0.1 * g)
            m = 0.99 * m + 0.01 * g
        points.append(x)
    return np.array(points)


@pytest.fixture(scope="module")
def ten_steps():
    """Every method on the bowl from the seminar's two starting points."""
    bowl = functions.FUNCTIONS["bowl"]
    assert (bowl.lr, bowl.stride, bowl.steps) == (LR, STRIDE, 10)
    named = methods.optimizers(methods.METHODS, bowl)
    named["ema"] = optsde.Momentum(lr=LR, beta=0.9)
    return bowl, paths.descend(bowl, named, bowl.starts, bowl.steps)


@pytest.mark.parametrize("name", [*methods.METHODS, "ema"])
def test_first_ten_steps_are_those_of_the_recursion(ten_steps, name):
    bowl, found = ten_steps
    for number, start in enumerate(bowl.starts):
        mine = recursion(name, np.array(start))
        np.testing.assert_allclose(found[name][number, 0], mine, rtol=1e-6, atol=1e-9)


def test_closed_forms(ten_steps):
    """(1 − ηλ)^t for descent; powers of a 2×2 matrix for the heavy ball."""
    bowl, found = ten_steps
    start, t = np.array(bowl.starts[0]), np.arange(11)[:, None]
    descent_path = start * (1 - LR * CURVATURE) ** t
    np.testing.assert_allclose(found["gd"][0, 0], descent_path, rtol=1e-12)
    for axis, curvature in enumerate(CURVATURE):
        step = np.array([[1 - LR * curvature, -LR * 0.9], [curvature, 0.9]])
        ball = [
            (np.linalg.matrix_power(step, k) @ [start[axis], 0])[0] for k in range(11)
        ]
        np.testing.assert_allclose(found["momentum"][0, 0, :, axis], ball, rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_adams_longest_step():
    """The bound is above all random gradients, and gradients that grow approach it."""
    adam = optsde.Adam(lr=1.0, b1=0.9, b2=0.999, eps=0.0)
    bound = methods.longest_step(adam.b1, adam.b2)
    assert 7.2 < bound < 7.3  # Kingma and Ba: 3.16, after zeros
    steps = 120
    random = np.random.RandomState(0).standard_t(1.5, size=(200, steps))
    after_zeros = np.where(np.arange(steps) < steps - 1, 1e-30, 1.0)
    growing = (adam.b2 / adam.b1) ** (np.arange(steps) - steps + 1.0)
    gradients = jnp.asarray(np.stack([growing, after_zeros, *random]))
    update = adam.transform()

    @jax.vmap
    def longest(sequence):
        def step(state, g):
            change, state = update.update(g, state, jnp.zeros(()))
            return state, jnp.abs(change)

        return jax.lax.scan(step, update.init(jnp.zeros(())), sequence)[1]

    seen = np.asarray(jax.jit(longest)(gradients))
    weight = 1 - adam.b2**steps  # of v so far: its bias correction shortens the step
    assert np.all(seen < bound)
    np.testing.assert_allclose(seen[0, -1], bound * weight**0.5, rtol=1e-4)
    single = (1 - adam.b1) / (1 - adam.b2) ** 0.5 * weight**0.5
    np.testing.assert_allclose(seen[1, -1], single, rtol=1e-4)


# ---- functions


@pytest.mark.parametrize("name", functions.FUNCTIONS)
def test_minima_are_minima_and_starts_inside(name):
    function = functions.FUNCTIONS[name]
    height = function.value(*function.grid()) - function.lowest
    assert height.min() >= 0
    for minimum, h in itertools.product(function.minima, (1e-3, -1e-3)):
        assert function.value(*minimum) == pytest.approx(function.lowest, abs=1e-12)
        for direction in np.eye(len(minimum)):
            assert function.value(*(minimum + h * direction)) > function.lowest
    for start in function.starts:
        for x, (low, high) in zip(start, function.domain, strict=True):
            assert low < x < high


# ---- studies


def test_noisy_trajectories(tmp_path):
    verdicts = study_of(
        "trajectories", tmp_path, function="noisy", methods=("gd", "adam"), seeds=16
    )
    held = outcomes(verdicts)
    assert held.pop("adam_longest_step")
    assert held.pop("adam_steps_are_about_lr")
    assert held == dict(gd_ends_lower=True, adam_ends_lower=True)
    assert all(v.low < v.high for v in verdicts[:2])


def test_one_coordinate_and_own_starts(tmp_path):
    changes = dict(function="parabola", start=(1.0, -2.0, 0.5), methods=("gd",))
    study_of("trajectories", tmp_path, **changes, steps=3)
    with np.load(tmp_path / "curves" / "paths.npz") as curves:
        start = np.array([1.0, -2.0, 0.5])[:, None]
        mine = start * 0.8 ** np.arange(4)
        np.testing.assert_allclose(curves["paths/gd"][:, 0, :, 0], mine, rtol=1e-12)


def test_animation(tmp_path):
    from PIL import Image

    changes = dict(frames=3, frames_per_second=2, methods=("gd", "adam"))
    study_of("animation", tmp_path, **changes)
    with Image.open(tmp_path / "figures" / "race.gif") as film:
        assert film.n_frames >= 3


def test_momentum_overshoots_and_descent_does_not(tmp_path):
    held = outcomes(study_of("overshoot", tmp_path))
    assert held["gd_never_passes"]
    assert held["momentum_passes"]
    assert held["begins_at_the_critical_beta"]
    assert held["nesterov_passes_less"]


def test_adagrad_remembers_and_rmsprop_forgets(tmp_path):
    """Seeds and bounds are those of the preset; a tenth of power of t."""
    held = outcomes(study_of("second_moment", tmp_path))
    assert held == dict(adagrad_grows_as_t=True, rmsprop_does_not_grow=True)


def test_sensitivity(tmp_path):
    held = outcomes(study_of("sensitivity", tmp_path))
    assert held == {"stable_below_2(1+β)/λ": True, "best_memory_is_critical": True}


SMALL = dict(train_size=96, steps=150, batch_size=32, seeds=6)


@pytest.mark.full
def test_l2_is_decay_for_sgd_and_not_for_adam(tmp_path, capsys):
    """Seeds 0 to 5; a factor 10^.25 of the best λ and 1% of loss, as in the preset."""
    changes = dict(optimizers=("sgd", "adam"), decays=(0.01, 0.1, 1.0, 10.0))
    verdicts = study_of("l2_vs_weight_decay", tmp_path, **SMALL, **changes)
    held = outcomes(verdicts)
    del held["adam_decoupled_is_better"]  # not a matter of principle
    assert held == dict(
        sgd_maps_are_one=True,
        sgd_optimum_stays=True,
        adam_optimum_moves=True,
        adam_exchange_costs=True,
    )
    assert verdicts[0].value < 1e-3
    capsys.readouterr()
    assert study_of("l2_vs_weight_decay", tmp_path, **SMALL, **changes) == verdicts
    assert f"adam: read from {tmp_path}" in capsys.readouterr().out


def test_maps_that_diverge_apart_are_not_one():
    loss = np.array([1.0, 2.0, 1.0, 2.0, 3.0, 3.0, 4.0, np.inf]).reshape(2, 1, 4)
    torn = np.where(loss == 4.0, np.nan, loss)
    assert l2_vs_weight_decay.largest_difference(np.stack([loss, loss])) == 0
    assert l2_vs_weight_decay.largest_difference(np.stack([loss, torn])) == np.inf


def test_choice_and_judgement_share_no_seed():
    loss = np.array([[1.0, 1.0, 9.0, 9.0], [2.0, 2.0, 2.0, 2.0], [np.nan] * 4])
    assert held_out.best(loss) == 0
    assert held_out.judged(loss)[0].tolist() == [9.0, 9.0]
    maps = np.stack([loss[None, :2], loss[None, 1::-1]])
    cost = l2_vs_weight_decay.cost_of_exchange(maps)
    np.testing.assert_allclose(cost.mean, 100 * (2 / 9 - 1))


@pytest.mark.full
def test_stacked_schedules_are_the_schedules_run_alone(tmp_path):
    """One ensemble of all kinds against cosine by itself; and every peak is 1."""
    kinds = schedules.all_schedules(150.0)
    times = np.arange(0, 150, 0.125)
    for kind in kinds.values():
        shape = np.broadcast_to(np.asarray(kind(times)), times.shape)
        assert shape.max() == pytest.approx(1, abs=1e-3)
        assert shape.min() >= 0
    changes = SMALL | dict(seeds=4, lrs=(0.01,))
    study_of("schedules", tmp_path, **changes)

    def plan_of(member):
        optimizer = optsde.HeavyBall(lr=member, beta=0.9)
        return optsde.Plan(
            optimizer=optimizer, batch_size=32, horizon=150, schedule=cosine(150.0)
        )

    settings = settings_of("schedules", **changes)
    task = build_task(settings)
    alone = held_out.train(settings, task, plan_of, jnp.array([0.01]))["loss"][0]
    with np.load(tmp_path / "curves" / "held_out.npz") as curves:
        mine = curves["held_out/loss"][list(kinds).index("cosine"), 0]
    np.testing.assert_allclose(mine, alone, rtol=1e-4)


# ---- the command


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_pass_their_own_checks(preset):
    settings = settings_of(preset)
    study = choose(PACKAGE.studies, settings.config().study)
    assert study.settings is type(settings)


def command(preset, *arguments):
    return [f"--config=configs/descent.py:{preset}", *arguments]


ALL_METHODS = "gd,momentum,nesterov,adagrad,rmsprop,adam,adamw,signsgd"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config.function=booth"], "needs one of bowl, parabola, rosenbrock"),
        (["--config.methods=gd,sgd"], "needs some of gd, momentum"),
        (["--config.start=1,2,3"], "needs 2 coordinates for each of at most 4 points"),
        (["--config.start=9.0,1.0"], "needs points in the domain of bowl, [-2.5, 2.5]"),
        (command("animation", "--config.function=parabola"), "of two coordinates"),
        (command("animation", f"--config.methods={ALL_METHODS}"), "at most 7, one"),
        (["--config.methods=gd,gd"], "each once"),
        (command("overshoot", "--config.betas=.5,.6,.7,.8"), "needs at most 3"),
        (command("overshoot", "--config.betas=0.3"), "needs one above 0.468"),
        (command("sensitivity", "--config.function=noisy"), "needs one of bowl"),
        (command("gd_2d", "--config.time=0.33"), "needs a multiple of shown"),
        (command("l2_vs_weight_decay", "--config.seeds=5"), "needs an even number"),
        (command("schedules", "--config.batch_size=512"), "at most 256 training"),
    ],
)
def test_bad_input_is_one_line(arguments, says, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    out = f"--workdir={tmp_path / 'run'}"
    monkeypatch.setattr(sys, "argv", ["descent", *arguments, out])
    with pytest.raises(SystemExit) as leaving:
        descent.main()
    assert leaving.value.code == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert "\n" not in error
    assert not (tmp_path / "run").exists()


def test_help_lists_presets_and_functions(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["descent", "--help"])
    with pytest.raises(SystemExit) as leaving:
        descent.main()
    assert leaving.value.code == 0
    text = capsys.readouterr().out
    for name in (*PRESETS, *functions.FUNCTIONS):
        assert f"  {name} " in text
