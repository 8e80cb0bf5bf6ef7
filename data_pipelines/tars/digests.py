"""Which of many things are equal, at 24 bytes each: 16 of a hash and where the thing lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Place = tuple[int, int]  # (number of the shard, row in it)


def digests_of(contents: Iterable[bytes]) -> NDArray[np.uint64]:
    """(n, 2): the first 16 bytes of each sha256."""
    return _numbers(b"".join(digest_of(content) for content in contents))


def digest_of(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:16]


def collected(blob: bytes | bytearray) -> Digests:
    """Digests that were put one behind the other, as shard 0."""
    found = Digests()
    found.add(0, _numbers(bytes(blob)))
    return found


def _numbers(blob: bytes) -> NDArray[np.uint64]:
    return np.frombuffer(blob, dtype=">u8").astype(np.uint64).reshape(-1, 2)


class Digests:
    """Collected shard by shard."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, NDArray[np.uint64]]] = []

    def add(self, shard: int, digests: NDArray[np.uint64]) -> None:
        self._parts.append((shard, digests))

    def join(self, other: Digests) -> None:
        """Add all of another collection; nothing is copied."""
        self._parts += other._parts

    def __len__(self) -> int:
        return sum(len(part) for _, part in self._parts)

    def equal(self, limit: int) -> tuple[int, list[list[Place]]]:
        """How many are equal to an earlier one, and the places of the first `limit` groups of equal ones, in order."""
        if not len(self):
            return 0, []
        parts = sorted(self._parts, key=lambda part: part[0])
        values = np.concatenate([part for _, part in parts])
        shards = np.concatenate([np.full(len(part), shard, np.uint32) for shard, part in parts])
        rows = np.concatenate([np.arange(len(part), dtype=np.uint32) for _, part in parts])
        order = np.lexsort((values[:, 1], values[:, 0]))  # stable: equal ones stay in their order
        ranked = values[order]
        again = np.concatenate([[False], (ranked[1:] == ranked[:-1]).all(axis=1)])
        starts = np.flatnonzero(again & ~np.concatenate([[False], again[:-1]])) - 1
        first = order[starts]
        groups = []
        for start in starts[np.argsort(first, kind="stable")][:limit].tolist():
            stop = start + 1
            while stop < len(again) and again[stop]:
                stop += 1
            groups.append([(int(shards[place]), int(rows[place])) for place in order[start:stop].tolist()])
        return int(again.sum()), groups
