"""experiments.svag.whole: refused settings, verdicts of known outcome, a small run."""

import dataclasses

import numpy as np
import pytest

from configs import svag as configs
from experiments.svag import whole
from optsde.run import Series
from optsde.study import Arm, ArmRuns, RunDir, Runs, UsageError
from optsde.study.tasks import build_task


def settings(preset="whole_plain", **changes):
    return dataclasses.replace(configs.PRESETS[preset].settings, **changes)


@pytest.mark.parametrize(
    ("preset", "changes", "says"),
    [
        ("whole_plain", dict(kappas=(7,)), "kappas=7: needs whole steps in"),
        ("whole_plain", dict(sde_seeds=1), "sde_seeds=1: needs 0, or from 2 to"),
        ("whole_plain", dict(sde_seeds=17), "sde_seeds=17: needs 0, or from 2 to"),
        ("whole_masked", dict(sde_seeds=2), "0 where examples are augmented"),
        ("whole_plain", dict(group=16), "group=16: needs at most batch_size=8"),
        (
            "whole_plain",
            dict(schedule=dict(milestones=(480.0,))),
            "times before the horizon, 480",
        ),
    ],
    ids=str,
)
def test_settings_that_cannot_run_are_refused(preset, changes, says):
    with pytest.raises(UsageError) as error:
        settings(preset, **changes).checked()
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(group=1), "group=1: needs the size of ghost groups"),
        (dict(sde_seeds=2), "sde_seeds=2: needs 0: BatchNorm makes examples"),
    ],
    ids=str,
)
def test_batch_norm_needs_groups_and_has_no_sde(changes, says):
    s = settings("whole_batchnorm", **changes).checked()
    with pytest.raises(UsageError) as error:
        whole.sampler_of(s, build_task(s))
    assert says in str(error.value)


def test_published_plans_are_shown(capsys):
    whole.show_plans(settings("cifar10_preresnet32_sgd").checked())
    out = capsys.readouterr().out
    assert "SVAG ℓ = 8\n" in out
    assert "batch 1024 by the rule\n" in out


def runs_of(s, ends):
    """Accuracies that rise to `ends` of each arm, and a little noise of seeds."""
    times = s.every * np.arange(s.evaluations + 1)
    base = next(whole.arms(s))
    runs = {}
    for name, (start, end) in ends.items():
        seeds = s.sde_seeds if name.startswith("sde") else s.seeds
        noise = 0.1 * np.linspace(-1, 1, seeds)[:, None] * (1 + (name != "discrete"))
        values = noise + np.linspace(start, end, len(times))
        values[:, 0] = 10.0  # the same initial point counts for nothing
        runs[name] = ArmRuns(base, {"accuracy": Series(times, values)})
    return Runs(runs)


def test_verdicts_of_known_outcome(tmp_path):
    s = settings(ells=(2,), kappas=(4,))
    ends = dict(discrete=(50, 90), ell2=(52, 91), kappa4=(40, 86))
    ends |= dict(sde=(50, 91), sde_coarse=(50, 89))
    runs = runs_of(s, ends)
    verdicts = {v.claim: v for v in whole.claims(s, runs)}
    assert {name: v.outcome for name, v in verdicts.items()} == {
        "ell2_ends_alike": "holds",
        "kappa4_ends_alike": "fails",
        "sde_ends_alike": "holds",
        "ell2_alike_throughout": "holds",
        "kappa4_alike_throughout": "fails",
        "sde_alike_throughout": "holds",
        "sde_has_converged": "fails",
        "ell2_ends_as_sde": "holds",
    }
    np.testing.assert_allclose(verdicts["kappa4_ends_alike"].value, -4.0)
    np.testing.assert_allclose(verdicts["kappa4_alike_throughout"].value, -9.4)
    (text,) = whole.tables(s, runs)
    assert "-9.40 [-9" in text
    assert "at t = 48" in text
    whole.figure(s, runs, tmp_path / "figure.png")


def test_perplexity_is_that_of_a_token():
    s = settings("whole_causal")
    assert (s.bound, s.judged) == (0.5, "perplexity")
    loss = Series(np.array([0.0]), np.log([[8.0]]))
    run = ArmRuns(Arm("x", next(whole.arms(s)).plan), {"test_loss": loss})
    np.testing.assert_allclose(whole.perplexity(run).last, [8.0])


@pytest.mark.full
def test_whole_runs_share_their_initial_points(tmp_path):
    """An SDE's seeds are the first of those of the discrete runs."""
    s = settings(
        model="mlp",
        options=dict(hidden=(8,)),
        train_size=32,
        test_size=32,
        horizon=8.0,
        evaluations=2,
        schedule=dict(milestones=(4.0,)),
        ells=(2,),
        kappas=(2,),
        seeds=3,
        sde_seeds=2,
    ).checked()
    runs = whole.simulate(s, RunDir(tmp_path, "svag", {}), build_task(s))
    assert list(runs) == ["discrete", "ell2", "kappa2", "sde", "sde_coarse"]
    first = runs["discrete"].test_loss.values[:, 0]
    assert np.ptp(first) > 0
    for run in runs.values():
        losses = run.test_loss.values
        np.testing.assert_allclose(losses[:, 0], first[: len(losses)], rtol=1e-6)
        assert losses.shape[1] == 3
    assert len(list(whole.claims(s, runs))) == 8
