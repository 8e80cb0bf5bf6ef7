"""Records of several folders as one source: a sample's name begins with its folder, so that equal names stay apart."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from data_pipelines.sources.base import Bad, Described, Facts, Pair
from data_pipelines.sources.record_source import RecordSource
from data_pipelines.sources.records import Fields
from data_pipelines.sources.rows import Record
from seqtok_core.foundation.packed import parts_of, starts_of

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class JoinedRecords:
    """One after another; rows are asked for as those of one part. `parts`: folder -> its source, all of one kind."""

    parts: Mapping[str, RecordSource]

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
            yield _placed(folder, pair)

    def records(self, start: int, stop: int) -> Iterator[Record | Bad]:
        for folder, record in self._each(start, stop, lambda part: part.records):
            yield _placed(folder, record)

    def identity(self) -> dict[str, Any]:
        folders = {folder: part.identity() for folder, part in self.parts.items()}
        return {"kind": self.kind, "fields": self._first.identity().get("fields", {}), "folders": folders}

    def facts(self) -> Facts:
        return replace(self._first.facts(), block=max(part.facts().block for part in self.parts.values()))

    def _each(
        self, start: int, stop: int, method: Callable[[RecordSource], Callable[[int, int], Iterator[Item]]]
    ) -> Iterator[tuple[str, Item]]:
        folders = list(self.parts)
        for number, first, end in parts_of(self._starts, start, stop):
            for item in method(self.parts[folders[number]])(first, end):
                yield folders[number], item

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return starts_of(map(len, self.parts.values()))

    @property
    def _first(self) -> RecordSource:
        return next(iter(self.parts.values()))

    @property
    def fields(self) -> Fields:
        return self._first.fields

    def wanted(self, start: int, stop: int) -> Iterator[Record | Bad]:
        for folder, record in self._each(start, stop, lambda part: part.wanted):
            yield _placed(folder, record)

    def read(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[Record | Bad]:
        for folder, record in self._each(start, stop, lambda part: partial(part.read, columns=columns)):
            yield _placed(folder, record)

    def keys(self, start: int, stop: int) -> Iterator[Hashable | None]:
        for folder, key in self._each(start, stop, lambda part: part.keys):
            yield None if key is None else (folder, key)

    def place(self, index: int) -> str:
        folder, part, own = self._part(index)
        return _under(folder, part.place(own))

    def described(self, index: int, record: Record) -> Described | Bad:
        folder, part, own = self._part(index)
        return _placed(folder, part.described(own, record))

    def pair(self, index: int, record: Record) -> Pair | Bad:
        folder, part, own = self._part(index)
        return _placed(folder, part.pair(own, record))

    def _part(self, index: int) -> tuple[str, RecordSource, int]:
        """The folder that holds a row, its source, and the row's number there."""
        number, own, _ = next(parts_of(self._starts, index, index + 1))
        folder = list(self.parts)[number]
        return folder, self.parts[folder], own


def join_records(parts: Mapping[str, RecordSource]) -> RecordSource | JoinedRecords:
    """The only part as it is, with the names that it has; several as one."""
    return next(iter(parts.values())) if len(parts) == 1 else JoinedRecords(parts)


def _placed(folder: str, item: Item) -> Item:
    return replace(item, source=_under(folder, item.source)) if isinstance(item, Pair | Bad) else item


def _under(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
