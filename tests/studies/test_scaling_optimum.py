"""experiments.scaling.optimum: the grid at each batch, verdicts of known outcome."""

import dataclasses
import types

import jax
import numpy as np
import pytest

import optsde
from configs import scaling as configs
from experiments.scaling import optimum
from optsde.run import Series
from optsde.study import ArmRuns, RunDir, Runs, UsageError, build_task
from optsde.study.arms import stacks

NET = dict(dtype="float32", depth=1, width=8, heads=2, length=8)


def tiny(preset="optimum_adam", **changes):
    small = dict(options=NET, train_size=300, test_size=32, seeds=4, warmup=4.0)
    small |= dict(horizon=64.0, evaluations=4, kappas=(16, 4)) | changes
    return dataclasses.replace(configs.PRESETS[preset].settings, **small)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(factors=(0.5, 2.0, 4.0)), "factors=.*1 among them"),
        (dict(memories=(4.0, 0.25)), "memories=4.0,0.25: needs"),
        (dict(kappas=(3,)), "kappas=3: needs whole steps in"),
        (dict(seeds=2), "seeds=2: needs at least 3"),
        (dict(optimizer=optsde.SGD(lr=1e-3)), "optimizer.name.*one with an average"),
    ],
)
def test_settings_that_cannot_run_are_refused(changes, says):
    with pytest.raises(UsageError, match=says):
        tiny(**changes).checked()


def test_muon_needs_layers_of_which_it_takes_the_matrices(tmp_path):
    s = tiny("optimum_muon").checked()
    task = types.SimpleNamespace(init=lambda key: {"w": np.zeros((2, 2))})
    with pytest.raises(UsageError, match="matrices=True: needs False: no parameter"):
        optimum.simulate(s, RunDir(tmp_path, "scaling", {}), task)
    shapes = jax.eval_shape(build_task(s).init, s.keys()[0])
    kinds = jax.tree_util.tree_leaves_with_path(optimum.kinds(shapes))
    names = {
        jax.tree_util.keystr(path, simple=True, separator="/"): k for path, k in kinds
    }
    found = {name for name, kind in names.items() if kind == optimum.MATRICES}
    assert {name.split("/")[-2] for name in found} == {"qkv", "out", "up", "down"}
    assert {"tokens", "positions"} <= {name.split("/")[-1] for name in {*names} - found}


def test_the_grid_is_that_of_the_base_run_taken_to_kappa():
    """Half-lives h of the rule's and lr f of the rule's, by formulas written out."""
    s = tiny(optimizer=optsde.Adam(lr=1e-3, b1=0.5, b2=0.98)).checked()
    arms = {arm.name: arm.plan for arm in optimum.arms(s)}
    assert s.batches == (1, 4, 16)
    assert optimum.memories(s, 1) == [0.25, 1.0, 4.0]
    assert optimum.memories(s, 4) == [0.25, 1.0, 4.0]
    assert optimum.memories(s, 16) == [0.25, 1.0, 4.0, 16.0]
    assert len(arms) == (3 + 3 + 4) * len(s.factors)
    for h, b1, b2 in ((1, 0.5**16, 0.98**16), (4, 0.5**4, 0.98**4), (16, 0.5, 0.98)):
        plan = arms[f"16/{h}/0.5"]
        assert (plan.batch_size, plan.steps * plan.dt) == (16, 64)
        found = [float(getattr(plan.optimizer, x)) for x in ("lr", "b1", "b2")]
        np.testing.assert_allclose(found, [0.5e-3 * 4, b1, b2], rtol=1e-6)


def test_muon_and_the_rest_follow_a_rule_each():
    s = tiny("optimum_muon").checked()
    arms = list(optimum.arms(s))
    assert len(stacks(arms)) == len(s.batches)
    parts = next(arm for arm in arms if arm.name == "16/4/2").plan.optimizer.parts
    muon, adam = parts[optimum.MATRICES], parts[optimum.REST]
    found = [float(x) for x in (muon.lr, muon.beta, adam.lr, adam.b1, adam.b2)]
    expected = [2e-2 * 16, 0.8**4, 4e-3 * 4, 0.5**4, 0.98**4]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(optimum.rule_lr(s), [0, 2, 4], atol=1e-6)


def known(s, vertex, shift, steps=0.0):
    """Runs that end at 2 + .1 (log2 f − vertex(κ))² + .05 (log2 h)² + shift(κ).

    With half-lives in steps, h = κ, `steps` takes the place of the term in h.
    """
    wobble = 0.001 * np.linspace(-1, 1, s.seeds)[:, None]
    times, runs = s.every * np.arange(5), {}
    for arm in optimum.arms(s):
        kappa, memory, factor = map(float, arm.name.split("/"))
        held = steps if memory == kappa > 1 else 0.05 * np.log2(memory) ** 2
        loss = 2 + 0.1 * (np.log2(factor) - vertex(kappa)) ** 2 + held + shift(kappa)
        values = loss + wobble + np.zeros(5)
        values[:, 0] = 5
        runs[arm.name] = ArmRuns(arm, {"test_loss": Series(times, values)})
    return Runs(runs)


def test_verdicts_of_known_outcome(tmp_path):
    """The best lr grows as κ^.2 where the rule's is √κ; losses rise from κ = 4 on."""
    s = tiny().checked()
    shift = {1: 0.0, 4: 0.05, 16: 0.2}
    runs = known(s, lambda k: -0.3 * np.log2(k), lambda k: shift[k], steps=0.1)
    verdicts = list(optimum.claims(s, runs))
    values = {v.claim: v.value for v in verdicts}
    best = {4: 0.05 + 0.016, 16: 0.2 + 0.004}  # above 2, at half the rule's lr
    rule = {4: 0.05 + 0.036, 16: 0.2 + 0.144}
    expected = {
        "best_lr_grows_as_the_rule": -0.3,
        "best_lr_rises_at_first": 0.4,
        "best_lr_falls_at_last": 0.4,
    }
    for k in (4, 16):
        expected |= {
            f"rule_keeps_the_curve_at_{k}": 100 * rule[k] / 2,
            f"rule_is_the_best_at_{k}": 100 * (rule[k] - best[k]) / (2 + best[k]),
            f"best_loss_is_kept_at_{k}": 100 * best[k] / 2,
            f"samples_end_below_steps_at_{k}": 100 * 0.1 / (2 + best[k]),
        }
    assert set(values) == set(expected)
    for claim, value in expected.items():
        assert values[claim] == pytest.approx(value, abs=1e-3), claim
    assert {v.claim for v in verdicts if v.outcome != "holds"} == {
        "best_lr_grows_as_the_rule",
        "best_lr_falls_at_last",
        "rule_is_the_best_at_16",
        *(f"rule_keeps_the_curve_at_{k}" for k in (4, 16)),
        *(f"best_loss_is_kept_at_{k}" for k in (4, 16)),
    }
    crossing = 2.0 ** optimum.critical(s, runs).mean  # from 0% at 1 to 3.3% at 4
    assert crossing == pytest.approx(4 ** (3 / 3.3))
    text = optimum.answer(s, runs, verdicts)
    assert "the best lr grows as κ to the 0.20 [0.20, 0.20], the rule's as κ to" in text
    first, _ = optimum.tables(s, runs)
    assert "1.32 [1.32, 1.32]" in first
    optimum.figure(s, runs, tmp_path / "figure.png")


def test_ends_of_the_list_leave_claims_open():
    """The best lr is twice the rule's at κ = 4, and four times, the last, at 16."""
    s = tiny().checked()
    runs = known(s, lambda k: np.log2(k) / 2, lambda _: 0.0)
    verdicts = list(optimum.claims(s, runs))
    found = {v.claim for v in verdicts if v.outcome == "open" and np.isnan(v.value)}
    assert found == {"best_lr_grows_as_the_rule", "best_lr_falls_at_last"}
    text = optimum.answer(s, runs, verdicts)
    assert "the best lr is an end of the list at some batch" in text
    assert "3% above the base run's at κ = 16 or near it, or beyond" in text
    first, _ = optimum.tables(s, runs)
    assert "at an end" in first


def test_a_run_that_diverges_counts_as_its_start():
    s = tiny().checked()
    runs = known(s, lambda _: 0.0, lambda _: 0.0)
    runs["4/1/4"].test_loss.values[:2, -1] = np.nan
    runs["4/1/4"].test_loss.values[2, -1] = 9.0
    ends = optimum.of_memory(s, runs, 4, 1.0)[:, -1]
    np.testing.assert_allclose(ends[:3], 5)
    assert ends[3] < 5
    runs["4/1/1"].test_loss.values[:, 1:] = np.nan
    assert optimum.off(s, runs, 4).mean == pytest.approx(100 * (5 / 2 - 1))


@pytest.mark.full
def test_the_grid_of_groups_is_run(tmp_path):
    small = dict(dataset="digits", model="mlp", options=dict(hidden=(8,)), seeds=3)
    small |= dict(kappas=(2,), evaluations=2, memories=(2.0,), horizon=16.0)
    s = tiny("optimum_muon", factors=(0.5, 1.0, 2.0), **small).checked()
    runs = optimum.simulate(s, RunDir(tmp_path, "scaling", {}), build_task(s))
    assert list(runs) == [arm.name for arm in optimum.arms(s)]
    assert optimum.last(s, runs, 2).shape == (3, 2, 3)
    one, other = (runs[f"2/1/{f}"].test_loss.values for f in ("0.5", "2"))
    assert np.all(one[:, 0] == other[:, 0])
    assert np.all(one[:, -1] != other[:, -1])
