"""Hugging Face `datasets` as `save_to_disk` leaves them: Arrow IPC stream files, and JSON that says which.

A folder with state.json is one split; one with dataset_dict.json has a folder for each. A file is mapped, not read:
a look at its batches' heads tells where rows lie, and a batch is read when its rows are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_pipelines.sources.tables.column_rows import BatchCursor, ColumnRows
from seqtok_core.foundation.errors import DataError, shown
from seqtok_core.foundation.files import read_json
from seqtok_core.foundation.packed import starts_of

STATE, SPLITS = "state.json", "dataset_dict.json"
_SAMPLED = 1 << 12  # bytes at the end of each batch that the identity looks at, beside sizes: all would take hours


class ArrowRows(ColumnRows):
    what = "batch"

    def __init__(self, path: Path) -> None:
        """Looks at the head of every batch. Raises DataError when it is not a whole Arrow stream."""
        lengths = []
        digest = hashlib.sha256()
        try:
            with (
                open(path, "rb") as file,
                pa.memory_map(str(path)) as mapped,
                pa.ipc.open_stream(mapped) as stream,
            ):
                schema = stream.schema
                digest.update(schema.serialize().to_pybytes())
                for batch in stream:
                    lengths.append(batch.num_rows)
                    digest.update(f"{mapped.tell()} {batch.num_rows} ".encode())
                    digest.update(os.pread(file.fileno(), _SAMPLED, max(0, mapped.tell() - _SAMPLED)))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a readable Arrow stream ({str(error).splitlines()[0]})") from None
        self._digest = digest.hexdigest()
        super().__init__(path, schema, starts_of(lengths))

    def cursor(self, columns: tuple[str, ...]) -> BatchCursor:
        return _StreamCursor(self.path, columns, self._schema)

    def identity(self) -> dict[str, Any]:
        return {"records": len(self), "bytes": self.path.stat().st_size, "batches": self._digest}


class _StreamCursor:
    """Goes forward through a file by its batches, each mapped and not copied; going back begins the file anew."""

    def __init__(self, path: Path, columns: tuple[str, ...], schema: pa.Schema) -> None:
        self._path, self._columns, self._schema = path, columns, schema
        self._stream: pa.RecordBatchStreamReader | None = None
        self._batch: pa.RecordBatch | None = None
        self._first = 0

    def batch(self, row: int) -> tuple[pa.RecordBatch, int]:
        if self._stream is None or row < self._first:
            self._stream = pa.ipc.open_stream(pa.memory_map(str(self._path)))
            self._batch, self._first = None, 0
        if self._batch is not None and row < self._first + self._batch.num_rows:
            return self._batch, self._first
        self._first += 0 if self._batch is None else self._batch.num_rows
        self._batch = None
        passed = self._stream.read_next_batch()
        while row >= self._first + passed.num_rows:
            self._first += passed.num_rows
            passed = self._stream.read_next_batch()
        self._batch = _selected(passed, self._columns, self._schema)
        return self._batch, self._first


def _selected(batch: pa.RecordBatch, columns: tuple[str, ...], schema: pa.Schema) -> pa.RecordBatch:
    """The columns; of `struct.part`, a struct of the parts that are asked for."""
    found: dict[str, Any] = {name: batch.column(name) for name in columns if name in schema.names}
    parts: dict[str, list[str]] = {}
    for name in columns:
        if name not in found:
            whole = next(column for column in schema.names if name.startswith(f"{column}."))
            parts.setdefault(whole, []).append(name[len(whole) + 1 :])
    for whole, inner in parts.items():
        struct = batch.column(whole)
        arrays = [struct.field(part) for part in inner]
        found[whole] = pa.StructArray.from_arrays(arrays, inner, mask=struct.is_null())
    return pa.RecordBatch.from_pydict(found)


def arrow_splits(folder: Path, rest: str) -> dict[str, list[Path]]:
    """Split -> its files, in their order. `rest`: the name of the only split of a folder without splits.

    Raises DataError where the folder's JSON does not fit, or says that rows were chosen that the files still hold.
    """
    if (folder / STATE).is_file():
        return {rest: _files(folder)}
    about = _json(folder / SPLITS)
    names = about.get("splits")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{folder / SPLITS}: names no splits")
    return {name: _files(folder / name) for name in names}


def check_state(folder: Path) -> None:
    """Raises DataError as `arrow_splits` does; a folder without JSON is fine."""
    if (folder / STATE).is_file():
        _files(folder)


def _files(folder: Path) -> list[Path]:
    state = _json(folder / STATE)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise DataError(f"{folder}: saved with a choice of rows beside it; save `dataset.flatten_indices()` instead")
    try:
        names = [entry["filename"] for entry in state["_data_files"]]
    except (KeyError, TypeError):
        raise DataError(f"{folder / STATE}: names no files") from None
    outside = [name for name in names if not isinstance(name, str) or os.path.basename(name) != name]
    if outside or not names:
        raise DataError(
            f"{folder / STATE}: " + (f"{shown(outside[0])!r} is no file of it" if outside else "names no files")
        )
    return [folder / name for name in names]


def _json(path: Path) -> Mapping[str, Any]:
    content = read_json(path)
    if not isinstance(content, Mapping):
        raise DataError(f"{path}: not a JSON object")
    return content
