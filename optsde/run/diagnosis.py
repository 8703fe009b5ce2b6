"""Why a run left the finite numbers: its data, its labels, its start, or its rate."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optsde.data.resident import Resident, arrays_of
from optsde.data.stream import Stream
from optsde.hosts import gathered
from optsde.run.engine import Engine
from optsde.run.windows import Window
from optsde.types import PyTree

NAMED = 6  # rows, replicas or values that a line names
GROWN = 2.0  # times its least value a loss has risen by, if a rate is to blame


def lost(values: Mapping[Any, Any]) -> dict[Any, list[int]]:
    """Returns the replicas of which a number is not finite, for each metric."""
    found = {}
    for name, value in values.items():
        each = np.isfinite(value).reshape(len(value), -1).all(axis=1)
        if not each.all():
            found[name] = np.flatnonzero(~each).tolist()
    return found


def diagnosis(
    engine: Engine,
    steps: tuple[int, int],
    metrics: Mapping[str, list[int]],
    losses: Sequence[np.ndarray],
) -> str:
    """Returns in a line which replicas were lost, between which steps, and why.

    Args:
      engine: that runs them.
      steps: of the last row that was finite, and of this one.
      metrics: those that are not finite, with the replicas that `lost` gives.
      losses: [rows] of losses [replicas], those of the rows before this one.
    """
    first, last = steps
    replicas = sorted({replica for each in metrics.values() for replica in each})
    names = _several([*metrics])
    which = f"{_replicas(engine, replicas)}: {names} not finite"
    causes = [*_in_data(engine)] or [_in_run(engine, metrics, replicas, losses)]
    return f"between step {first} and {last}: {which}; {'; '.join(causes)}"


def _replicas(engine: Engine, replicas: list[int]) -> str:
    if engine.replicas == 1:
        text = "the one replica"
    elif len(replicas) == engine.replicas:
        return f"all {engine.replicas} replicas"
    else:
        plural = "s" if len(replicas) > 1 else ""
        text = f"replica{plural} {_several(replicas)} of {engine.replicas}"
    if engine.keys is not None and len(replicas) == 1:
        numbers = np.asarray(jax.random.key_data(engine.keys[replicas[0]]))
        text += f" (key {','.join(map(str, numbers))})"
    return text


def _in_data(engine: Engine) -> Iterator[str]:
    """Yields what is wrong with the examples, by a pass over them."""
    for name, array in _examples(engine):
        if array.dtype.kind not in "iub":
            wrong, what = ~np.isfinite(array), "not finite"
        elif name.endswith("targets") and engine.labels is not None:
            lowest, classes = engine.labels
            wrong = (array < lowest) | (array >= classes)
            what = f"no class from {lowest} to {classes - 1}"
        else:
            continue
        if wrong.any():
            rows = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1)).tolist()
            verb, plural = ("is", "") if wrong.sum() == 1 else ("are", "s")
            where = f"row{'s' if len(rows) > 1 else ''} {_several(rows)}"
            yield f"{wrong.sum()} value{plural} of {name} {verb} {what}, in {where}"


def _examples(engine: Engine) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the arrays of examples by name: all, or those of a stream's window.

    Rows of a window are counted from its first step on.
    """
    for source in jax.tree.leaves(engine.examples, is_leaf=_is_source):
        where = "the "
        if isinstance(source, Window):
            where = "the window's "
            leaves = gathered(jax.tree.leaves(source.examples))
            arrays = [x.reshape(-1, *x.shape[3:]) for x in leaves]
        elif isinstance(source, Resident | Stream):
            arrays = [np.asarray(x) for x in arrays_of(source)]
        else:
            continue
        names = ("inputs", "targets") if len(arrays) == 2 else ("data",) * len(arrays)
        yield from zip([where + name for name in names], arrays, strict=True)


def _is_source(x: Any) -> bool:
    return isinstance(x, Window | Resident | Stream)


def _in_run(
    engine: Engine,
    metrics: Mapping[str, list[int]],
    replicas: list[int],
    losses: Sequence[np.ndarray],
) -> str:
    """Returns what the start and the losses before tell, where the data are finite."""
    known = "data and labels are finite" if engine.examples else "no data to look at"
    if not {"loss", "grad_norm"} & metrics.keys():
        return f"the loss is finite: look at what {_several([*metrics])} is made of"
    if not losses and engine.keys is not None:
        finite = gathered(_finite(engine.init(engine.keys).params))
        if not finite.all():
            return f"{known}; the parameters at the start are not"
    if not losses:
        return (
            f"{known}; it is the first row: log more often to see the loss rise, or "
            "lower the learning rate"
        )
    before = np.stack(losses)[:, replicas[0]]
    least, last = before.min(), before[-1]
    loss = f"the loss of replica {replicas[0]}"
    if last > GROWN * least:
        return (
            f"{known}; {loss} rose from {least:.3g} to {last:.3g} before: lower the "
            "learning rate"
        )
    return (
        f"{known}; {loss} was {last:.3g} in the row before and had not risen: log more "
        "often, lower the learning rate, or look for a root or a division in the loss"
    )


@jax.jit
def _finite(stacked: PyTree) -> jax.Array:
    """Returns of each replica whether all numbers are finite, wherever they lie."""
    leaves = jax.tree.leaves(stacked)
    each = [jnp.isfinite(x).all(axis=tuple(range(1, x.ndim))) for x in leaves]
    return jnp.stack(each).all(axis=0)


def _several(things: Sequence[Any]) -> str:
    """Returns names in a list, the first few of many."""
    shown = [str(x) for x in things[:NAMED]]
    if (more := len(things) - NAMED) > 0:
        return f"{', '.join(shown)} and {more} more"
    if len(shown) > 1:
        return f"{', '.join(shown[:-1])} and {shown[-1]}"
    return shown[0]
