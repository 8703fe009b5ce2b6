"""experiments.fullbatch.orders: verdicts of known outcome, refusals, a run."""

import dataclasses

import jax
import numpy as np
import pytest

from configs.fullbatch import PRESETS
from experiments.fullbatch import costs, orders, recipe
from optsde.run import Series
from optsde.study import RunDir, UsageError
from optsde.study.runs import ArmRuns
from optsde.study.study import run

NAMES = [n for n, p in PRESETS.items() if isinstance(p.settings, orders.Settings)]
PRESET_NAMES = [
    n if n.startswith("digits") else pytest.param(n, marks=pytest.mark.full)
    for n in NAMES
]
TINY = dict(model="mlp", options={"hidden": (8,)}, train_size=16, test_size=64, seeds=2)


def settings(preset="digits_stabilisers", **changes):
    return dataclasses.replace(PRESETS[preset].settings, **changes).checked()


def test_verdicts_are_of_the_rows_that_are_named(tmp_path, monkeypatch, capsys):
    seeds = np.linspace(-0.1, 0.1, 6)
    errors = {"neither": 9.0, "warmup": 6.0, "clip": 5.0, "both": 4.8}

    def ended(s, row, task, rundir, folder, name):
        ends = np.stack([0 * seeds + 0.1, 1 - (errors[name] + seeds) / 100], axis=1)
        series = Series(np.array([0, row.steps]), ends)
        return ArmRuns(name, {"test_accuracy": series, "test_loss": series})

    monkeypatch.setattr(recipe, "train", ended)
    s = settings(seeds=6, train_size=32)
    verdicts = run(orders.study, s, RunDir.open(tmp_path, "fullbatch", s.config()))
    found = {v.claim: (round(v.value, 6), v.holds) for v in verdicts}
    assert found == {
        "warmup_alone_helps": (3.0, True),
        "clip_alone_helps": (4.0, True),
        "clip_above_warmup": (1.0, True),
        "both_above_warmup": (1.2, True),
        "both_as_clip": (0.2, True),
    }
    assert {v.family for v in verdicts} == {"orders"}
    assert (tmp_path / "figures" / "orders.png").stat().st_size > 10_000
    assert "neither" in capsys.readouterr().out


def test_rows_and_bounds_are_checked():
    order = orders.Order(one="clip", other="nobody")
    with pytest.raises(UsageError, match=r"orders\.a\.other=nobody: needs one of the"):
        settings(orders={"a": order})
    with pytest.raises(UsageError, match=r"orders\.a\.other=clip: .* and not the same"):
        settings(orders={"a": orders.Order(one="clip", other="clip")})
    alike = orders.Order(one="clip", other="both", alike=True)
    with pytest.raises(UsageError, match=r"orders\.a\.points=0\.0: needs a positive"):
        settings(orders={"a": alike})
    with pytest.raises(
        UsageError, match=r"published\.sgd=95\.0: needs one of the rows"
    ):
        settings(published={"sgd": 95.0})


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_rows_of_a_preset_fit_its_data(preset):
    """Warm-ups end within their rows, and the net takes images of the data's shape."""
    s = settings(preset, train_size=256)
    task = recipe.build_task(s, costs.stand_in(s))
    assert task.size == 256 * (s.copies if s.augment == "frozen" else 1)
    for row in s.rows.values():
        assert row.warmup < row.steps
        recipe.build_plan(s, row, task.size)
    jax.eval_shape(task.init, jax.random.key(0))


@pytest.mark.full
def test_a_preset_runs(tmp_path):
    row = dict(steps=4, cosine=6.0, block=8, at_once=2)
    rows = {n: recipe.Row(**row, clip=c) for n, c in {"one": 0.0, "other": 0.1}.items()}
    s = settings(**TINY, rows=rows, orders={"a": orders.Order()}, log_every=2)
    s = dataclasses.replace(s, evaluate_every=2).checked()
    (verdict,) = run(orders.study, s, RunDir.open(tmp_path, "fullbatch", s.config()))
    assert verdict.claim == "a"
