"""experiments.scaling.classes: noise under each remedy, verdicts of known outcome."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import scaling as configs
from experiments.scaling import classes
from optsde import measure
from optsde.gradients import Draw
from optsde.run import Series
from optsde.study import ArmRuns, RunDir, Runs, UsageError
from optsde.study.tasks import build_task


def tiny(**changes):
    small = dict(options=dict(hidden=(8,)), train_size=300, seeds=4, imbalance=0.1)
    small |= dict(horizon=32.0, evaluations=4, kappas=(2, 8)) | changes
    return dataclasses.replace(configs.PRESETS["rare_classes"].settings, **small)


def test_settings_that_cannot_run_are_refused():
    for changes, says in (
        (dict(remedies=("weighted",)), "'none' among them"),
        (dict(kappas=(3,)), "kappas=3: needs whole steps in"),
    ):
        with pytest.raises(UsageError, match=says):
            tiny(**changes).checked()


def class_statistics(s, task, params):
    found, _ = classes.of_classes(s, task).observe(task.train, _State(params), ())
    return np.asarray(found["squares"]), np.asarray(found["products"])


@dataclasses.dataclass
class _State:
    params: object


@pytest.mark.full
@pytest.mark.parametrize("remedy", classes.REMEDIES)
def test_signal_and_noise_are_those_of_the_draws(remedy):
    """The closed form agrees with what draws of the sampler itself show, to 4 s.e."""
    s = tiny()
    task = build_task(s)
    params = task.init(jax.random.key(0))
    counts = np.bincount(np.asarray(task.train[1]))
    q, w = classes.chances(counts, remedy)
    np.testing.assert_allclose(q @ w, 1.0)
    batch = 4
    signal, noise = classes.signal_and_noise(
        q, w, *class_statistics(s, task, params), batch
    )
    oracle = classes.sampler_of(task, remedy)(batch)
    draw = Draw(jax.random.key(1), jnp.int32(0), 0.0)
    seen = measure.gradient_noise(oracle, params, draw, draws=4096).total()
    assert abs(seen.signal - signal) < 4 * seen.signal_se
    assert abs(seen.noise - noise) < 4 * seen.noise_se


def test_weights_and_draws_have_one_mean_gradient():
    """And the noise of weights is above that of draws wherever classes are unequal."""
    rng = np.random.default_rng(0)
    means, counts = rng.normal(size=(6, 20)), np.array([50, 30, 20, 10, 5, 1])
    squares, products = np.sum(means**2, axis=1) + 3.0, means @ means.T
    found = {}
    for remedy in ("oversampled", "weighted"):
        q, w = classes.chances(counts, remedy)
        found[remedy] = classes.signal_and_noise(q, w, squares, products, 2)
    np.testing.assert_allclose(found["weighted"][0], found["oversampled"][0])
    equal = np.ones(6) / 6
    share = counts / counts.sum()
    more = (squares @ (equal**2 / share) - squares @ equal) / 2
    gain = found["weighted"][1] - found["oversampled"][1]
    np.testing.assert_allclose(gain, more)
    assert more > 0


def test_verdicts_of_known_outcome(tmp_path):
    s = tiny(seeds=8, kappas=(2,))
    noise = 1 + 0.001 * np.linspace(-1, 1, 8)[:, None]
    changes = {"none": (0.2, 0.02), "oversampled": (0.1, 0.0), "weighted": (-0.3, 0.0)}
    changes["larger"] = 0.25, 0.0
    times, runs = s.every * np.arange(5), {}
    for remedy in s.remedies:
        for arm in classes.arms(s, remedy):
            share = (arm.plan.dt > 1) * np.array(changes[remedy])
            metrics = {
                group: Series(times, noise * (1 + x) + np.zeros(5))
                for group, x in zip(classes.GROUPS, share, strict=True)
            }
            runs[arm.name] = ArmRuns(arm, metrics)
    counts = np.array([50, 30, 20, 10, 5, 5, 5])
    squares = np.ones((8, 1, 7)) * np.array([1, 1, 1, 1, 2, 2, 2]) * noise[:, None]
    products = 0.01 * np.ones((8, 1, 7, 7))
    runs["none/1"].metrics["squares"] = Series(times[:1], squares)
    runs["none/1"].metrics["products"] = Series(times[:1], products)
    outcome = classes.Outcome(counts, Runs(runs))
    verdicts = {v.claim: v for v in classes.claims(s, outcome)}
    failing = {name for name, v in verdicts.items() if v.outcome == "fails"}
    assert failing == {
        "none_rare_hold_at_2",
        "oversampled_rare_hold_at_2",
        "weighted_rare_hold_at_2",
        "larger_rare_hold_at_2",
        "weighted_bring_rare_nearer_at_2",
    }
    holding = {name for name, v in verdicts.items() if v.outcome == "holds"}
    assert verdicts.keys() == failing | holding
    share = verdicts["rare_have_more_of_v"]
    np.testing.assert_allclose(share.value, 100 * (30 / 140 - 15 / 125))
    gap = verdicts["rare_further_off_than_common_at_2"]
    np.testing.assert_allclose(gap.value, 18.0)
    texts = list(classes.tables(s, outcome))
    assert "+20.0 [+20" in texts[1]
    classes.figure(s, outcome, tmp_path / "figure.png")


@pytest.mark.full
def test_classes_are_run(tmp_path):
    s = tiny(remedies=("none", "oversampled"), kappas=(2,)).checked()
    outcome = classes.simulate(s, RunDir(tmp_path, "scaling", {}), build_task(s))
    assert list(outcome.runs) == ["none/1", "none/2", "oversampled/1", "oversampled/2"]
    assert outcome.runs["none/1"].products.values.shape == (4, 3, 10, 10)
    assert len(list(classes.claims(s, outcome))) == 1 + 4 + 2
