"""Rows of column files, read some at a time: what Parquet and Arrow files have in common.

A column of pictures holds bytes, paths, or Hugging Face's struct {bytes, path}, or lists of one of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_pipelines.sources.base import Bad
from data_pipelines.sources.rows import Record, Rows
from data_pipelines.sources.values import base_of
from seqtok_core.foundation.errors import DataError, shown

BATCH = 16  # rows decoded at once: few enough that large pictures do not leave the processor's cache
_FEW = 3072  # rows, of which blocks must be small for there to be many; then reading more for each costs little
_SMALL = 48  # rows; a block of fewer is as large as half of a part of the file allows


class BatchCursor(Protocol):
    """Goes forward through a file; only going back begins a part of it anew."""

    def batch(self, row: int) -> tuple[pa.RecordBatch, int]:
        """The batch that holds a row, and the number of its own first row. Raises pa.ArrowException, OSError."""


class ColumnRows:
    """Not for several threads at once: the place of the last reading is kept, so that the shards of a part of the file
    read it once from its start to its end, not each from its start."""

    what = ""  # a part of the file, for messages

    def __init__(self, path: Path, schema: pa.Schema, starts: NDArray[np.int64]) -> None:
        """`starts` (P + 1,): number of the first row of each part of the file, and of all rows."""
        self.path, self._schema, self._starts = path, schema, starts
        self._cursors: dict[tuple[str, ...], BatchCursor] = {}

    def cursor(self, columns: tuple[str, ...]) -> BatchCursor:
        """Columns by name, or as `struct.part`."""
        raise NotImplementedError

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def block(self) -> int:
        """A sixth of the largest part of the file: that part has to be read from its start to a row, so that some four
        rows are read for one. Of small parts up to a half: their blocks are many all the same. An eighth in a short
        file."""
        largest = int(np.diff(self._starts).max(initial=0))
        if len(self) < _FEW:
            return max(1, largest // 8)
        return max(1, largest // 6, min(_SMALL, largest // 2))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cursors": {}}

    def columns(self) -> tuple[str, ...]:
        return tuple(self._schema.names)

    def class_names(self) -> dict[str, tuple[str, ...]]:
        """Column -> the words that its numbers stand for, where Hugging Face's features say so."""
        try:
            about = json.loads((self._schema.metadata or {}).get(b"huggingface", b"{}"))
            features = about["info"]["features"].items()
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}
        found = ((name, _class_label(feature)) for name, feature in features if name in self._schema.names)
        return {name: tuple(map(str, label["names"])) for name, label in found if label is not None}

    def read(self, start: int, stop: int, columns: Sequence[str], pictures: bool = True) -> Iterator[Record | Bad]:
        wanted = tuple(dict.fromkeys(self._select(columns, pictures)))
        if not wanted:
            yield from ({} for _ in range(start, stop))
            return
        if wanted not in self._cursors:
            self._cursors[wanted] = self.cursor(wanted)
        cursor, row = self._cursors[wanted], start
        while row < stop:
            try:
                batch, first = cursor.batch(row)
            except (pa.ArrowException, OSError) as error:
                end = min(stop, int(self._starts[np.searchsorted(self._starts, row, side="right")]))
                for bad in range(row, end):
                    yield Bad(self.place(bad), f"{self.what} cannot be read", str(error).splitlines()[0][:200])
                row = end
                continue
            part = batch.slice(row - first, min(stop - row, BATCH))
            yield from part.to_pylist()
            row += part.num_rows

    def place(self, index: int) -> str:
        return f"{self.path.name} row {index + 1}"

    def identity(self) -> dict[str, Any]:
        raise NotImplementedError

    def _select(self, columns: Sequence[str], pictures: bool) -> Iterator[str]:
        for asked in columns:
            name = base_of(asked, self._schema.names)
            if name is None:
                continue
            kind = self._schema.field(name).type
            if pictures:
                yield name
            elif pa.types.is_struct(kind):
                parts = [kind.field(number) for number in range(kind.num_fields)]
                yield from (f"{name}.{part.name}" for part in parts if not _holds_bytes(part.type))
            elif not _holds_bytes(kind):
                yield name


@dataclass(frozen=True, eq=False)
class WordRows:
    """Rows whose class numbers are read as words; a number that stands for none (-1) is absent."""

    whole: Rows
    names: Mapping[str, tuple[str, ...]]  # column -> word of each number

    @property
    def block(self) -> int:
        return self.whole.block

    def __len__(self) -> int:
        return len(self.whole)

    def columns(self) -> tuple[str, ...]:
        return self.whole.columns()

    def read(self, start: int, stop: int, columns: Sequence[str], pictures: bool = True) -> Iterator[Record | Bad]:
        for record in self.whole.read(start, stop, columns, pictures):
            if isinstance(record, Bad):
                yield record
            else:
                words = {name: _word(record[name], names) for name, names in self.names.items() if name in record}
                yield {**record, **words}

    def place(self, index: int) -> str:
        return self.whole.place(index)

    def identity(self) -> dict[str, Any]:
        return {**self.whole.identity(), "class_names": {name: list(names) for name, names in self.names.items()}}


def in_words(rows: Rows, parts: Sequence[ColumnRows], columns: Sequence[str]) -> Rows:
    """`rows` (of all parts) with class numbers as words in the columns that are asked for.

    Raises DataError where two parts name the classes of a column differently.
    """
    names: dict[str, tuple[str, ...]] = {}
    for part in parts:
        for column, words in part.class_names().items():
            if column in columns and names.setdefault(column, words) != words:
                raise DataError(
                    f"{part.path}: its classes of {shown(column)!r} have other names than those of {parts[0].path}"
                )
    return WordRows(rows, names) if names else rows


def _word(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_word(item, names) for item in value]
    if not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None


def _class_label(feature: Any) -> Any:
    """The ClassLabel that a feature is, or that it is a list of."""
    if isinstance(feature, list) and len(feature) == 1:
        return _class_label(feature[0])
    if not isinstance(feature, Mapping):
        return None
    if feature.get("_type") in ("Sequence", "List", "LargeList"):
        return _class_label(feature.get("feature"))
    return feature if feature.get("_type") == "ClassLabel" and feature.get("names") else None


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _holds_bytes(kind.value_type)
    if pa.types.is_struct(kind):
        return any(_holds_bytes(kind.field(number).type) for number in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
