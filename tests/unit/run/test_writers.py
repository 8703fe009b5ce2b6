"""Writers: scalars of TensorBoard, and spikes marked in the rows."""

import numpy as np
import pytest

from optsde import run
from optsde.run.writers import JsonLines, read


def test_tensorboard_writes_scalars(tmp_path):
    pytest.importorskip("tensorboardX")
    writer = run.TensorBoard(tmp_path / "board")
    writer.begin(0, [])
    writer.write({"step": 3, "loss": [1.0, 2.0]})
    writer.close()
    (events,) = (tmp_path / "board").iterdir()
    assert events.stat().st_size > 50


def test_spikes_are_marked_through_an_interruption(tmp_path):
    losses = [1.0] * 25 + [5.0, 9.0, 1.1] + [1.0] * 5
    rows = [{"step": i, "loss": [x, 1.0]} for i, x in enumerate(losses)]
    whole, parts = (
        run.MarkSpikes(run.JsonLines(tmp_path / n)) for n in ("whole", "parts")
    )
    for writer, cuts in ((whole, [(0, 33)]), (parts, [(0, 27), (26, 33)])):
        for first, last in cuts:
            writer.begin(first, rows[: first + (first > 0)])
            for row in rows[first + (first > 0) : last]:
                writer.write(row)
            writer.close()
    marked = read(tmp_path / "whole")
    assert marked == read(tmp_path / "parts")
    assert [i for i, (first, _) in enumerate(marked["spike"]) if first] == [25, 26]
    assert not any(second for _, second in marked["spike"])


def test_what_was_not_finite_is_read_as_nan_and_what_lacks_as_none(tmp_path):
    rows = JsonLines(tmp_path / "metrics.jsonl")
    rows.begin(0, [])
    rows.write({"step": 1, "loss": float("nan"), "each": [1.0, float("inf")]})
    rows.write({"step": 2, "loss": 0.5})
    rows.close()
    columns = read(rows.path)
    np.testing.assert_equal(columns["loss"], [np.nan, 0.5])
    np.testing.assert_equal(np.array(columns["each"][0], float), [1, np.nan])
    assert columns["each"][1] is None
