"""One CPU device, one compilation cache, strict rank promotion, float64 on demand."""

import gc
import os
from pathlib import Path

# jax reads them when it is imported, here and in child processes.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
    Path(__file__).parent.parent / ".pytest_cache" / "jax"
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_NUM_CPU_DEVICES"] = "1"

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")


def optimize(programs: bool):
    """Whether XLA takes the time to optimize what it compiles."""
    jax.config.update("jax_disable_most_optimizations", not programs)


@pytest.fixture(autouse=True)
def _optimizations(request):
    """Only theory, and what is marked, runs for long enough to win that time back."""
    marked = request.node.get_closest_marker("optimized")
    optimize(marked is not None or "theory" in request.path.parts)


@pytest.fixture(autouse=True, scope="module")
def _garbage():
    """Keeps what jax holds for good out of every later search for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield
