"""The samples of one shard as tables of offsets.

A Python object per sample would cost hundreds of bytes; here it costs its key and 18 bytes per member.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_pipelines.packed import pack
from data_pipelines.tar_index import TarSample


class PackedSamples:
    """Samples of one shard in file order; indexing gives TarSample."""

    def __init__(self, samples: Sequence[TarSample]) -> None:
        self._keys = pack(sample.key.encode("utf-8", "surrogatepass") for sample in samples)
        self._ends = np.cumsum([len(sample.members) for sample in samples], dtype=np.int64)
        numbers: dict[str, int] = {}
        for sample in samples:
            for extension in sample.members:
                numbers.setdefault(extension, len(numbers))
        kind = np.uint16 if len(numbers) < 2**16 else np.uint32
        self._extensions = tuple(numbers)  # few, as a rule: each is written once
        self._which = np.array([numbers[e] for sample in samples for e in sample.members], dtype=kind)
        spans = [span for sample in samples for span in sample.members.values()]
        self._spans: NDArray[np.int64] = np.array(spans, dtype=np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> TarSample:
        """0 <= index < len."""
        first, end = int(self._ends[index - 1]) if index else 0, int(self._ends[index])
        names = self._which[first:end].tolist()
        members = {
            self._extensions[name]: (start, size)
            for name, (start, size) in zip(names, self._spans[first:end].tolist(), strict=True)
        }
        return TarSample(self.key(index), members)

    def key(self, index: int) -> str:
        return self._keys[index].decode("utf-8", "surrogatepass")

    @property
    def nbytes(self) -> int:
        return (
            self._keys.blob.nbytes
            + self._keys.ends.nbytes
            + self._ends.nbytes
            + self._which.nbytes
            + self._spans.nbytes
        )
