"""Rows of one picture as one sample: tables with a row per caption, as those of Flickr8k and Flickr30k.

Rows belong together where the path of the picture is the same (and the key, where one names samples); they need not
lie together, nor in one table. Paths of tables in several folders are those of several pictures. The captions become
the levels by their number of words, shortest first, as those of COCO. Labels that differ within a picture make it a
bad sample. Pictures that lie inside a table are never grouped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipelines.sources.base import Bad, Facts, Pair, Source
from data_pipelines.sources.derived.cut import Subset, runs_of
from data_pipelines.sources.derived.joined import JoinedRecords
from data_pipelines.sources.record_source import RecordSource
from data_pipelines.sources.records import BY_WORDS
from data_pipelines.sources.rows import Record
from seqtok_core.foundation.errors import DataError, shown

Base = RecordSource | JoinedRecords
_LOOKED_AT = 100  # records that show whether pictures are files
_AT_ONCE = 1024  # groups whose rows are read together


@dataclass(frozen=True, eq=False)
class GroupedSource:
    """Samples of several rows of `base`. 8 bytes a sample are kept, and 8 a row where rows do not lie together."""

    whole: Source  # `base` or a part of it: says what it is
    base: Base
    order: NDArray[np.int64] | None  # (R,) rows of `base`, sample by sample; None: as they lie there
    starts: NDArray[np.int64]  # (N + 1,) place in `order` of each sample's rows, and the end

    @property
    def kind(self) -> str:
        return self.whole.kind

    def __len__(self) -> int:
        return len(self.starts) - 1

    def names(self, start: int, stop: int) -> Iterator[str]:
        first = self.starts[start : min(stop, len(self))]
        first = first if self.order is None else self.order[first]
        yield from Subset(self.base, first, "").names(0, len(first))

    def pairs(self, start: int, stop: int) -> Iterator[Pair | Bad]:
        for first in range(start, min(stop, len(self)), _AT_ONCE):
            end = min(first + _AT_ONCE, stop, len(self))
            records = self._read(self._rows(first, end))
            for group in range(first, end):
                yield self._pair([(row, records[row]) for row in self._rows(group, group + 1).tolist()])

    def identity(self) -> dict[str, Any]:
        return {**self.whole.identity(), "grouped": {"rows": int(self.starts[-1]), "samples": len(self)}}

    def facts(self) -> Facts:
        facts = self.whole.facts()
        sentences = self.base.fields.pyramid == "sentences"
        order = f"{facts.levels_made['order']}; then {BY_WORDS}" if sentences else BY_WORDS
        made = {**facts.levels_made, "order": order, "rows": "those of one picture are one sample"}
        block = max(1, facts.block * len(self) // int(self.starts[-1]))
        return replace(facts, level_names=(), levels_made=made, block=block)

    def _rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """Of the samples [start, stop)."""
        first, end = int(self.starts[start]), int(self.starts[stop])
        return np.arange(first, end, dtype=np.int64) if self.order is None else self.order[first:end]

    def _read(self, rows: NDArray[np.int64]) -> dict[int, Record | Bad]:
        found: dict[int, Record | Bad] = {}
        for first, end in runs_of(np.sort(rows)):
            found.update(zip(range(first, end), self.base.wanted(first, end), strict=True))
        return found

    def _pair(self, rows: Sequence[tuple[int, Record | Bad]]) -> Pair | Bad:
        index, record = rows[0]
        if isinstance(record, Bad):
            return record
        pair = self.base.pair(index, record)
        captions: list[str] = []
        labels: dict[str, int | str] = {}
        for row, record in rows if isinstance(pair, Pair) else ():
            found = record if isinstance(record, Bad) else self.base.described(row, record)
            if isinstance(found, Bad):
                return found
            captions += found[0]
            differ = [name for name, value in found[1].items() if labels.setdefault(name, value) != value]
            if differ:
                name = differ[0]
                detail = f"{name} is {shown(labels[name])} before and {shown(found[1][name])} in {self.base.place(row)}"
                return Bad(pair.source, "labels of its rows differ", detail)
        if isinstance(pair, Bad) or len(rows) == 1:
            return pair
        return replace(pair, captions=tuple(sorted(captions, key=lambda text: len(text.split()))), labels=labels)


def group_rows(sources: Mapping[str, Source]) -> dict[str, Source]:
    """Each split as it is where no picture of it has several rows.

    Raises DataError where a field puts rows of one picture into two splits.
    """
    found: dict[str, Source] = {}
    seen: dict[str, _Hashed] = {}
    for split, source in sources.items():
        base, rows = _rows_of(source)
        found[split] = source
        if base is not None and _has_paths(base):
            mine = _Hashed(base, rows, _hashes(base, rows))
            for other, theirs in seen.items():
                _refuse_shared(split, mine, other, theirs)
            found[split] = _grouped(source, mine)
            seen[split] = mine
    return found


@dataclass(frozen=True, eq=False)
class _Hashed:
    base: Base
    rows: NDArray[np.int64]  # (R,) of `base`
    hashes: NDArray[np.int64]  # (R,) equal where rows are of one sample


def _refuse_shared(split: str, mine: _Hashed, other: str, theirs: _Hashed) -> None:
    if mine.base is not theirs.base:
        return
    shared = np.isin(theirs.hashes, mine.hashes)
    if shared.any():
        first = int(np.argmax(shared))
        rows = (int(theirs.rows[first]), int(mine.rows[mine.hashes == theirs.hashes[first]][0]))
        one, two = (mine.base.place(row) for row in rows)
        name = next(mine.base.names(rows[0], rows[0] + 1))
        raise DataError(f"{one} and {two} are of one picture, {shown(name)}, but of the splits {other} and {split}")


def _grouped(source: Source, found: _Hashed) -> Source:
    base, rows, hashes = found.base, found.rows, found.hashes
    order = np.argsort(hashes, kind="stable")
    new = np.insert(hashes[order[1:]] != hashes[order[:-1]], 0, True)
    if new.all():
        return source
    # Samples in the order of their first rows; stable sorting has kept the rows of each in order.
    sample = np.cumsum(new) - 1
    rank = np.argsort(np.argsort(order[new]))
    order = order[np.argsort(rank[sample], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(np.bincount(rank[sample]))]).astype(np.int64)
    in_place = len(rows) == len(base) and bool((order == np.arange(len(base))).all())
    return GroupedSource(source, base, None if in_place else rows[order], starts)


def _rows_of(source: Source) -> tuple[Base | None, NDArray[np.int64]]:
    """The source of records behind parts of it, and which of its rows these are."""
    if isinstance(source, Base):
        return source, np.arange(len(source), dtype=np.int64)
    if isinstance(source, Subset):
        base, rows = _rows_of(source.whole)
        return base, rows[source.indices]
    return None, np.empty(0, np.int64)


def _has_paths(base: Base) -> bool:
    return any(key is not None for key in base.keys(0, min(len(base), _LOOKED_AT)))


def _hashes(base: Base, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(R,) of the key and the path of each row, equal where these are; a row without a path is like no other."""
    keys = (key for first, end in runs_of(rows) for key in enumerate(base.keys(first, end), first))
    return np.fromiter((hash(index if key is None else key) for index, key in keys), np.int64, len(rows))
