"""Records + pictures -> pairs: the one source behind tables, folders of files and COCO."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from data_pipelines.sources.base import Bad, Described, Facts, Pair
from data_pipelines.sources.folders.files import (
    NO_DOWNLOAD,
    PictureError,
    is_address,
    is_base64,
    picture_in_text,
    read_picture,
    real_folder,
)
from data_pipelines.sources.records import (
    Fields,
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
from data_pipelines.sources.values import FieldError, base_of, check_columns, shape_of, value_at
from seqtok_core.foundation.errors import ConfigError, DataError, shown

_LOCAL = re.compile(r"file:(//(localhost)?(?=/)|(?=/(?!/)))", re.IGNORECASE)
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
        for index, record in self.named(start, stop):
            yield self.name(index, record)

    def pairs(self, start: int, stop: int) -> Iterator[Pair | Bad]:
        for index, record in enumerate(self.wanted(start, stop), start):
            yield record if isinstance(record, Bad) else self.pair(index, record)

    def records(self, start: int, stop: int) -> Iterator[Record | Bad]:
        """Without the bytes of pictures."""
        yield from self.read(start, stop, (*self._columns, *self.also))

    def read(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[Record | Bad]:
        """Records with these columns, without the bytes of pictures."""
        yield from self.rows.read(start, stop, columns, pictures=False)

    def identity(self) -> dict[str, Any]:
        fields = self.fields.model_dump(mode="json")
        return {"kind": self.kind, "records": self.rows.identity(), "fields": fields}

    def facts(self) -> Facts:
        return Facts(level_names=level_names(self.fields), levels_made=self.made, block=self.rows.block)

    def wanted(self, start: int, stop: int) -> Iterator[Record | Bad]:
        """Records with all that `pair` makes one of."""
        yield from self.rows.read(start, stop, self._columns)

    @cached_property
    def _columns(self) -> tuple[str, ...]:
        """Found once: where rows are shuffled each is asked for by itself."""
        return columns_of(self.fields)

    @cached_property
    def _naming(self) -> tuple[str, ...]:
        """What names a sample and its picture."""
        return tuple(sorted({n for field in (self.fields.key, self.fields.image) if field for n in columns_in(field)}))

    def named(self, start: int, stop: int) -> Iterator[tuple[int, Record | Bad]]:
        """(index, record) with what names it and the path of its picture; without the bytes of pictures."""
        yield from enumerate(self.read(start, stop, self._naming), start)

    def keys(self, start: int, stop: int) -> Iterator[Hashable | None]:
        """What rows of one sample have in common: the path of the picture and, where one is named, the key. None where
        the picture is in the table."""
        for index, record in self.named(start, stop):
            path = self.path_of(record)
            yield (path, self.name(index, record) if self.fields.key else "") if path else None

    def place(self, index: int) -> str:
        """What a row is called in messages."""
        return self.rows.place(index)

    def path_of(self, record: Record | Bad) -> str | None:
        """The path of a picture that lies as a file; None where it is in the table."""
        value = None if isinstance(record, Bad) else _single(value_of(record, self.fields.image))
        return _path_of(value) if isinstance(value, str) else None

    def name(self, index: int, record: Record | Bad) -> str:
        """The key, else the picture's path without its ending. Pictures inside a table are named by their place:
        the names that Hugging Face keeps beside them have lost their folders."""
        if isinstance(record, Bad):
            return record.source
        if self.fields.key:
            value = value_of(record, self.fields.key)
            return str(value) if isinstance(value, str | int) and value != "" else self.place(index)
        path = self.path_of(record)
        return os.path.splitext(path)[0] if path else self.place(index)

    def described(self, index: int, record: Record) -> Described | Bad:
        """Of one of the records of `wanted`."""
        try:
            return record_captions(record, self.fields), labels_of(record, self.fields)
        except DataError as error:
            detail = error.detail if isinstance(error, FieldError) else ""
            return Bad(self.place(index), str(error), detail)

    def pair(self, index: int, record: Record) -> Pair | Bad:
        """Of one of the records of `wanted`."""
        found = self.described(index, record)
        if isinstance(found, Bad):
            return found
        value, field = value_of(record, self.fields.image), shown(self.fields.image)
        place = self.place(index)
        try:
            path, data = _path_of(value), _bytes_of(value)
            place = path or place
            if data is None and path is None:
                return Bad(place, "no picture", f"field {field!r} holds {type(value).__name__}")
            if data is None:
                root = real_folder(str(self.root))
                data = read_picture(root, as_here(root, path or ""))
        except FieldError as error:
            return Bad(place, str(error), f"field {field!r}, {error.detail}")
        except PictureError as error:
            return Bad(place, error.reason, error.detail)
        return Pair(image=data, captions=found[0], labels=found[1], source=place)


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
    check_paths(rows, chosen, also, str(place))
    made = levels_made(chosen, columns) | ({"order": order} if order and fields.pyramid == "given" else {})
    source = RecordSource(kind, rows, chosen, root, made, also)
    for _, record in source.named(0, min(len(rows), _LOOKED_AT)):
        value = None if isinstance(record, Bad) else _single(value_of(record, chosen.image))
        path = None if isinstance(value, list) else _path_of(value)
        if path and is_address(path):
            raise DataError(f"{place}: field {shown(chosen.image)!r} holds addresses ({shown(path)}); {NO_DOWNLOAD}")
    return source


def check_paths(rows: Rows, fields: Fields, also: Sequence[str], place: str) -> None:
    """Raises ConfigError for a path into a field (`json.caption`) that leads nowhere in the first records."""
    columns = rows.columns()
    paths = [name for name in (*columns_of(fields), *also) if name not in columns and base_of(name, columns)]
    records = rows.read(0, min(len(rows), _LOOKED_AT), tuple(base_of(path, columns) or "" for path in paths))
    found = [record for record in (records if paths else ()) if not isinstance(record, Bad)]
    for path in paths:
        base = base_of(path, columns) or ""
        whole = [record[base] for record in found if record.get(base) is not None]
        if whole and not any(_is_there(record, path) for record in found):
            shape = shape_of(whole[0])
            raise ConfigError(f"{place}: nothing is at {shown(path)!r} in the first records; {shown(base)} is {shape}")


def _is_there(record: Record, path: str) -> bool:
    above, _, last = path.rpartition(".")
    holder = value_at(record, above) if above else None
    return value_at(record, path) is not None or (isinstance(holder, Mapping) and last in holder)


def local_path(path: str) -> str:
    """What a file:// address of this machine names; any other text as it is."""
    found = _LOCAL.match(path)
    return unquote(path[found.end() :]) if found else path


def as_here(root: str | Path, path: str) -> str:
    """A path as Windows writes it, with / where \\ divides folders; any path that is there is left as it is."""
    if "\\" not in path or "\0" in path or os.path.lexists(os.path.join(root, path)):
        return path
    return path.replace("\\", "/")


def _single(value: Any) -> Any:
    """The only item of a list, as tables have that allow several pictures. Raises DataError for more."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _path_of(value: Any) -> str | None:
    """None where the text is the picture itself. Raises FieldError for several pictures."""
    value = _single(value)
    if isinstance(value, list) and len(value) > 1:
        raise FieldError("several pictures", f"{len(value)}; name one, as images[0]")
    if isinstance(value, Mapping):
        value = value.get("path")
    return local_path(value) if isinstance(value, str) and value and not is_base64(value) else None


def _bytes_of(value: Any) -> bytes | None:
    """Raises PictureError for base64 text that is damaged."""
    value = _single(value)
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if isinstance(value, str) and is_base64(value):
        return picture_in_text(value)
    return value if isinstance(value, bytes) else None
