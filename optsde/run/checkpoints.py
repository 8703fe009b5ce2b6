"""Checkpoints by orbax: written beside the run, whole or not at all, newest first.

Random keys are stored as the numbers they are made of. What is restored has the values,
types and devices of what was saved, bit for bit.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from optsde.types import PyTree


class Checkpoints:
    """A directory of checkpoints by step; the newest `keep` are kept."""

    def __init__(self, directory: Path, keep: int = 2):
        import orbax.checkpoint as ocp

        self._ocp = ocp
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def latest(self) -> int | None:
        """The step of the newest one."""
        return self._manager.latest_step()

    def save(self, step: int, state: PyTree) -> None:
        """Copies at once, and writes while the run goes on."""
        plain = jax.tree.map(_plain, state)
        self._manager.save(step, args=self._ocp.args.StandardSave(plain))

    def restore(self, step: int, like: PyTree) -> PyTree:
        """The state at `step`, with the structure and devices of `like`."""
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
            jax.tree.map(_plain, like),
        )
        args: Any = self._ocp.args.StandardRestore(shapes)
        plain = self._manager.restore(step, args=args)
        return jax.tree.map(
            lambda x, wanted: jax.random.wrap_key_data(x) if _is_key(wanted) else x,
            plain,
            like,
        )

    def close(self) -> None:
        """Wait until all is written."""
        self._manager.wait_until_finished()
        self._manager.close()


def load_params(directory: Path, step: int | None = None) -> tuple[int, PyTree]:
    """Returns (step, parameters [replicas, …]) from a run's checkpoints, in numpy."""
    import orbax.checkpoint as ocp

    if not directory.is_dir():
        raise ValueError(f"{directory}: no checkpoints here")
    handler = ocp.StandardCheckpointHandler()
    with ocp.CheckpointManager(directory.absolute(), item_handlers=handler) as manager:
        found = manager.latest_step() if step is None else step
        if found is None or found not in manager.all_steps():
            steps = ", ".join(map(str, manager.all_steps())) or "none"
            raise ValueError(f"{directory}: no checkpoint of step {found}; {steps}")
        # Not on the devices that saved it: others may be there now.
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        saved: Any = manager.item_metadata(found)
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), saved
        )
        tree: Any = manager.restore(found, args=ocp.args.StandardRestore(shapes))
    return found, jax.tree.map(np.asarray, tree["state"]["params"])


def _is_key(x) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _plain(x):
    return jax.random.key_data(x) if _is_key(x) else x
