"""experiments.catapults: every study in small, and numbers of known outcome."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optsde
from configs import catapults as configs
from experiments.catapults import (
    PACKAGE,
    batch,
    cycles,
    descent,
    fading,
    lemma,
    nets,
    pulses,
    small_batches,
    threshold,
    toy,
)
from experiments.catapults import ntk as ntk_study
from experiments.catapults.descent import Cycle
from optsde import models
from optsde.analysis import Spike, estimate
from optsde.measure import ntk
from optsde.run import Run, Task, journal
from optsde.study import RunDir, UsageError
from optsde.study.study import choose, run

DIGITS = dict(width=8, train_size=12, seeds=2)
SMALL = {
    "toy": dict(width=16, steps=30, seeds=2, ratios=(1.5, 2.5, 4.5)),
    "cyclic": DIGITS | dict(cycles=1, period=40),
    "threshold": DIGITS | dict(warm_steps=20, steps=20, ratios=(0.5, 2.0)),
    "batch": DIGITS | dict(steps=24, batch_sizes=(4, 2)),
    "ntk": DIGITS | dict(cycles=1, period=40, every=20),
    "adagrad": DIGITS | dict(cycles=1, period=40, every=20, warm_steps=20),
    "fading": DIGITS
    | dict(cycles=4, period=40, every=80, warm_steps=20, peaks=(3.0,), batch_size=4),
    "lemma": DIGITS | dict(after=(0, 8), points=17),
    "small_batches": DIGITS | dict(batch_sizes=(12, 3), warm_steps=20, steps=10),
    "features": DIGITS | dict(segments=2, pulses=(0, 2)),
    "control": DIGITS | dict(segments=2, pulses=(0, 1)),
}


def small(preset, **changes):
    changes = SMALL[preset] | changes
    return dataclasses.replace(configs.PRESETS[preset].settings, **changes)


def run_small(preset, folder, **options):
    settings = small(preset).checked()
    study = choose(PACKAGE.studies, settings.study())
    return run(study, settings, RunDir(folder, "catapults", {}), **options)


@pytest.mark.parametrize("preset", configs.PRESETS)
def test_presets_pass_their_own_checks(preset):
    settings = configs.PRESETS[preset].settings
    if preset == "small_batches_svhn":  # which asks for its size
        with pytest.raises(UsageError, match="is not prepared"):
            settings.checked()
        settings = dataclasses.replace(settings, target="digits")
    settings.checked()


@pytest.mark.parametrize(
    ("preset", "change", "says"),
    [
        ("toy", dict(ratios=(2.0, 3.0)), "some below 1.95 and some above 4.1"),
        ("threshold", dict(ratios=(1.1, 1.3)), "some up to 1"),
        ("batch", dict(batch_sizes=(4, 16)), "two or more falling integers"),
        ("fading", dict(cycles=6), "4, 8, 12"),
        ("fading", dict(peaks=(0.1,)), "peaks=0.1"),
        ("lemma", dict(after=(8, 0)), "after"),
        ("small_batches", dict(batch_sizes=(8, 3)), "from train_size=12 on"),
        ("small_batches", dict(batch_sizes=(12, 3, 4)), "falling integers"),
        ("small_batches", dict(ratio=1.0), "ratio=1.0"),
        ("ntk", dict(every=7), "a divisor of the 40 steps"),
        ("features", dict(pulses=(0, 3)), "numbers from 0 to segments=2"),
        ("features", dict(pulses=(1, 2)), "with 0"),
        ("features", dict(target="ranks"), "data set 'ranks' is not known"),
        ("control", dict(width=9), "an even number"),
        ("control", dict(train_size=1501), "2 to 1500 examples"),
        ("control", dict(target="text"), "target=text: needs images"),
    ],
)
def test_bad_settings_are_refused(preset, change, says):
    with pytest.raises(UsageError, match=says):
        small(preset, **change).checked()


def test_a_seed_has_no_more_images_than_the_task():
    settings = small("cyclic", train_size=1600)
    with pytest.raises(UsageError, match="train_size=1600: needs 2 to 1500 images"):
        descent.members_of(settings, nets.build_task(settings))


SLOW = {"adagrad", "batch", "cyclic", "fading", "features", "lemma", "ntk"}
SLOW |= {"small_batches", "threshold"}


@pytest.mark.parametrize(
    "preset",
    [pytest.param(p, marks=pytest.mark.full if p in SLOW else ()) for p in SMALL],
)
def test_each_study_in_small(preset, tmp_path, monkeypatch):
    """It ends with a figure and verdicts; finished runs are read and not run again."""
    first = run_small(preset, tmp_path)
    claims = [verdict.claim for verdict in first]
    assert len(set(claims)) == len(claims) >= 3
    (figure,) = (tmp_path / "figures").glob("*.png")
    assert figure.stat().st_size > 20_000

    monkeypatch.setattr(Run, "to", None)
    summary = json.loads((tmp_path / "summary.json").read_text())
    run_small(preset, tmp_path)
    again = json.loads((tmp_path / "summary.json").read_text())
    assert again["verdicts"] == summary["verdicts"]


def test_spectra_that_were_interrupted_are_those_that_were_not(tmp_path, monkeypatch):
    """Of the kernel at three times, after a stop before the last of them."""
    monkeypatch.setattr(journal, "SHARE", np.inf)  # any save is worth it
    settings = small("ntk")
    task, spectra, times = ntk_study.build_task(settings), ntk_study.spectra, []
    whole = ntk_study.trained(settings, task)

    def stopping(*given):
        times.append(len(times))
        if len(times) == 3:
            raise KeyboardInterrupt
        return spectra(*given)

    monkeypatch.setattr(ntk_study, "spectra", stopping)
    with pytest.raises(KeyboardInterrupt), journal.journals_in(tmp_path):
        ntk_study.trained(settings, task)
    with journal.journals_in(tmp_path):
        again = ntk_study.trained(settings, task)
    assert {*whole} == {*ntk_study.NAMES, "loss"}
    for name, numbers in whole.items():
        np.testing.assert_array_equal(again[name], numbers)


def test_any_task_of_squared_distance_can_be_taken():
    """A net with biases on random inputs, which are scaled as they are read."""
    model = models.build("mlp", 3, hidden=(4,))
    x = jax.random.normal(jax.random.key(0), (20, 5))
    y = jax.nn.one_hot(jnp.arange(20) % 3, 3)
    loss, scale = nets.squared_distance, lambda x: 2 * x
    task = Task(model, loss, (x, y), (x, y), plain=x, prepare=scale)
    members = descent.members_of(small("cyclic"), task)
    for i in range(2):
        start = jax.tree.map(lambda x, i=i: x[i], members.start)
        inputs = 2 * members.examples[0][i]
        expected = nets.critical_lr(nets.apply_of(model), start, inputs)
        np.testing.assert_allclose(members.lr[i], expected, 1e-4)


def test_runs_are_gradient_descent(x64):
    """Against the same descent written out, each replica on its own data and cycle."""
    model = nets.two_layer(6, 3)
    x, y = (
        jax.random.normal(jax.random.key(k), (2, 5, d)) for k, d in ((1, 4), (2, 3))
    )
    keys = jax.random.split(jax.random.key(3), 2)
    starts = jax.vmap(lambda key: nets.initial(key, model, x[0]))(keys)
    starts = jax.tree.map(lambda w: w.astype(float), starts)
    lr, low, high = jnp.array([0.1, 0.2]), jnp.array([1.0, 0.5]), jnp.array([1.0, 3.0])
    members = descent.Member(lr, (x, y), starts, Cycle(low, high, jnp.ones(2)))
    task = Task(model, nets.squared_distance, (x[0], y[0]), (x[0], y[0]), plain=x[0])
    norms = descent.norms(task, 8)
    found = descent.run(task.losses, members, 8, period=4, probes=norms).metrics
    for i in range(2):
        w, v = (np.asarray(starts[n]["kernel"][i]) for n in ("Dense_0", "Dense_1"))
        for step in range(8):
            hidden = np.maximum(np.asarray(x[i]) @ w / 2, 0)
            f = hidden @ v / np.sqrt(6)
            residual = f - np.asarray(y[i])
            loss = np.sum(residual**2) / 5
            np.testing.assert_allclose(found["loss"].values[i, step], loss, 1e-10)
            rate = low[i] + (high[i] - low[i]) * (0, 0.5, 1, 0.5)[step % 4]
            back = 2 / 5 * residual @ v.T / np.sqrt(6) * (hidden > 0)
            v = v - lr[i] * rate * 2 / 5 * hidden.T @ residual / np.sqrt(6)
            w = w - lr[i] * rate * np.asarray(x[i]).T @ back / 2
    assert found["ntk_norm"].values.shape == (2, 8)


def test_replicas_are_crossed_seed_by_seed():
    members = descent.Member(jnp.array([1.0, 2.0]), jnp.arange(2), jnp.arange(2))
    both = descent.crossed(members, [Cycle(), Cycle(0.5, 3.0, 2.0)])
    np.testing.assert_array_equal(both.lr, [1, 1, 2, 2])
    np.testing.assert_array_equal(both.cycle.high, [1, 3, 1, 3])


def test_what_is_counted_of_batches_and_that_pairs_are_by_seed():
    """Two losses of the small batch spike for 3 of 30 steps, one run is lost."""
    settings = small("batch", ratios=(0.9,), seeds=4)
    loss = np.ones((2, 4, 1, 30))
    loss[1, :2, 0, 25:28] = 5.0
    loss[1, 3, 0, 29] = np.nan
    norm = np.array([[0.5, 0.7, 0.9, 0.8], [0.3, 0.51, 0.69, 0.8]])[..., None]
    found = batch.summarised(dict(loss=loss, batch_loss=loss, norm=norm))
    np.testing.assert_array_equal(found["catapults"][1, :, 0], [1, 1, 0, np.nan])
    np.testing.assert_allclose(found["share"][1, :, 0], [10, 10, 0, np.nan])
    np.testing.assert_allclose(found["largest"][1, :, 0], [5, 5, 1, np.nan])
    more, flatter, lost = batch.claims(settings, found)
    assert (more.holds, flatter.holds, lost.holds) == (False, True, False)
    np.testing.assert_allclose((more.value, flatter.value, lost.value), (2 / 3, 0.2, 1))


def test_steady_noise_adds_the_root_of_the_time_to_both_bounds():
    """AdaGrad at rest in normal noise, 400 steps of 200 seeds, each with a large s₀."""
    settings, count = small("fading", cycles=4, period=100, every=10), 200
    transform = optsde.AdaGrad(s0=0.0).direction()
    noise = jax.random.normal(jax.random.key(0), (400, count, 5))
    state = transform.init(noise[0])._replace(s=jnp.full((count, 5), 50.0))

    def step(state, g):
        return transform.update(g, state)[1], state.s

    last, s = jax.lax.scan(step, state, noise)
    seen = np.sqrt(np.concatenate([s, last.s[None]])[settings.times]).swapaxes(0, 1)
    for size in (np.linalg.norm(seen, axis=-1), seen[..., 0]):
        power = estimate(fading.power(settings, size))
        assert abs(power.mean - 0.5) < 4 * power.se + 0.01


def test_critical_rate_lies_between_the_two_bounds():
    """The rate is between both in 300 preconditioners, and at the lower for P ∝ 1."""
    rng = np.random.default_rng(0)
    for number in range(300):
        a = rng.normal(size=(6, 6))
        h, p = a @ a.T, rng.lognormal(sigma=2.0, size=6)
        p = np.ones(6) if number == 0 else p
        own = np.linalg.eigvalsh(h / np.sqrt(np.outer(p, p)))[-1]
        sizes = dict(least=p.min(), norm=np.linalg.norm(p))
        run = dict(sharpness=np.linalg.eigvalsh(h)[-1], critical=2 / own) | sizes
        least, critical, norm = fading.predictors(run).values()
        assert least <= critical * (1 + 1e-9)
        assert critical <= norm * (1 + 1e-9)
        if number == 0:
            np.testing.assert_allclose(critical, least)


def test_sizes_of_spikes_and_where_the_last_one_is():
    """Two seeds of four cycles: spikes of 8 in the first and of 2 in the last."""
    settings = small("fading", every=20)
    loss = np.ones((2, 4, 40))
    loss[:, 0, 30], loss[:, 3, 30] = 8.0, 2.5
    loss[:, 3] /= 5.0
    run = dict(loss=loss.reshape(2, 160))
    seen, relative = fading.sizes(settings, run)
    np.testing.assert_allclose(seen, [[7, 0, 0, 0.3]] * 2)
    np.testing.assert_allclose(relative, np.log10([[8, 1, 1, 2.5]] * 2))
    run["spikes"] = [[Spike(30, 30, 8.0, 31), Spike(150, 150, 2.5, 151)], []]
    at = fading.at_the_last(settings, run, np.tile(10.0 * settings.times, (2, 1)))
    np.testing.assert_allclose(at, [1500, np.nan])


@pytest.mark.full
def test_the_lemma_is_exact_where_the_loss_is_a_parabola():
    """A linear net on squared error: H is the same everywhere."""
    x = jax.random.normal(jax.random.key(0), (12, 5))
    y = jax.random.normal(jax.random.key(1), (12, 2))
    model = models.build("mlp", 2, hidden=(), use_bias=False)
    task = Task(model, nets.squared_distance, (x, y), (x, y), plain=x)
    settings = small("lemma", reach=6.0, points=101)
    runs = lemma.trained(settings, task)
    steps, ratio = settings.steps(), runs["ratio"]
    expected = lemma.parabola(steps, ratio[..., None])
    np.testing.assert_allclose(runs["changes"], expected, rtol=1e-3, atol=1e-3)
    assert (ratio <= 1.001).all()
    ends = lemma.crossings(settings, expected)
    inside = 1 / ratio < settings.reach
    assert np.isnan(ends[~inside]).all()
    np.testing.assert_allclose(ends[inside], 1 / ratio[inside], rtol=0.02)


def test_batches_are_compared_with_all_examples_by_seed():
    """The small batch has one catapult more in each seed; one of its runs is lost."""
    settings = small("small_batches", seeds=4)
    level = np.broadcast_to(10.0 * np.arange(4)[:, None], (2, 4, 2))
    more = np.array([[0, 0, 0, 0], [1, 1.01, 0.99, np.nan]])[..., None]
    runs = dict.fromkeys(("catapults", "test_error", "alignment"), level + more)
    runs["norm"] = runs["catapults"]
    verdicts = {v.claim: v for v in small_batches.claims(settings, runs)}
    assert verdicts["more_catapults_at_3_from_zero"].holds
    assert verdicts["higher_alignment_at_3_from_random"].holds
    assert verdicts["lower_error_at_3_from_zero"].fails
    assert verdicts["no_run_diverged_at_12"].holds
    assert verdicts["no_run_diverged_at_3"].value == 2


def test_fates_of_the_toy():
    loss = np.array([[4.0, 1, 0.1], [4, 9, 0.1], [4, 9, 20], [4, np.inf, np.nan]])
    spiked, lost = toy.fates(loss)
    assert spiked.tolist() == [False, True, True, True]
    assert lost.tolist() == [False, False, True, True]


def test_what_is_claimed_of_all_runs_is_that_of_the_worst():
    """One toy of 40 ends above 2, and so not all below; and a net whose loss never
    rises has no onset."""
    rate = np.ones((40, 3, 2))
    *_, verdict = toy.claims(small("toy"), dict(loss=rate, rate=rate))
    assert (verdict.low, verdict.holds) == (1.0, True)
    rate[7] = 2.1
    *_, verdict = toy.claims(small("toy"), dict(loss=rate, rate=rate))
    assert verdict.low < 0 < verdict.value
    assert verdict.holds is False

    settings, shape = small("threshold", ratios=(1.0, 1.05, 1.2)), (2, 3)
    runs = dict(spiked=np.zeros(shape, bool), rose=np.ones(shape, bool))
    runs |= dict(hessian=np.array([1.0, 1.01]), kernel=np.ones(2))
    *_, verdict = threshold.claims(settings, runs)
    assert verdict.holds is True
    runs["rose"][0] = False
    *_, verdict = threshold.claims(settings, runs)
    assert verdict.holds is False


def test_lower_after_each_catapult_takes_the_least():
    spikes = [[Spike(2, 3, 9.0, 4)], [Spike(1, 2, 5.0, 3), Spike(4, 4, 5.0, None)]]
    series = np.array([[1.0, 1, 1, 1, 0.4], [2, 2, 2, 1, 1]])
    verdict = cycles.lower_after("peak", series, spikes)
    assert (verdict.low, verdict.high, verdict.holds) == (50.0, 60.0, True)
    series[0, 4] = 1.1
    verdict = cycles.lower_after("peak", series, spikes)
    assert not verdict.holds
    np.testing.assert_allclose(verdict.low, -10.0)


def test_antisymmetric_nets_begin_at_zero_with_the_kernel_of_half_the_width():
    model, half = nets.two_layer(32, 2), nets.two_layer(16, 2)
    x = jax.random.normal(jax.random.key(0), (7, 5))
    params = nets.initial(jax.random.key(1), model, x, antisymmetric=True)
    apply = nets.apply_of(model)
    assert float(jnp.abs(apply(params, x)).max()) < 1e-6
    first, last = (params[n]["kernel"] for n in ("Dense_0", "Dense_1"))
    narrow = {"Dense_0": {"kernel": first[:, :16]}, "Dense_1": {"kernel": last[:16]}}
    wide = ntk.kernel(apply, params, x)
    other = ntk.kernel(nets.apply_of(half), narrow, x)
    np.testing.assert_allclose(wide, other, 1e-4, 1e-6)


def test_verdicts_of_pulses_are_paired_by_seed():
    """A gain of 2 in every seed is certain, however far the seeds lie apart."""
    settings = small("control", pulses=(0, 8), segments=10)
    level = 10.0 * np.arange(6)
    gains = {("random", 0): 0, ("random", 8): 2, ("zero", 0): 2.5, ("zero", 8): 2.4}
    jitter = 0.01 * np.array([1, -1, 2, -2, 0, 0])
    runs = {}
    for number, arm in enumerate(pulses.arms(settings)):
        shift = gains[arm.init, arm.pulses] + number * jitter
        numbers = dict(accuracy=level + shift, test_error=level - shift)
        runs[arm] = numbers | dict(train_loss=0 * level, norm=1 + 0 * level)
    verdicts = {v.claim: v for v in pulses.claims(settings, runs)}
    assert verdicts["8_pulses_raise_accuracy_from_random"].holds
    assert not verdicts["8_pulses_raise_accuracy_from_zero"].holds
    assert verdicts["zero_function_does_as_well_without_any"].holds
    assert verdicts["no_run_diverged"].holds
    assert set(settings.known_false) <= set(verdicts)
    # One run is left, which has no error.
    runs[pulses.Arm("random", 8)]["accuracy"][1:] = np.nan
    verdicts = {v.claim: v for v in pulses.claims(settings, runs)}
    assert not verdicts["8_pulses_raise_accuracy_from_random"].holds
