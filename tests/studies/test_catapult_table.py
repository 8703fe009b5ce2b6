"""The table of catapults: training by hand, numbers and verdicts of known outcome."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.catapults import PRESETS
from experiments.catapults import nets, table, table_runs
from optsde import data
from optsde.analysis import verdict_table
from optsde.study import RunDir, UsageError
from optsde.study.study import run

TINY = dict(
    images=120,
    train_size=80,
    kernel_size=50,
    width=32,
    batch_size=8,
    steps=40,
    log_every=10,
    evaluate_every=20,
    period=20,
    seeds=2,
)


def tiny(**changes):
    settings = PRESETS["digits"].settings
    return dataclasses.replace(settings, **TINY | changes).checked()


def rows(settings):
    return {row.name: row for row in table.rows(settings)}


@pytest.mark.full
def test_a_row_is_the_run_by_hand():
    """SGD of the second seed from the zero function, as a plain loop."""
    settings = tiny()
    task = table_runs.build_task(settings)
    members = table_runs.members_of(settings, task)
    found = table_runs.train(settings, task, members, rows(settings)["sgd"])
    assert found["batch_loss"].shape == (2, 2, 4)
    assert found["accuracy"].shape == (2, 2, 3)
    np.testing.assert_allclose(found["train_loss"][1, :, 0], 1, atol=1e-5)  # |y|² = 1
    assert min(found["train_loss"][0, :, 0]) > 2

    x, y = map(jnp.asarray, nets.centred(data.load("digits"), 120))
    which, key = 2 + 1, table_runs.keys_of(settings)[1][1]
    params = jax.tree.map(lambda a: a[which], members.params)
    first, last = (params[f"Dense_{i}"]["kernel"] for i in (0, 1))
    order = np.random.RandomState([0, 1]).permutation(120)

    def net(weights, x):
        return jax.nn.relu(x @ weights[0] / 8) @ weights[1] / 32**0.5

    def loss(weights, rows):
        return jnp.mean(jnp.sum((net(weights, x[rows]) - y[rows]) ** 2, axis=1))

    @jax.jit
    def kernel(weights):
        rows = order[:50]
        jacobian = jax.jacobian(lambda w: net(w, x[rows]).reshape(-1))(weights)
        j = jnp.concatenate([a.reshape(500, -1) for a in jacobian], axis=1)
        return j @ j.T

    def sharpness(weights):
        return np.linalg.eigvalsh(np.asarray(kernel(weights), np.float64))[-1] / 50

    weights = first, last
    lr, start = 0.9 / sharpness(weights), sharpness(weights)
    np.testing.assert_allclose(0.9 * members.critical[which], lr, rtol=0.03)
    lr = 0.9 * members.critical[which]
    descend = jax.jit(jax.value_and_grad(loss))
    seen = []
    for step in range(settings.steps):
        drawn = jax.random.randint(jax.random.fold_in(key, step), (8,), 0, 80)
        value, grads = descend(weights, order[drawn])
        seen.append(value)
        weights = jax.tree.map(lambda w, g: w - lr * g, weights, grads)
    np.testing.assert_allclose(
        found["batch_loss"][1, 1], np.reshape(seen, (4, 10)).mean(1), rtol=1e-4
    )
    end = loss(weights, order[:80])
    np.testing.assert_allclose(found["train_loss"][1, 1, -1], end, rtol=1e-4)
    held = net(weights, x[order[80:]]).argmax(1) == y[order[80:]].argmax(1)
    np.testing.assert_allclose(found["accuracy"][1, 1, -1], held.mean(), atol=1e-6)
    ratio = sharpness(weights) / start
    np.testing.assert_allclose(found["norm_ratio"][1, 1], ratio, rtol=0.03)


def test_rates_of_the_rows():
    times = np.array([0, 250, 750, 2750])
    rates = {
        name: [(2.0 if row.relative else 1.0) * float(row.plan.rate(t)) for t in times]
        for name, row in rows(PRESETS["digits"].settings).items()
    }
    peaks = 1.5 * 1.4 ** np.array([0, 1, 5])
    np.testing.assert_allclose(rates["sgd"], 1.8, rtol=1e-5)
    np.testing.assert_allclose(rates["sgd_large"], 4.0, rtol=1e-5)
    np.testing.assert_allclose(rates["sgd_cycle"], [0.4, *(2 * peaks)], rtol=1e-5)
    np.testing.assert_allclose(rates["adagrad"], 0.15, rtol=1e-5)
    np.testing.assert_allclose(rates["adagrad_cycle"], [0.02, *(0.1 * peaks)], 1e-5)
    np.testing.assert_allclose(rates["adam"], 0.01, rtol=1e-5)


def runs_of(seeds=12, **rise_of):
    """Curves whose accuracy ends so many points above 90%, with a little noise: common
    to all rows of a seed, and a hundredth of it of their own."""
    random = np.random.default_rng(0)
    common = random.standard_normal((2, seeds, 1))
    runs = {}
    for row in rows(tiny()):
        own = 0.01 * random.standard_normal((2, seeds, 1))
        rise = np.array([10.0, 50.0, 90 + rise_of.get(row, 0.0)])
        cycle = row.endswith("cycle")
        batches = np.ones((2, seeds, 100))
        batches[..., 50:53] = batches[..., 70:73] = 9.0 if cycle else 1.0
        runs[row] = dict(
            accuracy=(rise + common + own) / 100,
            train_loss=np.tile([1.0, 0.4, 0.025], (2, seeds, 1)),
            batch_loss=batches,
            norm_ratio=(0.2 if cycle else 0.8) * np.exp(own[..., 0]),
        )
    return runs


def test_verdicts_of_known_outcome(tmp_path):
    settings = tiny(seeds=12)
    gains = dict(
        sgd_large=0.5, sgd_cycle=0.6, adagrad=0.4, adagrad_cycle=0.1, adam=0.55
    )
    verdicts = {v.claim: v for v in table.claims(settings, runs_of(**gains))}
    assert {v.family for v in verdicts.values()} == {"the table"}
    last = verdicts.pop("sgd_gains_more_from_random_than_from_zero")
    assert not last.holds
    assert len(verdicts) == 20
    assert {*settings.known_false} <= {*verdicts, last.claim}
    for claim, verdict in verdicts.items():
        assert verdict.holds == (not claim.startswith("adam_best")), claim
    np.testing.assert_allclose(verdicts["adam_best_zero"].value, -0.05, atol=0.02)
    np.testing.assert_allclose(verdicts["sgd_worst_zero"].value, 0.1, atol=0.02)
    np.testing.assert_allclose(
        verdicts["catapults_halve_the_kernel_zero"].value, 2, 0.1
    )
    assert verdicts["sgd_cycle_spikes_zero"].value == 2

    runs = runs_of(**gains | dict(sgd_large=1.2, adagrad_cycle=0.5, adam=-0.1))
    runs["sgd_cycle"]["batch_loss"][:] = 1.0
    runs["sgd_cycle"]["accuracy"][1, :, -1] -= 0.4 / 100
    verdicts = {v.claim: v.holds for v in table.claims(settings, runs)}
    for claim in (
        "sgd_cycle_spikes",
        "a_large_rate_does_as_well",
        "catapults_worsen_adagrad",
        "adam_above_sgd",
        "sgd_worst",
        "no_separation_at_equal_loss",
    ):
        assert not verdicts[f"{claim}_random"], claim
    assert verdicts["sgd_gains_more_from_random_than_from_zero"]

    runs["adam"]["batch_loss"][0, 3:5, -1] = np.nan
    runs["adam"]["train_loss"][0, 3:5, -1] = np.nan
    _, text, *_ = table.tables(settings, runs)
    line = text.splitlines()[-1]
    assert line.startswith("Adam ")
    assert "10/12" in line
    assert line.endswith(" 2")
    table.figure(settings, runs, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_accuracy_at_a_loss():
    """Between losses .4 and .025, which are two factors of 4 apart, .1 is half-way."""
    losses, values = np.array([1.0, 0.4, 0.025]), np.array([10.0, 50.0, 90.0])
    for loss, value in ((0.1, 70), (0.4, 50), (0.025, 90), (1.0, 10)):
        np.testing.assert_allclose(table.at_loss(loss, losses, values), value)
    share = np.log(10) / np.log(20)
    falls_and_rises = table.at_loss(0.1, np.array([1.0, 0.05, 0.3]), values)
    np.testing.assert_allclose(falls_and_rises, 10 + 40 * share)
    assert np.isnan(table.at_loss(0.1, np.array([1.0, np.nan, np.nan]), values))


def test_only_missing_rows_are_trained(tmp_path, capsys, monkeypatch):
    settings = tiny()
    rundir = RunDir.open(tmp_path / "run", "catapults", settings.config())
    rundir.begin()
    for row, arrays in runs_of(seeds=2).items():
        if row != "adam":
            rundir.keep(row, arrays)
    verdicts = run(table.study, settings, rundir)
    assert len(verdicts) == 21
    holds = {v.claim: v.holds for v in verdicts}
    assert not holds["no_separation_at_equal_loss_zero"]  # Adam did not get there
    printed = capsys.readouterr().out
    assert printed.count("read from") == 5
    assert "from a zero initial function" in printed
    assert rundir.curves()["adam/accuracy"].shape == (2, 2, 3)
    monkeypatch.setattr(table_runs, "members_of", None)  # nothing is left to train
    again = run(table.study, settings, rundir)
    assert verdict_table(again) == verdict_table(verdicts)
    assert rundir.figure("table").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(width=31), "width=31: needs"),
        (dict(train_size=120), "train_size=120: needs fewer than all 120 images"),
        (dict(kernel_size=81), "kernel_size=81: needs at most train_size=80"),
        (dict(evaluate_every=15), "evaluate_every=15: needs a multiple of log_every"),
        (dict(steps=50), "steps=50: needs a multiple of evaluate_every=20"),
        (dict(activation="step"), "activation 'step' is none of relu"),
        (dict(dataset="digit"), "did you mean 'digits'"),
    ],
    ids=str,
)
def test_settings_that_are_refused(changes, says):
    with pytest.raises(UsageError, match=says):
        table_runs.build_task(tiny(**changes))
