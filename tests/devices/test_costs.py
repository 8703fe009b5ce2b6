"""Dry runs: eight devices of one processor have its speed, and not eight times it."""

import os

import jax
import jax.numpy as jnp
import pytest

from experiments.fullbatch.costs import matmul_rate


@pytest.mark.skipif((os.cpu_count() or 8) > 4, reason="needs few cores")
def test_devices_that_share_cores_are_not_credited_with_more(monkeypatch):
    """The bound of 4 leaves room for another program on one of two cores."""
    assert len(jax.local_devices()) == 8
    together = matmul_rate(jnp.float32)
    one = jax.devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: one)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert together < 4 * matmul_rate(jnp.float32)
