"""experiments.sweep.timescale: AdamW as an average, known optima, a small run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optsde
from configs.sweep import PRESETS
from experiments.sweep import optima, timescale
from optsde.study import RunDir, UsageError, build_task
from optsde.study.study import run


def settings(**changes):
    return dataclasses.replace(PRESETS["timescale"].settings, **changes).checked()


def test_weights_of_adamw_are_an_average_of_its_steps():
    """θ_k = (1 − 1/τ) θ_{k−1} + (1/τ) (−u_k/λ), τ = 1/(lr·λ), u Adam's direction."""
    lr, decay = 0.02, 0.5
    kinds = dict(lr=lr, b1=0.9, b2=0.99)
    adamw, adam = (
        optsde.Adam(**kinds, weight_decay=x).transform() for x in (decay, 0.0)
    )
    params = average = jnp.array([1.0, -2.0, 0.5])
    states = adamw.init(params), adam.init(params)
    for key in jax.random.split(jax.random.key(0), 64):
        grads = jax.random.normal(key, (3,))
        step, one = adamw.update(grads, states[0], params)
        plain, other = adam.update(grads, states[1], params)
        params, states = params + step, (one, other)
        average += lr * decay * (plain / lr / decay - average)
    np.testing.assert_allclose(params, average, rtol=1e-5)


def known(s, power=-1.0, noise=0.01):
    """Runs whose loss is a parabola in log2 λ, of best λ ∝ (lr · examples)^power.

    At the first case the best timescale is 6 epochs.
    """
    rng, runs = np.random.default_rng(0), {}
    first = timescale.cases(s)[0].pace
    for case in timescale.cases(s):
        place = np.log2(6) - (1 + power) * np.log2(case.pace / first)
        away = np.log2(s.timescales) - place
        loss = np.exp(0.1 * away**2)
        runs[case] = loss + noise * rng.normal(size=(s.seeds, len(loss)))
    return runs


@pytest.mark.parametrize("power", [-1.0, -0.7, 0.0])
def test_the_exponent_is_that_of_the_best_decay(power):
    s = settings(bound=8.0)
    runs = known(s, power, noise=0.001)
    slope = optima.exponent(s.timescales, runs)
    np.testing.assert_allclose(slope.mean, power, atol=0.01)
    assert slope.se < 0.01
    best = optima.best_timescales(s.timescales, runs)
    np.testing.assert_allclose(best.mean[0], np.log2(6), atol=0.02)
    verdicts = {v.claim: v for v in timescale.claims(s, runs)}
    assert verdicts["best_decay_falls_as_1_over_lr_times_examples"].holds == (
        power == -1
    )
    costs = verdicts["first_timescale_is_as_good_as_the_best"]
    decay = verdicts["first_decay_is_worse_than_first_timescale"]
    assert (costs.holds, decay.holds) == (power == -1, power < -0.5)
    assert decay.fails == (power == 0)
    if power == 0:  # three doublings off: e^(.1 · 9), between the timescales about it
        assert 100 * (np.exp(0.9) - 1) < costs.value < 180


def test_an_optimum_at_an_end_of_the_list_is_none(tmp_path):
    s = settings(timescales=(8.0, 16.0, 32.0))
    runs = known(s)
    assert [v.outcome for v in timescale.claims(s, runs)] == ["open"] * 3
    [text] = timescale.tables(s, runs)
    assert text.count("at an end of the list") == 4
    timescale.figure(s, runs, tmp_path / "timescale.png")


def test_a_decay_beyond_the_list_is_not_judged():
    """A λ that is kept makes 3/4 of an epoch of 6, at eight times the examples."""
    s = settings(timescales=(2.0, 4.0, 8.0, 16.0))
    _, kept, decay = timescale.claims(s, known(s))
    assert (kept.outcome, decay.outcome) == ("holds", "open")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(sizes=(160, 330, 640, 1280)), "sizes=.*: needs multiples of batch_size"),
        (dict(lrs=(0.02, 0.01, 0.01, 0.01)), "sizes=.*times lrs, numbers that differ"),
        (dict(timescales=(0.1, 1.0, 2.0)), "timescales=.*each longer than a step"),
        (dict(epochs=2**31 - 1), "epochs=2147483647: needs at most 2147483647 steps"),
        (dict(seeds=2), "seeds=2: needs at least 3"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        settings(**changes)


@pytest.mark.full
def test_a_small_run_is_judged_drawn_and_read_again(tmp_path, capsys):
    s = settings(
        sizes=(32, 64),
        lrs=(0.01, 0.01),
        timescales=(1.0, 2.0, 4.0),
        options={"hidden": (8,)},
        batch_size=8,
        epochs=2,
        seeds=3,
        test_size=32,
    )
    verdicts = run(timescale.study, s, RunDir.open(tmp_path, "sweep", s.config()))
    assert len(verdicts) == 3
    assert (tmp_path / "figures" / "timescale.png").is_file()
    capsys.readouterr()
    again = run(timescale.study, s, RunDir.open(tmp_path, "sweep", s.config()))
    assert repr(again) == repr(verdicts)  # NaN is not equal to itself
    assert "read from" in capsys.readouterr().out
    too_many = dataclasses.replace(s, sizes=(32, 1600))
    with pytest.raises(UsageError, match="sizes=1600: needs at most the 1500"):
        timescale.simulate(too_many, None, build_task(too_many))
