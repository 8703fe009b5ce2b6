"""The examples of docs/nets.md run as they stand, and are short."""

import re

import numpy as np
import pytest
from helpers import ROOT

PAGE = (ROOT / "docs" / "nets.md").read_text()
COMMON, *BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
TITLES = ["plain", "flagged", "masked", "nnx", "equinox", "function", "haiku"]
TITLES += ["accumulation"]


@pytest.mark.parametrize(
    ("title", "block"), list(zip(TITLES, BLOCKS, strict=True)), ids=TITLES
)
def test_examples_run(title, block):
    if title == "haiku":
        pytest.importorskip("haiku", reason="dm-haiku is not installed")
    lines = [line for line in (COMMON + block).splitlines() if line]
    assert len(lines) <= 25
    names = {}
    exec(COMMON, names)
    exec(block, names)
    row = names["row"]
    if title == "accumulation":
        np.testing.assert_allclose(row["accumulated"], row["at once"], rtol=1e-5)
    elif title == "function":
        assert "test_accuracy" not in row
        assert (
            np.mean(row["test_loss"]) < 8
        )  # about 14 at the start, ½ of 1² + … + 9² over 10
    else:
        assert np.mean(row["test_accuracy"]) > 0.5  # chance is 0.1
