"""Spread over starts: statistics of known ends, and the study."""

import numpy as np
import pytest
from test_descent import settings_of, study_of

from experiments.descent import starts
from optsde.analysis import interval

WIDTHS = (8, 16, 32, 64)


def ends(power, correlations, seeds=400):
    """Losses about 1 whose SD is .1 (width/8)^power, correlated with another's."""
    random = np.random.RandomState(0)
    one, other = random.standard_normal((2, seeds, len(WIDTHS)))
    r = np.array(correlations)
    scale = 0.1 * (np.array(WIDTHS) / 8.0) ** power
    return 1 + scale * one, r * one + np.sqrt(1 - r**2) * other


def test_the_power_of_a_spread():
    """Within its 95% interval, which 400 starts make narrow."""
    test, _ = ends(-0.5, np.zeros(4))
    for statistic, power in ((starts.spread, -0.5), (starts.relative, -0.5)):
        _, low, high = interval(starts.power(WIDTHS, statistic, test))
        assert low < power < high < low + 0.2


def test_correlations_over_starts():
    expected = (0.8, 0.6, 0.4, 0.2)
    found = starts.correlation(*ends(0.0, expected))
    np.testing.assert_allclose(found, expected, atol=4 / np.sqrt(400))


def test_verdicts_of_ends_that_gather_and_part():
    s = settings_of("starts", widths=WIDTHS)
    test, training = ends(-0.5, (0.8, 0.6, 0.4, 0.2))
    runs = {"test_loss": test, "train_loss": 5 + training}
    found = {v.claim: v for v in starts.claims(s, runs)}
    assert found["test_spread_falls"].holds
    assert found["test_and_training_part"].holds
    assert found["test_spread_still_falls_when_wide"].holds
    assert not found["training_spread_falls"].holds
    assert not found["test_mean_falls"].holds


@pytest.mark.full
def test_the_study_runs(tmp_path, capsys):
    changes = dict(train_size=64, test_size=32, widths=(2, 4, 8), seeds=4)
    verdicts = study_of("starts", tmp_path, **changes, steps=20, batch_size=8)
    assert len(verdicts) == 7
    assert all(np.isfinite(v.value) for v in verdicts)
    assert (tmp_path / "figures" / "starts.png").stat().st_size > 10_000
    capsys.readouterr()
    again = study_of("starts", tmp_path, **changes, steps=20, batch_size=8)
    assert again == verdicts
    assert "read from" in capsys.readouterr().out
