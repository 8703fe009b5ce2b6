"""A probe: a measurement that a training run takes of itself every so many steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from optsde.types import PyTree


class Probe(NamedTuple):
    """look(source, state, memory) -> (numbers for the run's rows, memory for the next).

    All of one replica; the loop maps it over replicas and devices, and compiles it. The
    memory, such as the last eigenvector, is kept in the run's checkpoints. `source` is
    what it reads besides the state, so that data is an argument and no constant.
    """

    look: Callable[[Any, Any, PyTree], tuple[dict[str, jax.Array], PyTree]]
    init: Callable[[Any], PyTree] = lambda state: ()
    source: PyTree = ()
