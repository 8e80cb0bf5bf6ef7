"""Many short byte strings in two arrays: tens of bytes each, where Python objects would take hundreds."""

from __future__ import annotations

import os
import weakref
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 1 << 20  # bytes of a file read together


@dataclass(frozen=True, eq=False)
class Packed:
    """`packed[i]` is the i-th string. Small to pickle: no object per string."""

    blob: NDArray[np.uint8]
    ends: NDArray[np.int64]  # (N,) offset after each string

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> bytes:
        start = self.ends[index - 1] if index else 0
        return self.blob[start : self.ends[index]].tobytes()


def pack(strings: Iterable[bytes]) -> Packed:
    """Takes a generator: what it yields is copied at once and never kept."""
    blob, ends = bytearray(), array("q")
    for item in strings:
        blob += item
        ends.append(len(blob))
    return Packed(np.frombuffer(bytes(blob), dtype=np.uint8), np.array(ends, dtype=np.int64))


def starts_of(lengths: Iterable[int]) -> NDArray[np.int64]:
    """(P + 1,) number of the first item of each of P parts, and of all items."""
    return np.cumsum([0, *lengths], dtype=np.int64)


def parts_of(starts: NDArray[np.int64], start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """(part, first, end) for each part that the items [start, stop) touch; first and end count within the part."""
    stop = min(stop, int(starts[-1]))
    while start < stop:
        part = int(np.searchsorted(starts, start, side="right")) - 1
        first, end = int(starts[part]), int(starts[part + 1])
        yield part, start - first, min(stop, end) - first
        start = end


@dataclass(frozen=True, eq=False)
class Spans:
    """Pieces of a file; piece i are the bytes from starts[i] to starts[i + 1]. The file is opened once and stays open:
    opening it for each of many single pieces takes longer than reading them. A pickled copy opens it anew."""

    path: Path
    starts: NDArray[np.int64]  # (N + 1,)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Pieces [start, stop). Raises OSError."""
        while start < stop:
            first = int(self.starts[start])
            if stop - start == 1:  # as shuffled rows are read
                yield os.pread(self._handle, int(self.starts[stop]) - first, first)
                return
            fitting = int(np.searchsorted(self.starts, first + _AT_ONCE, side="right")) - 1
            end = min(max(fitting, start + 1), stop)
            offsets = (self.starts[start : end + 1] - first).tolist()
            blob = os.pread(self._handle, offsets[-1], first)
            for one, following in pairwise(offsets):
                yield blob[one:following]
            start = end

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "starts": self.starts}

    @cached_property
    def _handle(self) -> int:
        """Of the operating system: forked processes may share it, because no read moves its place."""
        handle = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, handle)
        return handle
