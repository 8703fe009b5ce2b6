"""What does the exact tangent kernel of 256 examples and 10 outputs cost?

64-64-10 MLP on digits, [n, c, n, c]. By layers it needs no jacobian; by blocks it takes
any model. The naive way is `jax.jacrev` of all outputs at once, and one product; with
torch.func the jacobians of the examples are vmapped, as its own tutorial does.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from benchmarks import peers, problem
from benchmarks.question import Answer, Row, asked, exactly, missing
from benchmarks.timing import clocked, race
from optsde.measure import ntk

EXAMPLES = 256
TINY = dict(EXAMPLES=16)
AIMS = {"layers": 20, "blocks": 330}  # ms


def of_torch(torch: Any):
    """Returns the kernel's function in torch."""
    net = peers.torch_net(torch)
    x, _ = peers.torch_examples(torch, EXAMPLES)
    params = {name: value.detach() for name, value in net.named_parameters()}

    def outputs(params, example):
        return torch.func.functional_call(net, params, (example[None],))[0]

    def kernel():
        jacobian = torch.func.vmap(torch.func.jacrev(outputs), (None, 0))(params, x)
        flat = torch.cat([part.flatten(2) for part in jacobian.values()], dim=2)
        return torch.einsum("ikp,jlp->ikjl", flat, flat)

    return kernel


def _ready(way: Callable, *arguments: Any) -> Any:
    return jax.block_until_ready(way(*arguments))


def ask(seconds: float) -> Answer:
    x = problem.EXAMPLES[0][:EXAMPLES]
    params = problem.PARAMS

    def apply(params, x) -> Any:
        return problem.MODEL.apply({"params": params}, x)

    @jax.jit
    def layers(params, x):
        return ntk.kernel_by_layers(problem.MODEL, params, x)

    @jax.jit
    def blocks(params, x):
        return ntk.kernel(apply, params, x)

    @jax.jit
    def naive(params, x):
        flat, unravel = ravel_pytree(params)
        jacobian = jax.jacrev(lambda p: apply(unravel(p), x))(flat)
        return jnp.einsum("ikp,jlp->ikjl", jacobian, jacobian)

    ways = {"layers": layers, "blocks": blocks, "naive": naive}
    words = {
        "layers": "by layers",
        "blocks": "by blocks",
        "naive": "jax.jacrev",
        "torch": "torch.func",
    }
    calls: dict[str, Callable[[], Any]] = {
        name: functools.partial(_ready, way, params, x) for name, way in ways.items()
    }
    notes = []
    if torch := peers.installed("torch"):
        calls["torch"] = of_torch(torch)
    else:
        notes.append(missing("torch"))
    exact = ntk.exact_kernel(apply, params, x)
    errors = {
        name: float(np.max(np.abs(np.asarray(call()) - exact)) / np.max(exact))
        for name, call in calls.items()
    }
    theirs = [name for name in calls if name not in AIMS]
    pairs = [(ours, other) for ours in AIMS for other in theirs]
    found = race({name: clocked(call) for name, call in calls.items()}, pairs, seconds)
    rows = [
        Row(f"{words[ours]} ÷ {words[other]}", found.ratio(ours, other))
        for ours, other in pairs
    ]
    for name in calls:
        row = f"exact NTK 256 × 10, {words[name]}", found.seconds(name, 1e3), "ms"
        rows.append(Row(*row, aim=AIMS.get(name)))
    rows += [
        Row(f"largest error, {words[name]}", exactly(error), "of the largest entry")
        for name, error in errors.items()
    ]
    return Answer(rows, [*notes, f"{found.rounds} rounds"])


if __name__ == "__main__":
    asked(ask)
