"""Helpers that several tests share: sizes by tier, and studies as child processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent.parent


def sized(small, full):
    """Two sizes to parametrise over: of `make test`, and of `make test-all` besides."""
    return [
        pytest.param(small, id="small"),
        pytest.param(full, id="full", marks=[pytest.mark.full, pytest.mark.optimized]),
    ]


def lowered(engine, state):
    """The loop of an engine, lowered for a state: what its compiler is given."""
    return engine.chunk.lower(*engine.arguments(state, engine.zeros(state), 0))


def environment() -> dict[str, str]:
    """The environment of a child process: that of a user, but for the shared cache."""
    ours = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    return ours | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


def command(study: str, *arguments) -> list[str]:
    """The command line of a study, such as command("svag", "--config.seeds=3")."""
    return [sys.executable, "-m", f"experiments.{study}", *map(str, arguments)]


def run_child(arguments: list, **options) -> subprocess.CompletedProcess:
    """Run a command to its end, from the repository's root, keeping what it prints."""
    defaults = dict(cwd=ROOT, env=environment(), timeout=300)
    return subprocess.run(
        arguments, capture_output=True, text=True, **(defaults | options)
    )


def run_study(study: str, *arguments, **options) -> subprocess.CompletedProcess:
    """Run a study's command to its end."""
    return run_child(command(study, *arguments), **options)


@contextmanager
def compiling() -> Iterator[list[str]]:
    """The names of the programs that are compiled meanwhile, or read from the cache."""
    names: list[str] = []

    def note(event, seconds, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(about["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
