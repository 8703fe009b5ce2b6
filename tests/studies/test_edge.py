"""experiments.catapults.edge: a small run, verdicts of known outcome, refusals."""

import numpy as np
import pytest

from configs import catapults as configs
from experiments.catapults import edge
from experiments.launch import UsageError
from experiments.rundir import RunDir


def config_of(**changes):
    config = configs.get_config("edge").unlock()
    config.update(changes)
    return config


def test_a_small_run_and_the_same_again(tmp_path, capsys):
    """Adam on 32 digits: its measurements and the figure; then read, not run."""
    config = config_of(train_size=32, hidden=(4,), steps=12, every=4, seeds=2)
    for arm in ("gd", "momentum", "rmsprop"):
        del config.optimizers[arm]
    edge.check(config)
    rundir = RunDir.open(tmp_path / "run", "catapults", config)
    rundir.begin()
    first = edge.run(config, rundir)
    assert [v.claim for v in first] == ["adam_stays_at_threshold", "adam_rises_to_it"]
    assert rundir.figure("edge").stat().st_size > 10_000
    found = edge.train_arm(config, "adam", rundir.path / "arms" / "adam")
    assert "adam: read from" in capsys.readouterr().out
    np.testing.assert_array_equal(found["step"], [4, 8, 12])
    assert found["sharpness"].shape == (2, 3)
    worn_off = 1 - 0.9 ** (found["step"] + 1)  # 1 − b1^t of the next step
    expected = np.broadcast_to(38_000 * worn_off, (2, 3))
    np.testing.assert_allclose(found["threshold"], expected, rtol=1e-4)
    assert found["sharpness_residual"].max() <= 0.01
    assert np.all(found["preconditioned_sharpness"] > 0)


def curves_of(late):
    """Three seeds from a fifth of the threshold to `late` of it in the last third."""
    shape = np.r_[np.linspace(0.2, 1, 6), np.full(3, late)]
    ratio = shape * np.array([[0.99], [1.0], [1.01]])
    return {
        "step": np.arange(1, 10) * 20,
        "preconditioned_sharpness": 50 * ratio,
        "threshold": np.full_like(ratio, 50),
    }


def test_verdicts_of_known_outcome():
    curves = {"gd": curves_of(1.02), "adam": curves_of(1.1), "rmsprop": curves_of(0.4)}
    verdicts = {v.claim: v for v in edge.judge(config_of(), curves)}
    held = {claim: v.holds for claim, v in verdicts.items()}
    assert held == {
        "gd_stays_at_threshold": True,
        "gd_rises_to_it": True,
        "adam_stays_at_threshold": False,
        "adam_rises_to_it": True,
        "rmsprop_stays_at_threshold": False,
        "rmsprop_rises_to_it": False,
    }
    np.testing.assert_allclose(verdicts["gd_stays_at_threshold"].value, 2.0)
    np.testing.assert_allclose(verdicts["adam_rises_to_it"].value, 90.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(seeds=1), "seeds=1: needs at least 2"),
        (dict(every=7), "every=7: needs a divisor of steps=2400"),
        (dict(steps=20), "steps=20: needs at least 3 measurements"),
        (dict(train_size=1798), "train_size=1798: needs 2 to 1797"),
        (dict(hidden=()), r"hidden=\(\): needs"),
        (dict(init=0.0), "init=0.0: needs a positive factor"),
        (dict(lanczos=1), "lanczos=1: needs at least 2"),
        (dict(optimizers=dict(gd=dict(lr=-1.0))), "optimizers.gd: lr=-1.0: needs"),
        (dict(optimizers=dict(adam=dict(name="sgd"))), "optimizers.adam: .*b1"),
        (dict(optimizers=dict(gd=dict(name="lion"))), "optimizers.gd: Lion does not"),
        (dict(optimizers=dict(best={})), "optimizers.best: needs one of gd, momentum"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(UsageError, match=message):
        edge.check(config_of(**changes))


def test_the_preset_passes_its_own_check():
    edge.check(configs.get_config("edge"))
