"""Cosines longer than the run: one member alone, verdicts of known ends, the study."""

import jax.numpy as jnp
import numpy as np
import pytest
from test_descent import settings_of, study_of

import optsde
from experiments.descent import held_out, lengths
from optsde.gradients import minibatch
from optsde.plans.schedules import cosine
from optsde.study.tasks import build_task

SMALL = dict(
    options={"hidden": (8,)},
    train_size=64,
    batch_size=16,
    steps=20,
    seeds=4,
    factors=(1.0, 4.0),
)


def ends(gaps, seeds=24):
    """Losses of each length, so many % above those of length 1, with equal noise."""
    noise = np.random.RandomState(0).standard_normal((seeds, 2)) * 0.01
    found = {
        length: 1 + gap / 100 + noise[:, 0] + 0.1 * (length > 1) * noise[:, 1]
        for length, gap in gaps.items()
    }
    return lengths.Ends(fixed=found, tuned=found, peaks=dict.fromkeys(gaps, 1.0))


def test_verdicts_of_known_ends():
    s = settings_of("lengths")
    gaps = {1.0: 0, 1.1: 0, 1.25: 0.2, 1.5: 1, 2.0: 3, 5.0: -3}
    held = {v.claim: v.outcome for v in lengths.claims(s, ends(gaps))}
    assert held == {
        "1.1_does_no_harm": "holds",
        "1.25_does_no_harm": "holds",
        "1.5_is_worse": "holds",
        "2_is_worse": "holds",
        "5_is_worse": "fails",
        "5_is_worse_at_its_own_peak": "fails",
    }


@pytest.mark.full
def test_stacked_lengths_are_those_run_alone_and_peaks_are_chosen(tmp_path):
    """The run of twice the length by itself; then the study's verdicts."""
    changes = SMALL | dict(lengths=(1.0, 2.0))
    s = settings_of("lengths", **changes)
    verdicts = study_of("lengths", tmp_path, **changes)
    assert [v.claim for v in verdicts] == ["2_is_worse", "2_is_worse_at_its_own_peak"]
    assert (tmp_path / "figures" / "lengths.png").stat().st_size > 10_000
    with np.load(next((tmp_path / "curves").glob("held_out*.npz"))) as curves:
        found = curves["held_out/loss"]
    assert found.shape == (2, 2, 4)

    def plan_of(member):
        return optsde.Plan(
            optimizer=s.optimizer.times_lr(member),
            batch_size=16,
            horizon=20,
            schedule=cosine(40.0, 0.1),
        )

    task, member = build_task(s), jnp.array([4.0])
    alone = held_out.train(s, task, plan_of, member, minibatch)["loss"][0]
    np.testing.assert_allclose(found[1, 1], alone, rtol=1e-4)
