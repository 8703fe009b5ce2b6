"""Runs that are watched at every step, many at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from optsde import Progress
from optsde.dynamics import Engine

AHEAD = 50  # steps that the host may run ahead of the devices


class Series(NamedTuple):
    """Numbers of steps start, start + 1, …; the loss is that before the step."""

    loss: np.ndarray  # [replicas, steps]
    seen: dict[str, np.ndarray]  # [replicas, steps], what `look` said
    state: Any
    memory: Any


def watch(
    engine: Engine,
    state: Any,
    steps: int,
    look: Callable | None = None,
    memory: Any = (),
    *,
    progress: Progress | None = None,
    start: int = 0,
    total: int | None = None,
) -> Series:
    """`steps` steps from `state`; look(state, memory) -> (numbers, memory) at each.

    Both are stacked over replicas, as `engine.each` makes them. start, total: where
    these steps lie in the run that the progress line shows.
    """
    import jax

    nothing = engine.no_info(state)
    losses, seen = [], []
    for step in range(steps):
        if look is not None:
            said, memory = look(state, memory)
            seen.append(said)
        state, info = engine.advance(state, nothing, 1)
        losses.append(info.loss)
        if step % AHEAD == AHEAD - 1:
            jax.block_until_ready(losses[-1])
            if progress:
                progress.update(start + step + 1, total or steps)

    def stacked(rows: list) -> np.ndarray:
        # One copy of all steps to the host, and not one for each.
        return np.asarray(jax.numpy.stack(rows, axis=1))[: engine.replicas]

    numbers = {name: stacked([s[name] for s in seen]) for name in (seen[:1] or [{}])[0]}
    return Series(stacked(losses), numbers, state, memory)
