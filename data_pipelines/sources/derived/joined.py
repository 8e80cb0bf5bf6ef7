"""Sources of several folders as one: a sample's name begins with its folder, so that equal names stay apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from data_pipelines.sources.base import Bad, Facts, Pair
from data_pipelines.sources.derived.cut import Recorded
from data_pipelines.sources.rows import Record
from seqtok_core.foundation.packed import parts_of, starts_of

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Joined:
    """One after another. `parts`: folder -> its source; all are of one kind."""

    parts: Mapping[str, Recorded]

    @property
    def kind(self) -> str:
        return self._first.kind

    def __len__(self) -> int:
        return int(self._starts[-1])

    def names(self, start: int, stop: int) -> Iterator[str]:
        for folder, name in self._each(start, stop, lambda part: part.names):
            yield _under(folder, name)

    def pairs(self, start: int, stop: int) -> Iterator[Pair | Bad]:
        for folder, pair in self._each(start, stop, lambda part: part.pairs):
            yield replace(pair, source=_under(folder, pair.source))

    def records(self, start: int, stop: int) -> Iterator[Record | Bad]:
        for folder, record in self._each(start, stop, lambda part: part.records):
            yield replace(record, source=_under(folder, record.source)) if isinstance(record, Bad) else record

    def identity(self) -> dict[str, Any]:
        folders = {folder: part.identity() for folder, part in self.parts.items()}
        return {"kind": self.kind, "fields": self._first.identity().get("fields", {}), "folders": folders}

    def facts(self) -> Facts:
        return replace(self._first.facts(), block=max(part.facts().block for part in self.parts.values()))

    def _each(
        self, start: int, stop: int, method: Callable[[Recorded], Callable[[int, int], Iterator[Item]]]
    ) -> Iterator[tuple[str, Item]]:
        folders = list(self.parts)
        for number, first, end in parts_of(self._starts, start, stop):
            for item in method(self.parts[folders[number]])(first, end):
                yield folders[number], item

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return starts_of(map(len, self.parts.values()))

    @property
    def _first(self) -> Recorded:
        return next(iter(self.parts.values()))


def join_folders(parts: Mapping[str, Recorded]) -> Recorded:
    """The only part as it is, with the names that it has; several as one."""
    return next(iter(parts.values())) if len(parts) == 1 else Joined(parts)


def _under(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
