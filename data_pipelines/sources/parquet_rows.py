"""Parquet: row groups are read when needed, only the wanted columns, some rows at a time.

A column of pictures holds bytes, paths, or Hugging Face's struct {bytes, path}.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.sources.base import Bad
from data_pipelines.sources.rows import JoinedRows, Record, Rows
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.packed import starts_of

_BATCH = 64  # rows decoded at once: pictures of 1 MB make 64 MB
_BUFFER = 1 << 20  # bytes; a column of a row group is streamed, never read whole
_BLOCKS = 8  # of a row group, when rows are shuffled
_FOOTER = 8  # bytes at the end: length of the metadata, "PAR1"


class ParquetRows:
    """Not for several threads at once: the place of the last reading is kept, so that the shards of a row group
    read it once from its start to its end, not each from its start."""

    def __init__(self, path: Path) -> None:
        """Reads the file's footer. Raises DataError when it is not a whole Parquet file."""
        self.path = path
        try:
            with pq.ParquetFile(path) as file:
                meta, self._schema = file.metadata, file.schema_arrow
            self._digest = _footer_digest(path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
        self._starts = starts_of(meta.row_group(number).num_rows for number in range(meta.num_row_groups))
        self._cursors: dict[tuple[str, ...], _Cursor] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def block(self) -> int:
        return max(1, int(np.diff(self._starts).max(initial=0)) // _BLOCKS)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cursors": {}}

    def columns(self) -> tuple[str, ...]:
        return tuple(self._schema.names)

    def read(self, start: int, stop: int, columns: Sequence[str], pictures: bool = True) -> Iterator[Record | Bad]:
        wanted = tuple(self._select(columns, pictures))
        if not wanted:
            yield from ({} for _ in range(start, stop))
            return
        if wanted not in self._cursors:
            self._cursors[wanted] = _Cursor(self.path, self._starts, list(wanted))
        cursor, row = self._cursors[wanted], start
        while row < stop:
            try:
                batch, first = cursor.batch(row)
            except (pa.ArrowException, OSError) as error:
                end = min(stop, int(self._starts[np.searchsorted(self._starts, row, side="right")]))
                for bad in range(row, end):
                    yield Bad(self.place(bad), "row group cannot be read", str(error).splitlines()[0][:200])
                row = end
                continue
            part = batch.slice(row - first, stop - row)
            yield from part.to_pylist()
            row += part.num_rows

    def place(self, index: int) -> str:
        return f"{self.path.name} row {index + 1}"

    def identity(self) -> dict[str, Any]:
        return {"records": len(self), "bytes": self.path.stat().st_size, "footer": self._digest}

    def _select(self, columns: Sequence[str], pictures: bool) -> Iterator[str]:
        for name in columns:
            if name not in self._schema.names:
                continue
            kind = self._schema.field(name).type
            if pictures:
                yield name
            elif pa.types.is_struct(kind):
                parts = [kind.field(number) for number in range(kind.num_fields)]
                yield from (f"{name}.{part.name}" for part in parts if not _is_bytes(part))
            elif not _is_bytes(self._schema.field(name)):
                yield name


def block_of(rows: Rows) -> int:
    """Rows that a shuffle should keep together: an eighth of the largest row group, which has to be read from its start
    to them, so that some five rows are read for one. 1 of other records."""
    if isinstance(rows, JoinedRows):
        return max(map(block_of, rows.parts))
    return rows.block if isinstance(rows, ParquetRows) else 1


class _Cursor:
    """Goes forward through a file; only going back begins a row group anew."""

    def __init__(self, path: Path, starts: Any, columns: list[str]) -> None:
        self._path, self._starts, self._columns = path, starts, columns
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch: pa.RecordBatch | None = None
        self._file: pq.ParquetFile | None = None
        self._first = self._group = -1

    def batch(self, row: int) -> tuple[pa.RecordBatch, int]:
        """The batch that holds a row, and the number of its own first row."""
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if self._batch is None or group != self._group or row < self._first:
            self._open(group)
        while self._batch is None or row >= self._first + self._batch.num_rows:
            self._first += 0 if self._batch is None else self._batch.num_rows
            self._batch = None
            following = next(self._batches, None)
            if following is None:
                raise pa.ArrowInvalid(f"row group {group} ends too early")
            self._batch = following
        return self._batch, self._first

    def _open(self, group: int) -> None:
        if self._file is None:
            self._file = pq.ParquetFile(self._path, buffer_size=_BUFFER, pre_buffer=False)
        self._batch, self._group, self._first = None, group, int(self._starts[group])
        self._batches = self._file.iter_batches(_BATCH, row_groups=[group], columns=self._columns, use_threads=False)


def _is_bytes(field: pa.Field) -> bool:
    kind = field.type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _footer_digest(path: Path) -> str:
    """The footer holds counts, sizes, offsets and statistics of every column; hashing all of it would take hours."""
    with open(path, "rb") as stream:
        end = stream.seek(-_FOOTER, 2)
        length = int.from_bytes(stream.read(4), "little")
        stream.seek(end - length)
        return hashlib.sha256(stream.read(length)).hexdigest()
