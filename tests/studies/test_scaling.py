"""experiments.scaling: arms, stacked ensembles, verdicts of known outcome, command."""

import dataclasses
import sys

import jax
import numpy as np
import pytest
from helpers import ROOT

from configs import scaling as configs
from experiments import scaling
from experiments.scaling import plans, report
from optsde import data, measure

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
    config = configs.get_config(preset).unlock()
    config.update(TINY | changes)
    return config


@pytest.mark.parametrize("preset", configs.PRESETS)
def test_presets_pass_their_own_checks(preset):
    scaling.check(configs.get_config(preset))


def test_arms_change_what_their_names_say():
    rules = tuple(plans.RULES)
    config = tiny("digits_adamw", rules=rules, kappas=(4,), ells=(2,), svag_until=0.5)
    config.optimizer.eps = 1e-3
    made = {arm.rule: arm.plan for arm in scaling.arms(config)}
    base, rule = made["base"].optimizer, made["rule"].optimizer
    assert made["svag"].noise_gain == 4
    assert made["svag"].horizon == 16
    for name, plan in made.items():
        if name not in ("base", "svag"):
            assert (plan.batch_size, plan.steps) == (8, 8)
    np.testing.assert_allclose(rule.b1, 0.998**4)

    def changed(name):
        mine = vars(made[name].optimizer)
        return {k: v for k, v in mine.items() if v != getattr(rule, k)}

    alone = dict(b1=base.b1, b2=base.b2)
    assert changed("rule_but_betas_fixed") == alone
    assert changed("rule_but_eps_fixed") == dict(eps=1e-3)
    assert changed("rule_but_decay_fixed") == dict(weight_decay=0.5)
    assert changed("rule_but_lr_linear") == dict(lr=4 * base.lr)
    assert changed("rule_but_lr_fixed") == dict(lr=base.lr)
    assert vars(made["fixed"].optimizer) == vars(base)


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_stacked_arms_are_the_arms_run_alone(tmp_path, clip):
    """The rule scales the clip too, and the others leave it."""
    config = tiny("digits_sgd", rules=("rule", "sqrt_lr_only", "fixed"), clip=clip)
    task = scaling.build_task(config)
    group = [arm for arm in scaling.arms(config) if arm.kappa == 2]
    together = scaling.train_group(config, task, group, tmp_path / "together")
    for arm in group:
        alone = scaling.train_group(config, task, [arm], tmp_path / arm.rule)
        key = (arm.group, arm.rule)
        assert together[key]["loss"].shape == (3, 5)
        for name in ("loss", "accuracy"):
            np.testing.assert_allclose(together[key][name], alone[key][name], 1e-3)
    assert np.ptp([together["kappa2", r]["loss"][0, -1] for r in config.rules]) > 1e-3


def columns_of(config, late):
    """Losses 1 + what `late` says from evaluation 1 on, and a little noise of seeds."""
    noise = 0.001 * np.linspace(-1, 1, 8)[:, None]
    columns = {}
    for arm in scaling.arms(config):
        loss = np.full((8, config.evaluations + 1), 1.0 + late.get(arm.rule, 0.0))
        if arm.kappa > 4 and arm.rule == "rule":
            loss += 0.2
        sign = -1 if arm.kappa else 1
        columns[arm.group, arm.rule] = {
            "loss": loss + sign * noise,
            "accuracy": 0.9 + sign * noise + 0 * loss,
        }
    return columns


class Predicted:
    rule = "square-root"
    kappa, low, high = 5.0, 4.0, 6.0
    because, cannot_hold_beyond = "", 100.0


def test_verdicts_of_known_outcome(tmp_path):
    config = tiny(seeds=8, kappas=(2, 4, 8, 16), horizon=64.0, ells=(2,))
    config.svag_until = 0.5
    columns = columns_of(config, {"linear": 0.1, "sqrt_lr_only": -0.06, "svag": 0.07})
    verdicts = {v.claim: v for v in report.judge(config, columns, Predicted)}
    held = {claim: v.holds for claim, v in verdicts.items()}
    assert not held["svag2_matches_base"]
    np.testing.assert_allclose(verdicts["svag2_matches_base"].value, 7.0)
    for kappa in (2, 4, 8, 16):
        verdict = verdicts[f"rule_holds_at_{kappa}"]
        assert verdict.holds == verdict.expected == (kappa <= 4)
    np.testing.assert_allclose(verdicts["nearer_than_linear_at_4"].value, 10.0, 0.05)
    assert held["nearer_than_sqrt_lr_only_at_2"]
    assert not held["nearer_than_fixed_at_2"]  # as near as the rule
    assert not held["nearer_than_linear_at_8"]
    assert "nearer_than_linear_at_16" not in held
    assert held["prediction_within_a_factor_2"]
    assert report.largest(config, list(verdicts.values())) == (4, 8)

    class TooFar(Predicted):
        kappa = 17.0

    *_, last = report.judge(config, columns, TooFar)
    assert (last.claim, last.holds) == ("prediction_within_a_factor_2", False)
    words = report.answer(config, list(verdicts.values()), Predicted)
    assert "held up to κ = 4, and was not shown to within ±5% at κ = 8" in words
    columns["kappa2", "linear"]["loss"][2, 3:] = np.nan
    assert "diverged" in report.difference_table(config, columns)
    figure = tmp_path / "figure.png"
    report.draw(config, columns, Predicted, figure)
    assert figure.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config.kappas=3"], "whole steps in horizon/evaluations = 640 base steps"),
        (["--config.rules=rule,quadratic"], "some of: rule, linear, sqrt_lr_only"),
        (["--config.rules=linear"], "'rule' among them"),
        (
            ["--config.memory=linear", "--config.optimizer.b1=0.9"],
            "16 among them: b1=0.9",
        ),
        (["--config.seeds=2"], "at least 3, for intervals"),
        (["--config.svag_until=0.3"], "a whole number of the 8 evaluations"),
        (["--config.model=mlq"], "model 'mlq' is none of mlp, "),
        (
            ["--config.alpha=2.5", "--config.tail_size=1"],
            "0 (off) or up to 2 (Gaussian)",
        ),
        (["--config.alpha=1.5"], "tail_size=0.0: needs a positive number with alpha"),
        (["--config.augment=masked"], "none, or live for images, masked for text"),
        (["--config.group=4"], "at most batch_size=2"),
        (["--config.draws=40"], "a multiple of 16"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(ROOT)
    argv = ["scaling", *arguments, f"--workdir={tmp_path / 'run'}"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as leaving:
        scaling.main()
    assert leaving.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_control_that_diverges_ends_nothing(tmp_path):
    config = tiny("digits_sgd", rules=("rule", "rule_but_lr_linear"))
    task = scaling.build_task(config)
    plans = [arm for arm in scaling.arms(config) if arm.kappa == 2]
    wild = dataclasses.replace(plans[1].plan.optimizer, lr=1e30)
    plan = dataclasses.replace(plans[1].plan, optimizer=wild)
    plans[1] = dataclasses.replace(plans[1], plan=plan)
    columns = scaling.train_group(config, task, plans, tmp_path)
    assert np.isfinite(columns["kappa2", "rule"]["loss"]).all()
    assert not np.isfinite(columns["kappa2", "rule_but_lr_linear"]["loss"]).all()


def test_imbalance_and_wrong_labels():
    images, labels = data.load("digits").train
    _, rare = data.imbalanced((images, labels), 0.1)
    before, after = (np.bincount(x, minlength=10) for x in (labels, rare))
    assert after[0] == before[0]
    np.testing.assert_allclose(after / before, 0.1 ** (np.arange(10) / 9), atol=0.08)
    with pytest.raises(ValueError, match="ratio=0 must lie in"):
        data.imbalanced((images, labels), 0)
    wrong = scaling.build_task(tiny(label_noise=0.5, train_size=0)).train[1]
    assert 0.4 < np.mean(np.asarray(wrong) != labels) < 0.5


def test_heavy_tails_shrink_as_they_must():
    """Stable noise of a 4 times larger batch is 4^(1/α − 1) times as large."""
    config = tiny("digits_heavy_tails", alpha=1.2, tail_size=10.0, label_noise=0.0)
    task = scaling.build_task(config)
    sampler = scaling.sampler_of(config, task)
    params = task.init(jax.random.key(0))

    def size(batch):
        keys = jax.random.split(jax.random.key(1), 64)
        draws = jax.vmap(lambda k: measure.noise.Draw(k, 0))(keys)
        grads = jax.vmap(lambda d: sampler(batch)(params, d)[1])(draws)
        return np.median(np.abs(np.concatenate([x.ravel() for x in _leaves(grads)])))

    np.testing.assert_allclose(size(8) / size(2), 4 ** (1 / 1.2 - 1), rtol=0.02)


def _leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]
