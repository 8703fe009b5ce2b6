"""experiments.scaling: arms, stacked ensembles, verdicts of known outcome."""

import dataclasses

import jax
import numpy as np
import pytest

import optsde
from configs import scaling as configs
from experiments.scaling import prediction, rule, score, verification
from experiments.scaling.prediction import Foreseen, foresee
from optsde import data, measure
from optsde.analysis import Estimate
from optsde.gradients import Draw
from optsde.run import Series
from optsde.study import RunDir, UsageError
from optsde.study.runs import ArmRuns, Runs
from optsde.study.tasks import build_task

TINY = dict(
    seeds=3,
    horizon=32.0,
    evaluations=4,
    kappas=(2, 4),
    ells=(),
    draws=32,
    probe_seeds=2,
    train_size=100,
)


def tiny(preset="digits", **changes):
    return dataclasses.replace(configs.PRESETS[preset].settings, **(TINY | changes))


@pytest.mark.parametrize("preset", configs.PRESETS)
def test_presets_pass_their_own_checks(preset):
    configs.PRESETS[preset].settings.checked()


def test_arms_change_what_their_names_tell():
    rules = tuple(name for name in rule.RULES if name not in rule.SIGNAL)
    s = tiny("digits_adamw", rules=rules, kappas=(4,), ells=(2,), svag_until=0.5)
    adamw = dataclasses.replace(s.optimizer, eps=1e-3)
    arms = list(rule.arms(dataclasses.replace(s, optimizer=adamw)))
    plans = {arm.rule or arm.group: arm.plan for arm in arms}
    base, scaled = plans["base"].optimizer, plans["rule"].optimizer
    assert plans["svag2"].noise_gain == 4
    assert plans["svag2"].horizon == 16
    assert [arm.title for arm in arms[:3]] == ["base", "SVAG ℓ = 2", "κ = 4"]
    for name in rules:
        assert (plans[name].batch_size, plans[name].steps) == (8, 8)
    np.testing.assert_allclose(scaled.b1, 0.998**4)
    invariant = plans["invariant"].optimizer
    assert (invariant.micros, invariant.lr, invariant.eps) == (4, 4 * base.lr, 1e-3)

    def changed(name):
        mine = vars(plans[name].optimizer)
        return {k: v for k, v in mine.items() if v != getattr(scaled, k)}

    alone = dict(b1=base.b1, b2=base.b2)
    assert changed("rule_but_betas_fixed") == alone
    assert changed("rule_but_eps_fixed") == dict(eps=1e-3)
    assert changed("rule_but_decay_fixed") == dict(weight_decay=0.5)
    assert changed("rule_but_lr_linear") == dict(lr=4 * base.lr)
    assert changed("rule_but_lr_root") == {}  # lr·√κ is AdamW's own
    assert changed("rule_but_lr_fixed") == dict(lr=base.lr)
    assert vars(plans["fixed"].optimizer) == vars(base)


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_stacked_arms_are_the_arms_run_alone(tmp_path, clip):
    """The rule scales the clip too, and the others leave it."""
    s = tiny("digits_sgd", rules=("rule", "sqrt_lr_only", "fixed"), clip=clip)
    task = build_task(s)
    group = [arm for arm in rule.arms(s) if arm.kappa == 2]

    def train(name, group):
        rundir = RunDir(tmp_path / name, "scaling", {})
        return verification.train_group(s, rundir, task, group)

    together = train("together", group)
    for arm in group:
        alone = train(arm.rule, [arm])
        assert together[arm.name].test_loss.values.shape == (3, 5)
        for name in ("test_loss", "test_accuracy"):
            ours, theirs = together[arm.name][name], alone[arm.name][name]
            np.testing.assert_allclose(ours.values, theirs.values, 1e-3)
    assert np.ptp([run.test_loss.values[0, -1] for run in together.values()]) > 1e-3


def runs_of(s, late, boosts=None):
    """Losses 1 + those of `late` from evaluation 1 on, and a little noise of seeds."""
    noise = 0.001 * np.linspace(-1, 1, 8)[:, None]
    times = s.every * np.arange(s.evaluations + 1)
    runs = {}
    for arm in rule.arms(s, boosts):
        loss = np.full((8, len(times)), 1.0 + late.get(arm.rule or arm.group, 0.0))
        if arm.kappa > 4 and arm.rule == "rule":
            loss += 0.2
        sign = -1 if arm.kappa else 1
        accuracy = 0.9 + sign * noise + 0 * loss
        metrics = {
            "test_loss": Series(times, loss + sign * noise),
            "test_accuracy": Series(times, accuracy),
        }
        runs[arm.name] = ArmRuns(arm, metrics)
    return Runs(runs)


def foreseen(*percent, kappa=5.0):
    """A prediction of the loss at κ = 2, 4, …, each with a standard error of .1%."""
    count = len(percent)
    total = Estimate(np.array(percent), np.full(count, 0.1), np.full(count, 7.0))
    kappas = tuple(2.0 ** np.arange(1, count + 1))
    difference = measure.Difference(kappas, total, total, 0 * total, ())
    return Foreseen("square-root", kappa, 4.0, 6.0, "", 0.01, difference, "", [], {})


def test_verdicts_of_known_outcome(tmp_path):
    changes = dict(horizon=64.0, ells=(2,), svag_until=0.5)
    rules = "rule", "linear", "sqrt_lr_only", "fixed"
    s = tiny(seeds=8, kappas=(2, 4, 8, 16), rules=rules, **changes)
    runs = runs_of(s, {"linear": 0.1, "sqrt_lr_only": -0.06, "svag2": 0.07})
    outcome = verification.Outcome(foreseen(0.0, 6.0, 18.0, 40.0), runs)
    verdicts = {v.claim: v for v in verification.claims(s, outcome)}
    holds = {claim: v.holds for claim, v in verdicts.items()}
    assert not holds["svag2_matches_base"]
    np.testing.assert_allclose(verdicts["svag2_matches_base"].value, 7.0)
    for kappa in (2, 4, 8, 16):
        verdict = verdicts[f"rule_holds_at_{kappa}"]
        assert verdict.holds == verdict.expected == (kappa <= 4)
    np.testing.assert_allclose(verdicts["nearer_than_linear_at_4"].value, 10.0, 0.05)
    assert holds["nearer_than_sqrt_lr_only_at_2"]
    assert not holds["nearer_than_fixed_at_2"]  # as near as the rule
    assert not holds["nearer_than_linear_at_8"]
    assert "nearer_than_linear_at_16" not in holds
    together = [v for v in verdicts.values() if v.family]
    assert [v.claim.startswith("nearer_than") for v in together] == [True] * 9
    assert all(v.corrected >= v.p for v in together)
    assert [holds[f"foreseen_at_{kappa}"] for kappa in (2, 4, 8, 16)] == [1, 0, 1, 0]
    np.testing.assert_allclose(verdicts["foreseen_at_16"].value, -20, atol=0.1)
    assert verification.largest(verdicts.values()) == (4, 8)
    words = verification.answer(s, outcome, list(verdicts.values()))
    assert "held up to κ = 4, and was not shown to within ±5% at κ = 8" in words
    runs["kappa2/linear"].test_loss.values[2, 3:] = np.nan
    text, differences = verification.tables(s, outcome)
    assert text.count("diverged") == 1
    assert "-20.00 [-20" in differences
    figure = tmp_path / "figure.png"
    verification.figure(s, outcome, figure)
    assert figure.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(kappas=(3,)), "whole steps in horizon/evaluations = 640 base steps"),
        (
            dict(rules=("rule", "quadratic")),
            "some of rule, signal, signal_by_leaf",
        ),
        (dict(rules=("linear",)), "'rule' among them"),
        (
            dict(rules=("rule", "signal"), optimizer=optsde.SGD(lr=0.1)),
            "no 'signal' where the optimizer averages no g²",
        ),
        (
            dict(rules=("rule", "invariant"), optimizer=optsde.RMSprop(lr=0.1)),
            "no 'invariant' where the optimizer is not Adam",
        ),
        (
            dict(memory="linear", optimizer=optsde.Adam(lr=1e-3, b1=0.9)),
            "16 among them: b1=0.9",
        ),
        (dict(optimizer=optsde.Lion(lr=1e-3)), "a preconditioner to weigh noise by"),
        (dict(svag_until=0.3), "a whole number of the 8 evaluations"),
        (dict(alpha=1.5), "tail_size=0.0: needs a positive number with alpha"),
        (dict(group=4), "at most batch_size=2"),
        (
            dict(schedule=dict(cosine=9.0, milestones=(5.0,))),
            "--config.schedule.cosine=9.0: needs 0 where there are milestones",
        ),
    ],
    ids=str,
)
def test_settings_that_cannot_run_are_refused(changes, says):
    with pytest.raises(UsageError) as error:
        dataclasses.replace(configs.PRESETS["digits"].settings, **changes).checked()
    assert says in str(error.value)


def test_batch_norm_needs_ghost_groups():
    """With all examples in one call, its groups would grow with κ."""
    s = tiny(model="digitsnet", batch_size=4)
    task = build_task(s)
    with pytest.raises(UsageError, match=r"--config\.group=1: needs the size of ghost"):
        rule.sampler_of(s, task)
    rule.sampler_of(dataclasses.replace(s, group=2), task)


@pytest.mark.full
def test_the_signal_rule_goes_by_the_prediction(tmp_path):
    """Arms of it are there once G/N is known: stored, and read again."""
    rules = "rule", "signal", "signal_by_leaf"
    s = tiny("digits_signal", kappas=(2,), rules=rules, horizon=80.0)
    assert not any(arm.rule in rule.SIGNAL for arm in rule.arms(s))
    rundir, task = RunDir(tmp_path, "scaling", {}), build_task(s)
    first = prediction.foresee(s, rundir, task)
    again = prediction.foresee(s, rundir, None)
    assert first.boosts == again.boosts
    assert again.times == prediction.probe_times(s)
    assert again.times[0] <= s.every / 8
    *_, one, by_leaf = rule.arms(s, again.schedules(task))
    assert (one.rule, one.group) == ("signal", "kappa2_signal")
    assert (by_leaf.rule, by_leaf.group) == ("signal_by_leaf", "kappa2_signal_by_leaf")
    [boost], leaves = (again.boosts[name]["2"] for name in rule.SIGNAL)
    assert 1 <= min(boost) <= max(boost) <= 2**0.5
    rate = s.optimizer.lr * 2**0.5
    np.testing.assert_allclose(one.plan.rate(again.times[3]), rate * boost[3], 1e-5)
    rates = by_leaf.plan.rate(again.times[3])
    params = jax.eval_shape(task.init, jax.random.key(0))
    assert jax.tree.structure(rates) == jax.tree.structure(params)
    expected = [rate * x[3] for x in leaves]
    np.testing.assert_allclose(jax.tree.leaves(rates), expected, 1e-5)
    assert np.ptp(expected) > 1e-6


def test_ways_out_have_claims_of_their_own():
    s = tiny("digits_signal", seeds=8, kappas=(2, 4))
    boosts = {(r, k): lambda t: 1.1 for r in rule.SIGNAL for k in (2.0, 4.0)}
    runs = runs_of(s, {"signal": 0.3}, boosts=boosts)
    verdicts = {v.claim: v for v in verification.ways_out(s, runs)}
    assert [v.holds for v in verdicts.values()] == [False] * 2 + [True] * 4
    np.testing.assert_allclose(verdicts["signal_holds_at_4"].value, 30.0)
    nearer = [v.claim for v in verification.nearer(s, runs)]
    assert not any("signal" in claim or "invariant" in claim for claim in nearer)
    text = verification.ways_out_table(s, runs)
    assert text.count("+30.00 [") == 2


def test_schedules_follow_their_settings():
    schedule = tiny(schedule=dict(warmup=10.0, milestones=(30.0,))).schedule.build()
    rates = [float(schedule(time)) for time in (5.0, 10.0, 29.0, 31.0)]
    np.testing.assert_allclose(rates, [0.5, 1.0, 1.0, 0.1], rtol=1e-6)
    ramp = dict(warmup=10.0, exponential=True, cosine=20.0)
    schedule = tiny(schedule=ramp).schedule.build()
    rates = [float(schedule(time)) for time in (0.0, 10.0, 20.0, 30.0)]
    np.testing.assert_allclose(rates, [1e-3, 1.0, 0.5, 0.0], atol=1e-6)


def test_the_plans_are_shown(capsys):
    verification.show_plans(tiny(ells=(2,)))
    out = capsys.readouterr().out
    assert [f"{x}\n" in out for x in ("SVAG ℓ = 2", "κ = 4, the rule")] == [True, True]


def test_a_control_that_diverges_ends_nothing(tmp_path):
    s = tiny("digits_sgd", rules=("rule", "rule_but_lr_linear"))
    arms = [arm for arm in rule.arms(s) if arm.kappa == 2]
    wild = dataclasses.replace(arms[1].plan.optimizer, lr=1e30)
    plan = dataclasses.replace(arms[1].plan, optimizer=wild)
    arms[1] = dataclasses.replace(arms[1], plan=plan)
    rundir = RunDir(tmp_path, "scaling", {})
    runs = verification.train_group(s, rundir, build_task(s), arms)
    assert np.isfinite(runs["kappa2/rule"].test_loss.values).all()
    lost = runs["kappa2/rule_but_lr_linear"].test_loss.values
    assert not np.isfinite(lost).all()


def test_imbalance_and_wrong_labels():
    images, labels = data.load("digits").train
    _, rare = data.imbalanced((images, labels), 0.1)
    before, after = (np.bincount(x, minlength=10) for x in (labels, rare))
    assert after[0] == before[0]
    np.testing.assert_allclose(after / before, 0.1 ** (np.arange(10) / 9), atol=0.08)
    with pytest.raises(ValueError, match="ratio=0 must lie in"):
        data.imbalanced((images, labels), 0)
    wrong = build_task(tiny(label_noise=0.5, train_size=0)).train[1]
    assert 0.4 < np.mean(np.asarray(wrong) != labels) < 0.5


def test_heavy_tails_shrink_as_they_must():
    """Stable noise of a 4 times larger batch is 4^(1/α − 1) times as large."""
    s = tiny("digits_heavy_tails", alpha=1.2, tail_size=10.0, label_noise=0.0)
    task = build_task(s)
    sampler = rule.sampler_of(s, task)
    params = task.init(jax.random.key(0))

    def size(batch):
        keys = jax.random.split(jax.random.key(1), 16)
        draws = jax.vmap(lambda k: Draw(k, 0))(keys)
        grads = jax.jit(jax.vmap(lambda d: sampler(batch)(params, d)[1]))(draws)
        return np.median(np.abs(np.concatenate([x.ravel() for x in _leaves(grads)])))

    np.testing.assert_allclose(size(8) / size(2), 4 ** (1 / 1.2 - 1), rtol=0.03)


def _leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def test_a_prediction_is_stored_and_read_again(tmp_path, monkeypatch):
    s, made = tiny(), foreseen(1.0, np.nan, kappa=np.inf)
    monkeypatch.setattr(prediction, "predict", lambda *_: made)
    foresee(s, RunDir(tmp_path, "scaling", {}), None)
    again = foresee(s, RunDir(tmp_path, "scaling", {}), None)
    assert again.kappa == np.inf
    np.testing.assert_equal(again.difference.lag.se, made.difference.lag.se)
    none = made._replace(difference=None)
    monkeypatch.setattr(prediction, "predict", lambda *_: none)
    (tmp_path / "curves" / "prediction.npz").unlink()
    foresee(s, RunDir(tmp_path, "scaling", {}), None)
    again = foresee(s, RunDir(tmp_path, "scaling", {}), None)
    assert again == none
    assert "limit" not in again.summary(5.0)


def test_a_prediction_of_which_a_byte_is_wrong_is_named(tmp_path, monkeypatch):
    """prediction.json is for other programs, and nothing is read from it."""
    s, made = tiny(), foreseen(1.0, 2.0, kappa=5.0)
    monkeypatch.setattr(prediction, "predict", lambda *_: made)
    foresee(s, RunDir(tmp_path, "scaling", {}), None)
    written = tmp_path / "prediction.json"
    written.write_text(written.read_text().replace("5.0", "6.0"))
    assert foresee(s, RunDir(tmp_path, "scaling", {}), None).kappa == 5.0
    part = tmp_path / "curves" / "prediction.npz"
    part.write_bytes(part.read_bytes().replace(b"5", b"6", 1))
    with pytest.raises(ValueError, match=r"prediction\.npz is damaged"):
        foresee(s, RunDir(tmp_path, "scaling", {}), None)


@pytest.mark.full
def test_a_prediction_is_made_along_the_base_run():
    """Of the whole run how much the loss differs is told, of a part of it not."""
    s = tiny("digits_sgd", evaluations=2)
    assert prediction.probe_times(s) == [1, 2, 4, 8, 16, 24, 32]
    task = build_task(s)
    whole = prediction.predict(s, task)
    assert whole.difference.kappas == (2, 4)
    assert (whole.difference.lag.mean == 0).all()
    assert "noise keeps up" in whole.text
    found = whole.summary(5.0)["limit"]
    assert found["low"] <= found["value"]
    part = prediction.predict(dataclasses.replace(s, probe_until=0.5), task)
    assert part.difference is None


def finished(folder, name, wide):
    """A finished run whose rule held to κ = `wide`, and what was predicted of it."""
    s = tiny(seeds=8, kappas=(2, 4, 8, 16), horizon=64.0, rules=("rule",))
    runs = runs_of(s, {})
    for arm in runs.values():
        arm.test_loss.values[:] += 0.2 * ((arm.arm.kappa > wide) - (arm.arm.kappa > 4))
    percent = [20.0 * (kappa > wide) + 0.1 for kappa in (2, 4, 8, 16)]
    outcome = verification.Outcome(foreseen(*percent, kappa=1.4 * wide), runs)
    rundir = RunDir(folder / name, "scaling", s.config())
    (folder / name).mkdir()
    rundir.finish(
        "done", [*verification.claims(s, outcome)], **verification.summary(s, outcome)
    )
    return score.read(folder / name)


def test_finished_runs_are_scored(tmp_path, monkeypatch, capsys):
    wide = [2, 8, 4, 2, 8, 4, 2, 4]
    cases = [finished(tmp_path, f"run{i}", x) for i, x in enumerate(wide)]
    assert [(case.held, case.failed) for case in cases[:3]] == [(2, 4), (8, 16), (4, 8)]
    folders = [str(tmp_path / f"run{i}") for i in range(len(wide))]
    monkeypatch.setattr("sys.argv", ["score", *folders])
    score.main()
    out = capsys.readouterr().out
    rows = {line[5:]: line.split() for line in out.splitlines() if line[:1] == "("}
    better = [float(words[-3]) for words in rows.values()]
    assert better[:2] == [0, 0]  # a ratio that is the same in all tells nothing
    assert min(better[2:]) > 0.2
    assert "in 32 of 32" in out
    monkeypatch.setattr("sys.argv", ["score", str(tmp_path)])
    with pytest.raises(SystemExit, match="no finished run of"):
        score.main()
