"""Parquet: row groups are read when needed, only the wanted columns, some rows at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.sources.tables.column_rows import BATCH, BatchCursor, ColumnRows
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.files import refuse_lfs_pointer
from seqtok_core.foundation.packed import starts_of

_BUFFER = 1 << 20  # bytes; a column of a row group is streamed, never read whole
_FOOTER = 8  # bytes at the end: length of the metadata, "PAR1"


class ParquetRows(ColumnRows):
    what = "row group"

    def __init__(self, path: Path) -> None:
        """Reads the file's footer. Raises DataError when it is not a whole Parquet file."""
        try:
            with pq.ParquetFile(path) as file:
                meta, schema = file.metadata, file.schema_arrow
            self._digest = _footer_digest(path)
        except (pa.ArrowException, OSError) as error:
            refuse_lfs_pointer(path)
            raise DataError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
        super().__init__(
            path, schema, starts_of(meta.row_group(number).num_rows for number in range(meta.num_row_groups))
        )

    def cursor(self, columns: tuple[str, ...]) -> BatchCursor:
        return _GroupCursor(self.path, self._starts, list(columns))

    def identity(self) -> dict[str, Any]:
        return {"records": len(self), "bytes": self.path.stat().st_size, "footer": self._digest}


class _GroupCursor:
    """Goes forward through a file; only going back begins a row group anew."""

    def __init__(self, path: Path, starts: Any, columns: list[str]) -> None:
        self._path, self._starts, self._columns = path, starts, columns
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch: pa.RecordBatch | None = None
        self._file: pq.ParquetFile | None = None
        self._first = self._group = -1

    def batch(self, row: int) -> tuple[pa.RecordBatch, int]:
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
        self._batches = self._file.iter_batches(BATCH, row_groups=[group], columns=self._columns, use_threads=False)


def _footer_digest(path: Path) -> str:
    """The footer holds counts, sizes, offsets and statistics of every column; hashing all of it would take hours."""
    with open(path, "rb") as stream:
        end = stream.seek(-_FOOTER, 2)
        length = int.from_bytes(stream.read(4), "little")
        stream.seek(end - length)
        return hashlib.sha256(stream.read(length)).hexdigest()
