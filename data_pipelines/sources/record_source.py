"""Records + pictures -> pairs: the one source behind tables, folders of files and COCO."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines.sources.base import Bad, Facts, Pair
from data_pipelines.sources.folders.files import (
    NO_DOWNLOAD,
    PictureError,
    is_address,
    is_base64,
    picture_in_text,
    read_picture,
    real_folder,
)
from data_pipelines.sources.parquet_rows import block_of
from data_pipelines.sources.records import (
    Fields,
    check_columns,
    choose_fields,
    columns_in,
    columns_of,
    labels_of,
    level_names,
    levels_made,
    record_captions,
    value_of,
)
from data_pipelines.sources.rows import Record, Rows
from seqtok_core.foundation.errors import DataError

_LOOKED_AT = 20  # records in which an address is looked for before anything is written


@dataclass(frozen=True, eq=False)
class RecordSource:
    """`fields` are chosen: `image` names the pictures' field. Relative paths lie in `root`."""

    kind: str
    rows: Rows
    fields: Fields
    root: Path
    made: Mapping[str, Any]  # how captions became levels
    also: tuple[str, ...] = ()  # columns that `records` is asked for besides

    def __len__(self) -> int:
        return len(self.rows)

    def names(self, start: int, stop: int) -> Iterator[str]:
        columns = columns_in(self.fields.key or self.fields.image)
        for index, record in enumerate(self.rows.read(start, stop, columns, pictures=False), start):
            yield self._name(index, record)

    def pairs(self, start: int, stop: int) -> Iterator[Pair | Bad]:
        root = real_folder(str(self.root))
        records = self.rows.read(start, stop, columns_of(self.fields))
        for index, record in enumerate(records, start):
            yield record if isinstance(record, Bad) else self._pair(index, record, root)

    def records(self, start: int, stop: int) -> Iterator[Record | Bad]:
        """Without the bytes of pictures."""
        yield from self.rows.read(start, stop, (*columns_of(self.fields), *self.also), pictures=False)

    def identity(self) -> dict[str, Any]:
        fields = self.fields.model_dump(mode="json")
        return {"kind": self.kind, "records": self.rows.identity(), "fields": fields}

    def facts(self) -> Facts:
        return Facts(level_names=level_names(self.fields), levels_made=self.made, block=block_of(self.rows))

    def _name(self, index: int, record: Record | Bad) -> str:
        """The key, else the picture's path without its ending. Pictures inside a table are named by their place:
        the names that Hugging Face keeps beside them have lost their folders."""
        if isinstance(record, Bad):
            return record.source
        value = value_of(record, self.fields.key or self.fields.image)
        if self.fields.key and isinstance(value, str | int) and value != "":
            return str(value)
        path = None if self.fields.key or isinstance(value, Mapping) else _path_of(value)
        return self.rows.place(index) if path is None else os.path.splitext(path)[0]

    def _pair(self, index: int, record: Record, root: str) -> Pair | Bad:
        value = value_of(record, self.fields.image)
        path = _path_of(value)
        place = path or self.rows.place(index)
        try:
            captions, labels = record_captions(record, self.fields), labels_of(record, self.fields)
            data = _bytes_of(value)
            if data is None and path is None:
                return Bad(place, "no picture", f"field {self.fields.image!r} holds {type(value).__name__}")
            if data is None:
                data = read_picture(root, path or "")
        except DataError as error:
            return Bad(self.rows.place(index), str(error))
        except PictureError as error:
            return Bad(place, error.reason, error.detail)
        return Pair(image=data, captions=captions, labels=labels, source=place)


def record_source(
    kind: str,
    rows: Rows,
    fields: Fields,
    root: Path,
    *,
    place: Path,
    order: str = "",
    also: tuple[str, ...] = (),
    table: bool = False,
) -> RecordSource:
    """Chooses the fields. Raises ConfigError for unknown columns, DataError where pictures are web addresses.

    `place` is what the user named, for messages.
    `order` says how the levels came about where the records do not; `also`: columns that filters need;
    `table`: captions are expected in a known column, and a column `key` names the samples.
    """
    columns = rows.columns()
    chosen = choose_fields(fields, columns, str(place), table=table)
    check_columns([("`where`", name) for name in also], columns, str(place))
    made = levels_made(chosen, columns) | ({"order": order} if order and fields.pyramid == "given" else {})
    source = RecordSource(kind, rows, chosen, root, made, also)
    for record in rows.read(0, min(len(rows), _LOOKED_AT), columns_in(chosen.image), pictures=False):
        path = None if isinstance(record, Bad) else _path_of(value_of(record, chosen.image))
        if path and is_address(path):
            raise DataError(f"{place}: field {chosen.image!r} holds addresses ({path[:80]}); {NO_DOWNLOAD}")
    return source


def _path_of(value: Any) -> str | None:
    """None where the text is the picture itself."""
    if isinstance(value, Mapping):
        value = value.get("path")
    return value if isinstance(value, str) and value and not is_base64(value) else None


def _bytes_of(value: Any) -> bytes | None:
    """Raises PictureError for base64 text that is damaged."""
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if isinstance(value, str) and is_base64(value):
        return picture_in_text(value)
    return value if isinstance(value, bytes) else None
