"""Samples of some tars, packed: about 17 bytes per member and the key."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipelines.packed import Packed
from data_pipelines.tar_index import TarSample


@dataclass(frozen=True, eq=False)
class PackedSamples:
    """`packed[i]` is the i-th TarSample. N samples with M members in S tars."""

    keys: Packed  # N
    starts: NDArray[np.int64]  # (N + 1,) first member of each sample
    kinds: NDArray[np.uint16]  # (M,) number of the extension
    spans: NDArray[np.int64]  # (M, 2) offset and length, bytes
    extensions: tuple[str, ...]
    ends: NDArray[np.int64]  # (S,) number of samples up to the end of each tar

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> TarSample:
        first, end = self.starts[index : index + 2].tolist()
        members = zip(self.kinds[first:end].tolist(), self.spans[first:end].tolist(), strict=True)
        return TarSample(self.key(index), {self.extensions[kind]: (start, size) for kind, (start, size) in members})

    def key(self, index: int) -> str:
        return self.keys[index].decode("utf-8", "surrogateescape")

    def shard(self, index: int) -> int:
        """Number of the tar that a sample lies in."""
        return int(np.searchsorted(self.ends, index, side="right"))


class SamplePacker:
    """Takes the samples of one tar after another."""

    def __init__(self) -> None:
        self._keys = bytearray()
        self._key_ends, self._starts, self._ends = array("q"), array("q", [0]), array("q")
        self._kinds, self._spans = array("H"), array("q")
        self._numbers: dict[str, int] = {}

    def add(self, samples: Sequence[TarSample]) -> None:
        for sample in samples:
            self._keys += sample.key.encode("utf-8", "surrogateescape")
            self._key_ends.append(len(self._keys))
            for extension, span in sample.members.items():
                self._kinds.append(self._numbers.setdefault(extension, len(self._numbers)))
                self._spans.extend(span)
            self._starts.append(len(self._kinds))
        self._ends.append(len(self._key_ends))

    def finish(self) -> PackedSamples:
        keys = Packed(np.frombuffer(bytes(self._keys), dtype=np.uint8), np.array(self._key_ends, dtype=np.int64))
        spans = np.array(self._spans, dtype=np.int64).reshape(-1, 2)
        starts, ends = np.array(self._starts, dtype=np.int64), np.array(self._ends, dtype=np.int64)
        kinds = np.array(self._kinds, dtype=np.uint16)
        return PackedSamples(keys, starts, kinds, spans, tuple(self._numbers), ends)
