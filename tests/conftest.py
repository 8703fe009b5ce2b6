"""Eight CPU devices, strict rank promotion, and a switch for float64."""

import os

os.environ["JAX_COMPILATION_CACHE_DIR"] = ""

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield
