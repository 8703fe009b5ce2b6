"""The benchmarks' problem in other hands: torch, and C++. A peer may be missing."""

import importlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import problem


def installed(package: str) -> Any:
    """Returns the package, or None where it is not installed."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        return None


def torch_net(torch: Any, params: Any = problem.PARAMS) -> Any:
    """Returns the problem's net with these parameters."""
    net = torch.nn.Sequential(
        torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
    )
    with torch.no_grad():
        for layer, dense in (net[0], "Dense_0"), (net[2], "Dense_1"):
            given = jax.device_get(params[dense])
            layer.weight.copy_(torch.tensor(given["kernel"].T.copy()))
            layer.bias.copy_(torch.tensor(given["bias"]))
    return net


def torch_examples(torch: Any, count: int | None = None) -> tuple[Any, Any]:
    """Returns inputs and labels, or the first of them."""
    x, y = (jax.device_get(part)[:count] for part in problem.EXAMPLES)
    return torch.tensor(x), torch.tensor(y).long()


def compiled(torch: Any, step: Callable, *arguments: Any) -> tuple[Callable, bool]:
    """Returns the step compiled, and whether it could be: inductor needs a compiler."""
    try:
        fast = torch.compile(step)
        fast(*arguments)
    except Exception:  # of many kinds, by backend
        return step, False
    return fast, True


class Program:
    """A C++ source of this folder, compiled for this machine.

    Called with seeds, steps and threads it returns (seconds, loss of each seed).
    """

    def __init__(self, source: str):
        self._folder = tempfile.TemporaryDirectory()
        place = Path(self._folder.name)
        self._program, self._given = place / "program", place / "given"
        path = Path(__file__).parent / source
        command = ["g++", "-O3", "-march=native", "-pthread", path, "-o", self._program]
        subprocess.run(command, check=True)
        x, y = jax.device_get(problem.EXAMPLES)
        layers = [problem.PARAMS[name] for name in ("Dense_0", "Dense_1")]
        flat = [
            np.ravel(layer[part]) for layer in layers for part in ("kernel", "bias")
        ]
        with open(self._given, "wb") as file:
            file.write(np.int32(len(x)).tobytes())
            for array in (*flat, x):
                file.write(np.asarray(array, np.float32).tobytes())
            file.write(np.asarray(y, np.int32).tobytes())

    @staticmethod
    def possible() -> bool:
        """Returns whether there is a compiler."""
        return shutil.which("g++") is not None

    def __call__(
        self, seeds: int, steps: int, threads: int
    ) -> tuple[float, np.ndarray]:
        command = [self._program, self._given, str(seeds), str(steps), str(threads)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, *losses = map(float, done.stdout.split())
        return seconds, np.array(losses)
