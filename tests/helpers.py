"""Helpers that several tests share: where the project is, and child processes."""

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent


def environment():
    """The environment of a child process that runs a study."""
    return os.environ | {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": ""}
