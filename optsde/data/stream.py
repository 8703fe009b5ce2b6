"""Sets that do not fit on the device: read by index, in threads, ahead of use.

Which examples make a batch is the caller's to say, so that a streamed run takes the
same batches as one with all data on the device, bit for bit.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from optsde.checks import check_count, check_rows, shown
from optsde.types import PyTree


class Arrays:
    """A source of examples in memory: example i is row i of each array.

    They may be memory-mapped: `Arrays(np.load(path, mmap_mode="r"), labels)`.
    """

    def __init__(self, *parts: np.ndarray):
        check_rows("Arrays", parts)
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, index) -> tuple[np.ndarray, ...]:
        return tuple(part[index] for part in self.parts)


@dataclasses.dataclass(frozen=True)
class Stream:
    """A stream of examples, read from a random-access source in any given order.

    A source has `len` and gives the example at an integer: `Arrays`, a list, what
    `tfds.data_source` returns. `example`, where given, makes of that a pytree of arrays
    and numbers: `lambda e: (e["image"], np.int32(e["label"]))`.
    """

    source: Any
    example: Callable[[Any], PyTree] | None = None
    threads: int = 4
    buffer: int = 16  # batches read ahead of the one that is taken

    def __post_init__(self):
        check_count("threads", self.threads)
        check_count("buffer", self.buffer)
        if not all(hasattr(self.source, x) for x in ("__len__", "__getitem__")):
            raise ValueError(
                f"source={shown(self.source)}: needs a length, and an example at each "
                "integer, such as data.Arrays(inputs, labels)"
            )
        if not len(self.source):
            raise ValueError("source has 0 examples: needs one or more")

    @property
    def stream(self) -> "Stream":
        """The stream that batches are read from ahead of use: itself."""
        return self

    def __len__(self) -> int:
        return len(self.source)

    def at(self, step, index):
        """Refuses: only a run reads a stream."""
        raise ValueError(
            "these examples are a Stream, which a run reads ahead of its steps; for "
            "one gradient, give the examples themselves"
        )

    def fetch(self, index: np.ndarray) -> PyTree:
        """Returns the examples of an index [..., B], with leading axes [..., B]."""
        try:
            import grain
        except ImportError:
            raise ImportError(
                "a Stream is read by grain: pip install 'optsde[studies]'"
            ) from None
        index = self._checked(index)
        rows = _Rows(self, index.reshape(-1, index.shape[-1]))
        options = grain.ReadOptions(self.threads, self.buffer)
        batches = list(grain.MapDataset.source(rows).to_iter_dataset(options))
        return jax.tree.map(
            lambda *x: np.stack(x).reshape(*index.shape, *x[0].shape[1:]), *batches
        )

    def batches(
        self, indices: Iterable[np.ndarray], ahead: int = 2
    ) -> Iterator[PyTree]:
        """Yields `fetch` of each index, while the next `ahead` of them are read."""
        waiting = collections.deque()
        reader = ThreadPoolExecutor(1)
        try:
            for index in indices:
                waiting.append(reader.submit(self.fetch, index))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            reader.shutdown(cancel_futures=True)

    def _checked(self, index: np.ndarray) -> np.ndarray:
        index, size = np.asarray(index), len(self)
        if index.size == 0 or index.min() < 0 or index.max() >= size:
            raise ValueError(
                f"index of shape {index.shape} must hold numbers from 0 to {size - 1}"
            )
        return index


@dataclasses.dataclass(frozen=True)
class _Rows:
    """A source for grain: item j is the batch of the examples that row j names."""

    stream: Stream
    rows: np.ndarray  # indices [rows, B]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> PyTree:
        source, example = self.stream.source, self.stream.example
        row = self.rows[index]
        if isinstance(source, Arrays) and example is None:
            return source[row]
        several = getattr(source, "__getitems__", None)
        found = several(row.tolist()) if several else [source[int(i)] for i in row]
        if example is not None:
            found = [example(each) for each in found]
        return jax.tree.map(lambda *x: np.stack(x), *found)
