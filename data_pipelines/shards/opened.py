"""The shards that are in use: their indices in memory, their files open, and no more of them than needed.

A shard's index is read when the first of its samples is asked for, and dropped when enough others were used since.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines.shards.files import index_samples, read_index
from data_pipelines.tars.index import PackedSamples
from seqtok_core.foundation.errors import DataError

_LEAST, _MOST = 32, 512  # shards held open; a process may have about a thousand files


@dataclass(frozen=True)
class ShardFile:
    """One tar. `index` is given for foreign tars; ours have it in a sidecar, which is read when needed."""

    path: Path
    samples: int
    index: PackedSamples | None = None

    def load(self) -> PackedSamples:
        """Raises DataError when the sidecar has changed since it was checked."""
        if self.index is not None:
            return self.index
        content = read_index(self.path.parent, self.path.name)
        found = PackedSamples(index_samples(content, self.path))
        if len(found) != self.samples:
            raise DataError(f"{self.path}: its index has {len(found)} samples instead of {self.samples}")
        return found


class _Open:
    def __init__(self, file: ShardFile) -> None:
        self.samples = file.load()
        try:
            self.handle = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"{file.path}: cannot be read ({error.strerror})") from None

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)


class OpenShards:
    """Number of a shard -> its samples and an open file. Each process that gets a copy opens its own."""

    def __init__(self, files: Sequence[ShardFile], capacity: int = _LEAST) -> None:
        self._files, self._capacity = tuple(files), capacity
        self._open: OrderedDict[int, _Open] = OrderedDict()

    def hold(self, count: int) -> None:
        """Expect that `count` shards are used in turns."""
        self._capacity = min(max(count, _LEAST), _MOST)

    def __getitem__(self, number: int) -> _Open:
        """Raises DataError when the shard cannot be opened."""
        found = self._open.get(number)
        if found is None:
            found = self._open[number] = _Open(self._files[number])
            if len(self._open) > self._capacity:
                self._open.popitem(last=False)
        else:
            self._open.move_to_end(number)
        return found

    def close(self) -> None:
        self._open.clear()

    @property
    def nbytes(self) -> int:
        """Memory of the indices that are held now."""
        held = {id(shard.samples): shard.samples.nbytes for shard in self._open.values()}
        held |= {id(file.index): file.index.nbytes for file in self._files if file.index is not None}
        return sum(held.values())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}
