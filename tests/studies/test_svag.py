"""experiments.svag: settings, verdicts of known outcome, any net and any data."""

import dataclasses
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from configs import svag as configs
from experiments import svag
from experiments.svag import curves, quadratic
from optsde.analysis import Estimate
from optsde.optimizers import SGD
from optsde.study import RunDir, UsageError
from optsde.study.study import run

TINY = dict(
    optimizer=SGD(lr=0.1),
    seeds=2,
    sde_seeds=2,
    ells=(1, 2),
    small_batches=(4,),
    times=(2, 4),
    curve_every=2,
    train_size=20,
)
CONV = dict(dataset="digits", model="digitsnet", options=dict(norm="group"))
TEXT = dict(
    dataset="text",
    model="transformer",
    options=dict(depth=1, width=8, heads=2, length=8),
)


def settings(preset, **changes):
    return dataclasses.replace(configs.PRESETS[preset].settings, **changes)


@pytest.mark.parametrize("preset", configs.PRESETS)
def test_presets_pass_their_own_checks(preset):
    settings(preset).checked()


@pytest.mark.parametrize(
    ("preset", "changes", "says"),
    [
        ("digits", dict(ells=(2, 4)), "ells=2,4: needs 1 among them"),
        ("digits", dict(ells=(1, 2, 2)), "two or more distinct integers"),
        ("digits", dict(times=(0, 50)), "one or more rising positive integers"),
        ("digits", dict(times=(100, 50)), "one or more rising positive integers"),
        ("digits", dict(times=(55,)), "times=55: needs multiples of curve_every=10"),
        ("digits", dict(small_batches=(3,)), "needs whole steps in curve_every=10"),
        ("digits", dict(small_batches=(100,)), "kappa ≤ 10"),
        ("digits", dict(substeps=3), "substeps=3"),
        ("digits", dict(augment="live"), "augment=live: needs none: the SDE's noise"),
        ("quadratic", dict(horizon=0.3), "horizon=0.3: needs a multiple of eta²"),
        ("quadratic", dict(eta=2.0), "eta=2.0: needs 0 < eta ≤ 0.577"),
        ("quadratic", dict(optimizers=("sgd",)), "some of rmsprop, adam, adagrad"),
    ],
    ids=str,
)
def test_settings_that_cannot_run_are_refused(preset, changes, says):
    with pytest.raises((UsageError, ValueError)) as error:
        settings(preset, **changes).checked()
    assert says in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="mlp", marks=pytest.mark.full),
        pytest.param(TEXT, id="text", marks=pytest.mark.full),
        pytest.param(CONV, id="conv", marks=pytest.mark.full),
    ],
)
def test_any_net_on_any_data(changes, tmp_path, capsys):
    s = settings("digits", **(TINY | changes)).checked()
    task, rundir = curves.study.task(s), RunDir.open(tmp_path, "svag", s.config())
    rundir.begin()
    runs = curves.simulate(s, rundir, task)
    assert list(runs) == [
        "discrete",
        "ell2",
        "batch4",
        "sde",
        "sde_coarse",
        "gaussian",
    ]
    for curve in runs.values():
        assert curve.shape == (2, 3)
        assert np.ptp(curve[:, 0]) == 0  # one initial point for all seeds
    capsys.readouterr()
    again = curves.simulate(s, rundir, task)
    assert capsys.readouterr().out.count("read from") == 6
    np.testing.assert_array_equal(again["sde"], runs["sde"])


def test_costs_are_gradients_of_examples():
    """By hand: 2 runs of 20 steps of 8 examples are 320, an SDE's 5·20·50 5,000.

    Two of its five paths are run at half the step besides.
    """
    s = settings("digits_sgd", **TINY)
    s = dataclasses.replace(
        s,
        seeds=2,
        sde_seeds=5,
        sde_pairs=2,
        times=(20,),
        ells=(1, 2),
        small_batches=(),
        substeps=2,
    )
    rows = [line.split() for line in curves.costs(s, 50).splitlines()[2:]]
    plain, svag2, coarse, sde, gaussian = ([*row[-4:]] for row in rows)
    assert plain == ["2", "20", "8", "1"]
    assert svag2 == ["2", "40", "16", "4"]
    assert coarse == gaussian == ["5", "20", "50", f"{5000 / 320:.3g}"]
    assert sde == ["2", "40", "50", f"{4000 / 320:.3g}"]


def test_the_limit_of_an_sde_from_a_few_pairs():
    """Of 10⁴ repetitions the mean is 2·EX_{h/2} − EX_h, the error bars are right."""
    rng = np.random.default_rng(0)
    coarse = 1.0 + rng.normal(size=(24, 10_000))
    fine = coarse[:8] + 0.1 + 0.1 * rng.normal(size=(8, 10_000))
    found = curves.limit(coarse, fine)
    error = found.mean.std() / 100
    assert abs(found.mean.mean() - (2 * 1.1 - 1.0)) < 4 * error
    # The variance is 1/24 + 4·.01/8.
    np.testing.assert_allclose(found.mean.var(), 1 / 24 + 0.005, rtol=0.05)
    np.testing.assert_allclose((found.se**2).mean(), 1 / 24 + 0.005, rtol=0.02)
    every = curves.limit(coarse[:8], fine)
    np.testing.assert_allclose(every.mean, (2 * fine - coarse[:8]).mean(axis=0))


def test_batch_norm_is_refused():
    s = settings("digits", **TINY, model="digitsnet")
    with pytest.raises(UsageError, match="model=digitsnet: BatchNorm makes examples"):
        curves.dynamics(s, curves.study.task(s))


CONFIG = """
import jax.numpy as jnp
from experiments.svag import curves
from optsde import models
from optsde.optimizers import Adam
from optsde.run import Task
from optsde.study import Preset, presets

small = curves.Settings(optimizer=Adam(lr=0.01), batch_size=4, ells=(1, 2), times=(2,),
                        small_batches=(1,), curve_every=1, seeds=2, sde_seeds=2)
PRESETS = {"mine": Preset("two clouds of points", small)}
get_config = presets(PRESETS, "mine")

def task(config):
    points = jnp.linspace(-1, 1, 24).reshape(12, 2)
    examples = points, jnp.arange(12) // 6
    return Task(models.MLP((3, 2)), models.cross_entropy, examples, examples, points)
"""


@pytest.mark.full
def test_a_task_of_ones_own(tmp_path, monkeypatch, capsys):
    config, place = tmp_path / "mine.py", tmp_path / "run"
    config.write_text(CONFIG)
    argv = ["svag", f"--config={config}:mine", f"--workdir={place}"]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr("optsde.study.launch._prepare_devices", lambda *_: None)
    svag.main()
    out = capsys.readouterr().out
    for word in (
        "Itô SDE, mean gradient in v",
        "discrete_above_ell2",
        "batch1_matches",
    ):
        assert word in out
    assert (place / "figures" / "svag.png").stat().st_size > 10_000


def test_verdicts_of_known_outcome():
    """Losses 1, 1.3, 1.08, 1.02 and 1.01, and a little noise of seeds.

    The SDE is .995 and .99 at its two step sizes, so 1 in the limit.
    """
    s = settings("digits", ells=(1, 2, 4), small_batches=(2, 1), seeds=8, sde_seeds=8)
    noise = 0.001 * np.linspace(-1, 1, 8)[:, None]
    losses = dict(discrete=1.3, ell2=1.08, ell4=1.02, batch2=1.08, batch1=1.01)
    losses |= dict(sde=0.995, sde_coarse=0.99, gaussian=1.25)
    losses |= dict(sde_signal=1.29, sde_signal_coarse=1.28)
    runs = {n: x + noise + 0 * curves.grid(s) for n, x in losses.items()}
    verdicts = {v.claim: v for v in curves.claims(s, runs)}
    assert {claim for claim, v in verdicts.items() if not v.holds} == {
        "discrete_matches_sde",
        "discrete_matches_gaussian",
    }
    halving = verdicts["sde_has_converged"]
    np.testing.assert_allclose(halving.value, 100 * (0.99 / 0.995 - 1))
    at = curves.estimates(s, runs, s.times)
    gaps = [gap.mean[0] for gap in curves.reasons(at).values()]
    np.testing.assert_allclose(gaps, (30, 5, 25))
    assert list(verdicts) == [
        "sde_has_converged",
        "sde_signal_has_converged",
        "ell4_matches_sde",
        "discrete_matches_sde",
        "discrete_matches_gaussian",
        "discrete_matches_sde_with_signal",
        "discrete_above_ell2",
        "ell2_not_below_ell4",
        "batch2_matches_ell2",
        "batch2_gap_below_0.5_of_discrete",
        "batch1_gap_below_0.25_of_discrete",
    ]
    np.testing.assert_allclose(verdicts["discrete_matches_sde"].value, 30)
    slack = verdicts["batch1_gap_below_0.25_of_discrete"].value
    np.testing.assert_allclose(slack, 100 * (0.3 / 4 - 0.01))


def test_slopes_of_known_errors(tmp_path):
    """Errors η² and 1/ℓ² have slope 1; the largest of several moments counts."""
    s = settings("quadratic", optimizers=("adam",), eta=0.5, ells=(1, 2, 4))

    def moments(error):
        return Estimate(np.array([0.1 * error, -error]), np.full(2, 1e-4), np.inf)

    runs = {"adam_sde": moments(0.0)}
    runs |= {f"adam_eta{eta:g}": moments(eta**2) for eta in quadratic.etas(s)}
    runs |= {f"adam_ell{ell}": moments(1 / ell) for ell in s.ells}
    in_eta, in_ell = quadratic.claims(s, runs)
    assert in_eta.holds
    np.testing.assert_allclose((in_eta.value, in_ell.value), (1, 0.5), rtol=1e-3)
    assert not in_ell.holds
    (text,) = quadratic.tables(s, runs)
    assert "η = 0.25" in text
    quadratic.figure(s, runs, tmp_path / "figure.png")


def test_the_noisy_quadratic_is_run(tmp_path, capsys):
    """Few paths over one step of eta: all runs end near the start's mean."""
    s = settings(
        "quadratic",
        optimizers=("adam", "adagrad"),
        paths=1000,
        horizon=0.25,
        halvings=1,
        ells=(1, 2),
        substeps=2,
        bound=100.0,
    )
    rundir = RunDir.open(tmp_path, "svag", s.config())
    assert all(verdict.holds for verdict in run(quadratic.study, s.checked(), rundir))
    assert "largest error of 7 moments" in capsys.readouterr().out
    means = {k: x for k, x in rundir.curves().items() if k.endswith("mean")}
    assert len(means) == 2 * (1 + 2 + 2)
    assert all(jnp.isfinite(x).all() for x in means.values())
