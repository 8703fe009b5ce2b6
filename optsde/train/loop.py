"""The training loop: chunks of steps, rows of metrics, evaluation, checkpoints.

The host is one chunk behind the devices: chunk n + 1 is under way while the numbers of
chunk n are read. Lengths of chunks only set how often the host looks; no number depends
on them. A run that goes on from a checkpoint is bit for bit the run that never stopped.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optsde.dynamics import Engine
from optsde.dynamics.progress import Progress
from optsde.measure.probe import Probe
from optsde.mesh import replicated
from optsde.train.checkpoints import Checkpoints
from optsde.train.metrics import Writer
from optsde.types import PyTree

CHUNK_SECONDS = 1.0  # between two looks at the devices
LONGEST_CHUNK = 10_000


class DivergedError(ArithmeticError):
    """A run left the finite numbers; the message names the steps."""


class Result(NamedTuple):
    state: PyTree  # leaves [replicas, ...]
    row: dict[str, Any]  # the last one
    steps: int  # done by this call
    seconds: float  # of them, without compiling


Evaluate = Callable[[PyTree], dict[str, jax.Array]]  # stacked state -> [replicas] each


def fit(
    engine: Engine,
    keys: jax.Array,
    steps: int,
    *,
    evaluate: Evaluate | None = None,
    log_every: int = 100,
    evaluate_every: int | None = None,
    probes: Sequence[Probe] = (),
    probe_every: int | None = None,
    describe: Callable[[int], dict[str, float]] = lambda step: {},
    writers: Sequence[Writer] = (),
    checkpoints: Checkpoints | None = None,
    checkpoint_every: int | None = None,
    progress: Progress | None = None,
    stop_at_divergence: bool = True,
) -> Result:
    """Run to `steps`, or on to it from the newest checkpoint.

    A row of metrics has the step, the means of loss and gradient norm over the steps
    since the last row, what `describe(step)` says (such as lr), each `evaluate_every`
    steps and at both ends what `evaluate(state)` gives, and what the probes say each
    `probe_every`.
    engine: made with with_info=True. checkpoint_every: in steps; and always at the end.
    stop_at_divergence: raise DivergedError at the first row with a number that is not
    finite; else go on, where the other replicas are of interest.
    SIGTERM or Ctrl-C saves a checkpoint and raises KeyboardInterrupt.
    """
    evaluate_every, probe_every = evaluate_every or steps, probe_every or steps
    for name, every in ("evaluate", evaluate_every), ("probe", probe_every):
        if every % log_every and every != steps:
            raise ValueError(
                f"{name}_every={every} must be a multiple of log_every={log_every}"
            )
    rows = _Rows(writers, engine.replicas, stop_at_divergence)
    state = engine.init(keys)
    total = engine.no_info(state)
    looks = [engine.each(probe.look, probe.source) for probe in probes]
    memory = [engine.each(probe.init)(state) for probe in probes]
    step = since = 0

    def whole():
        at = replicated(jnp.int32(since), engine.mesh)
        held = {"state": state, "total": total, "since": at}
        return held | ({"memory": memory} if jax.tree.leaves(memory) else {})

    if checkpoints is not None and (held := checkpoints.latest()) is not None:
        step = held
        saved = checkpoints.restore(step, whole())
        state, total, since = saved["state"], saved["total"], int(saved["since"])
        memory = saved.get("memory", memory)
    engine.compile(state)

    def due(every, at):
        return at % every == 0 or at == steps

    def look(state, at):
        row = describe(at)
        if evaluate and due(evaluate_every, at):
            row = evaluate(state) | row
        seen = {}
        for number, probe in enumerate(looks):
            if due(probe_every, at):
                said, memory[number] = probe(state, memory[number])
                seen |= said
        return row, seen

    def save():
        rows.finish()
        if checkpoints is not None and checkpoints.latest() != step:
            checkpoints.save(step, whole())

    for writer in writers:
        writer.begin(step)
    with _polite_stop() as stopping:
        try:
            if step == 0:
                rows.add(0, 0, (), *look(state, 0))
            begun = tick = time.monotonic()
            first, chunk, before, length = step, 1, total, 1
            if progress:
                progress.begin(step)
            while step < steps and not stopping:
                row_end = min(_after(step, log_every), steps)
                stop = min(row_end, _after(step, checkpoint_every or steps))
                count = min(chunk, stop - step)
                state, total = engine.advance(state, total, count)
                step += count
                jax.block_until_ready(before)  # the chunk before this one
                tick, last = time.monotonic(), tick
                pace = max(tick - last, 1e-6) / length
                chunk = max(1, min(2 * chunk, int(CHUNK_SECONDS / pace), LONGEST_CHUNK))
                before, length = total, count
                if step == row_end:
                    rows.add(step, since, total, *look(state, step))
                    since, total = step, engine.no_info(state)
                if checkpoint_every and step % checkpoint_every == 0:
                    save()
                if progress:
                    progress.update(step, steps)
            save()
            jax.block_until_ready(state)
            seconds = time.monotonic() - begun
        finally:
            for writer in writers:
                writer.close()
            if checkpoints is not None:
                checkpoints.close()
    if stopping:
        raise KeyboardInterrupt
    return Result(engine.kept(state), rows.last, step - first, seconds)


def _after(step: int, every: int) -> int:
    """The next multiple of `every`."""
    return step - step % every + every


class _Rows:
    """Rows on their way from the devices to the writers, each read one row late."""

    def __init__(self, writers: Sequence[Writer], replicas: int, strict: bool):
        self.writers = writers
        self.replicas = replicas
        self.strict = strict
        self.last: dict[str, Any] = {}
        self._waiting: tuple | None = None

    def add(
        self, step: int, since: int, total: PyTree, extra: dict, seen: dict
    ) -> None:
        """`seen` by probes may be infinite, as a threshold is where lr is 0."""
        self.finish()
        self._waiting = step, since, total, extra, seen

    def finish(self) -> None:
        """Read and write what waits; refuse to go on from what is not finite."""
        if self._waiting is None:
            return
        step, since, total, extra, seen = self._waiting
        self._waiting = None
        sums = total._asdict() if total else {}
        means = {n: np.asarray(x) / (step - since) for n, x in sums.items()}
        row = {"step": step}
        for name, value in (means | extra | seen).items():
            numbers = np.asarray(value, np.float64).reshape(-1)[: self.replicas]
            row[name] = numbers.item() if numbers.size == 1 else numbers.tolist()
        for writer in self.writers:
            writer.write(row)
        self.last = row
        judged = [x for name, x in row.items() if name not in seen]
        if self.strict and not all(np.isfinite(x).all() for x in judged):
            raise DivergedError(f"between step {since} and {step}")


@contextlib.contextmanager
def _polite_stop():
    """A list that becomes true at the first SIGTERM or Ctrl-C; the next one raises."""
    stopping: list[int] = []

    def note(number, frame):
        if stopping:
            raise KeyboardInterrupt
        stopping.append(number)

    try:
        before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread, where no signal arrives
        before = {}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
