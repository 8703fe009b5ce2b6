"""The table of catapults: training by hand, numbers and verdicts of known outcome."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import catapults as configs
from experiments.catapults import nets, table, table_numbers, table_report
from experiments.catapults.table_runs import ROWS, Trainer, plan_of
from experiments.launch import UsageError
from experiments.rundir import RunDir
from optsde.analysis import verdict_table

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
    config = configs.get_config("digits").unlock()
    config.update(TINY | changes)
    return config


@pytest.fixture(scope="module")
def trainer():
    config = tiny()
    return Trainer(config, table.load(config))


def test_a_row_is_the_run_by_hand(trainer):
    """SGD of the second seed from the zero function, as a plain loop."""
    found = trainer.run(ROWS["sgd"])
    assert found["batch_loss"].shape == (2, 2, 4)
    assert found["accuracy"].shape == (2, 2, 3)
    np.testing.assert_allclose(found["train_loss"][1, :, 0], 1, atol=1e-5)  # |y|² = 1
    assert min(found["train_loss"][0, :, 0]) > 2

    x, y = map(jnp.asarray, nets.centred("digits", 120))
    config, which = trainer.config, 2 + 1
    params, key = jax.tree.map(
        lambda a: a[which], (trainer.members.params, trainer.keys)
    )
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
    np.testing.assert_allclose(0.9 * trainer.members.critical[which], lr, rtol=0.03)
    lr = 0.9 * trainer.members.critical[which]
    descend = jax.jit(jax.value_and_grad(loss))
    seen = []
    for step in range(config.steps):
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
    config = configs.get_config("digits")
    times = np.array([0, 250, 750, 2750])
    rates = {
        name: [float(plan_of(config, row, 2.0).rate(float(t))) for t in times]
        for name, row in ROWS.items()
    }
    peaks = 1.5 * 1.4 ** np.array([0, 1, 5])
    np.testing.assert_allclose(rates["sgd"], 1.8, rtol=1e-5)
    np.testing.assert_allclose(rates["sgd_large"], 4.0, rtol=1e-5)
    np.testing.assert_allclose(rates["sgd_cycle"], [0.4, *(2 * peaks)], rtol=1e-5)
    np.testing.assert_allclose(rates["adagrad"], 0.15, rtol=1e-5)
    np.testing.assert_allclose(rates["adagrad_cycle"], [0.02, *(0.1 * peaks)], 1e-5)
    np.testing.assert_allclose(rates["adam"], 0.01, rtol=1e-5)


def columns_of(seeds=12, **rows):
    """Curves whose accuracy ends `rows` points above 90%, with a little noise: common
    to all rows of a seed, and a hundredth of it of their own."""
    random = np.random.default_rng(0)
    common = random.standard_normal((2, seeds, 1))
    columns = {}
    for row in ROWS:
        own = 0.01 * random.standard_normal((2, seeds, 1))
        rise = np.array([10.0, 50.0, 90 + rows.get(row, 0.0)])
        cycle = row.endswith("cycle")
        batches = np.ones((2, seeds, 100))
        batches[..., 50:53] = batches[..., 70:73] = 9.0 if cycle else 1.0
        columns[row] = dict(
            accuracy=(rise + common + own) / 100,
            train_loss=np.tile([1.0, 0.4, 0.025], (2, seeds, 1)),
            batch_loss=batches,
            norm_ratio=(0.2 if cycle else 0.8) * np.exp(own[..., 0]),
        )
    return columns


def test_verdicts_of_known_outcome(tmp_path):
    config = tiny(seeds=12, known_false=("adam_best_zero",))
    gains = dict(
        sgd_large=0.5, sgd_cycle=0.6, adagrad=0.4, adagrad_cycle=0.1, adam=0.55
    )
    columns = columns_of(**gains)
    verdicts = {v.claim: v for v in table_report.judge(config, columns)}
    last = verdicts.pop("sgd_gains_more_from_random_than_from_zero")
    assert not last.holds
    assert len(verdicts) == 20
    known = set(configs.get_config("digits").known_false)
    assert known <= {*verdicts, last.claim}
    for claim, verdict in verdicts.items():
        assert verdict.holds == (not claim.startswith("adam_best")), claim
    assert verdicts["adam_best_random"].expected
    assert not verdicts["adam_best_zero"].expected
    np.testing.assert_allclose(verdicts["adam_best_zero"].value, -0.05, atol=0.02)
    np.testing.assert_allclose(verdicts["sgd_worst_zero"].value, 0.1, atol=0.02)
    np.testing.assert_allclose(
        verdicts["catapults_halve_the_kernel_zero"].value, 2, 0.1
    )
    assert verdicts["sgd_cycle_spikes_zero"].value == 2

    columns = columns_of(**gains | dict(sgd_large=1.2, adagrad_cycle=0.5, adam=-0.1))
    columns["sgd_cycle"]["batch_loss"][:] = 1.0
    columns["sgd_cycle"]["accuracy"][1, :, -1] -= 0.4 / 100
    verdicts = {v.claim: v.holds for v in table_report.judge(config, columns)}
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

    columns["adam"]["batch_loss"][0, 3:5, -1] = np.nan
    columns["adam"]["train_loss"][0, 3:5, -1] = np.nan
    assert table_numbers.diverged(columns, "adam", "random") == 2
    line = table_report.results(config, columns, "random").splitlines()[-1]
    assert line.startswith("Adam ")
    assert "10/12" in line
    assert line.endswith(" 2")
    table_report.draw(config, columns, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_accuracy_at_a_loss():
    """Between losses .4 and .025, which are two factors of 4 apart, .1 is half-way."""
    columns = columns_of()
    at = table_numbers.matched_accuracy
    before, after = 100 * columns["sgd"]["accuracy"][0, :, 1:].T
    np.testing.assert_allclose(at(columns, "sgd", "random", 0.1), (before + after) / 2)
    np.testing.assert_allclose(at(columns, "sgd", "random", 0.4), before)
    np.testing.assert_allclose(at(columns, "sgd", "random", 0.025), after)
    columns["sgd"]["train_loss"][0, 0] = [1.0, 0.05, 0.3]
    columns["sgd"]["train_loss"][0, 1] = [1.0, np.nan, np.nan]
    found = at(columns, "sgd", "random", 0.1)
    accuracies = 100 * columns["sgd"]["accuracy"][0, 0]
    share = np.log(10) / np.log(20)
    np.testing.assert_allclose(
        found[0], (1 - share) * accuracies[0] + share * accuracies[1]
    )
    assert np.isnan(found[1])


def test_only_missing_rows_are_trained(trainer, tmp_path, capsys, monkeypatch):
    config = tiny()
    monkeypatch.setattr(table, "Trainer", lambda config, images: trainer)
    held = columns_of(seeds=2)
    rundir = RunDir.open(tmp_path / "run", "catapults", config)
    rundir.begin()
    rundir.add_curves(
        {f"{r}/{n}": x for r, of in held.items() for n, x in of.items() if r != "adam"}
    )
    verdicts = table.run(config, rundir)
    assert len(verdicts) == 21
    held = {v.claim: v.holds for v in verdicts}
    assert not held["no_separation_at_equal_loss_zero"]  # Adam did not get there
    assert "SGD, 0.9 η_crit, SGD, 2 η_crit, SGD + catapults, AdaGrad" in (
        said := capsys.readouterr().out
    )
    assert "from a zero initial function" in said
    assert rundir.curves()["adam/accuracy"].shape == (2, 2, 3)
    monkeypatch.setattr(table, "Trainer", None)  # nothing is left to train
    again = table.run(config, rundir)
    assert verdict_table(again) == verdict_table(verdicts)
    assert (tmp_path / "run" / "figures" / "table.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(width=31), "width=31: needs an even number"),
        (dict(train_size=120), "train_size=120: needs fewer than all 120 images"),
        (dict(kernel_size=81), "kernel_size=81: needs at most train_size=80"),
        (dict(evaluate_every=15), "evaluate_every=15: needs a multiple of 10 steps"),
        (dict(steps=50), "steps=50: needs a multiple of evaluate_every=20"),
        (dict(seeds=1), "seeds=1: needs at least 2"),
        (dict(images=-5), "images=-5: needs 0"),
        (dict(adam_lr=0.0), "adam_lr=0.0: needs a positive number"),
        (dict(activation="step"), "activation 'step' is none of relu"),
        (dict(dataset="digit"), "did you mean 'digits'"),
    ],
    ids=str,
)
def test_settings_that_are_refused(changes, says):
    table.check(tiny())
    with pytest.raises(UsageError, match=says):
        table.check(tiny(**changes))
