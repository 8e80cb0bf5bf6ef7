"""Many short byte strings in two arrays: tens of bytes each, where Python objects would take hundreds."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
