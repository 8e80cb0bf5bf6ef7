"""Tables that a path names -> sources by split: which files, what their names or a column say of splits."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from data_pipelines.sources.derived.cut import Recorded
from data_pipelines.sources.derived.joined import JoinedRecords, join_records
from data_pipelines.sources.folders.layout import TableKind, tables_under, with_captions
from data_pipelines.sources.record_source import RecordSource, as_here, record_source
from data_pipelines.sources.records import CAPTION_FIELDS, IMAGE_FIELDS, Fields, columns_of
from data_pipelines.sources.rows import PackedRows, Rows, join_rows, scan_jsonl
from data_pipelines.sources.tables.arrow_rows import SPLITS, STATE, ArrowRows, arrow_splits, check_state
from data_pipelines.sources.tables.column_rows import ColumnRows, in_words
from data_pipelines.sources.tables.csv_form import Quoting, read_form
from data_pipelines.sources.tables.csv_rows import scan_csv
from data_pipelines.sources.tables.json_records import JsonShape, json_shape, read_json_records
from data_pipelines.sources.tables.parquet_rows import ParquetRows
from data_pipelines.sources.tables.splits import split_by_field, split_column
from data_pipelines.tars.folders import (
    by_split,
    files_that_count,
    folder_under,
    split_of_folder,
    split_of_path,
    split_word,
)
from seqtok_core.foundation.errors import DataError

LoneKind = Literal["csv", "coco", "json", "jsonl"]
_BESIDE = (".json", ".txt")  # a file of captions, or of one picture
_ABOUT = (STATE, SPLITS, "dataset_info.json", "dataset_infos.json")  # what Hugging Face writes about its tables
_MOST = 20  # files that are looked into; where there are more, each belongs to a picture
_LOOKED_AT = 20  # records in which a path is looked for


@dataclass(frozen=True, kw_only=True)
class TableReading:
    """How tables are read."""

    kind: TableKind
    fields: Fields
    images: Path | None  # folder of pictures; None: the table's, or an images/ in it
    also: tuple[str, ...]  # columns that conditions need
    rest: str  # split of what nothing gives one
    quoting: Literal["auto", Quoting] = "auto"
    columns: tuple[str, ...] = ()  # names of a CSV's columns where its first line is a row
    split_field: str | None = None  # column that says the split; None: `split` where there is one; "": none


def open_tables(path: Path, reading: TableReading) -> Mapping[str, Recorded]:
    """Raises DataError when there is no table of the kind, ConfigError for columns that are not there.

    A column says more than the names of files.
    """
    splits = _files(path, reading)
    root = path if path.is_dir() else path.parent
    tables = {file: _scan(reading, file) for files in splits.values() for file in files}
    columns = join_rows(list(tables.values())).columns()
    column = split_column(reading.split_field, columns, str(path))
    if column:
        whole = _joined(root, tables, replace(reading, also=(*reading.also, column)))
        return split_by_field(whole, column, reading.rest, any_word=reading.split_field is not None)
    return {split: _joined(root, {file: tables[file] for file in files}, reading) for split, files in splits.items()}


def is_arrow_folder(folder: Path) -> bool:
    return (folder / STATE).is_file() or (folder / SPLITS).is_file()


def lone_tables(folder: Path) -> tuple[list[str], LoneKind] | None:
    """The .json or .txt of a folder that belong to no picture and look like captions of pictures, as paths under it,
    with their kind: one at its top or one for each split, or one in every folder of a split. None where there is none,
    where several are of one split, or where pictures have captions beside them."""
    found = _looks_like_captions(folder)
    if not found:
        inner = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not entry.is_symlink()]
        parts = {entry.name: _looks_like_captions(entry) for entry in inner if split_of_folder(entry.name)}
        if any(len(part) != 1 for part in parts.values()):
            return None
        found = {f"{name}/{file}": kind for name, part in parts.items() for file, kind in part.items()}
    splits = {split_of_path(name) for name in found}
    if len(found) > 1 and (len(splits) < len(found) or "" in splits or len(set(found.values())) > 1):
        return None
    return (sorted(found), next(iter(found.values()))) if found and not any(with_captions(folder)) else None


def _looks_like_captions(folder: Path) -> dict[str, LoneKind]:
    """Name -> kind, of files in the folder itself."""
    texts = (entry for entry in folder.iterdir() if entry.suffix.lower() in _BESIDE and not entry.name.startswith("."))
    files = [entry for entry in islice(texts, _MOST + 1) if entry.is_file()]
    return {f.name: kind for f in files if (kind := _kind_beside(f))} if len(files) <= _MOST else {}


def kind_of_json(path: Path) -> Literal["coco", "json", "jsonl"]:
    """Of a .json that is asked for: what is not COCO's is read, or refused, as a list of records."""
    return json_shape(path) or "json"


def _kind_beside(file: Path) -> Literal["csv"] | JsonShape:
    if file.suffix.lower() == ".json":
        return json_shape(file) if file.name not in _ABOUT else ""
    if file.suffix.lower() != ".txt":
        return ""
    try:
        form, _, header = read_form(file)
    except DataError:
        return ""
    names = {name.strip(' "') for name in header.split(form.divider)}
    return "csv" if names & set(IMAGE_FIELDS) and names & set(CAPTION_FIELDS) else ""


def _files(path: Path, reading: TableReading) -> dict[str, list[Path]]:
    """Split -> its files."""
    if reading.kind == "arrow" and path.is_dir() and is_arrow_folder(path):
        found = arrow_splits(path, reading.rest)
        return {split if split == reading.rest else split_word(split): files for split, files in found.items()}
    if path.is_file():
        return by_split(path.parent, [path.name], reading.rest)
    names = tables_under(path, reading.kind)
    lone = lone_tables(path) if all("/" in name for name in names) else None
    if lone and lone[1] == reading.kind:
        names = files_that_count(path, [*lone[0], *names])
    if not names:
        raise DataError(f"{path}: no table of kind {reading.kind} there")
    for folder in {(path / name).parent for name in names} if reading.kind == "arrow" else ():
        check_state(folder)
    return by_split(path, names, reading.rest)


def _scan(reading: TableReading, path: Path) -> Rows:
    if reading.kind == "csv":
        return scan_csv(path, reading.quoting, reading.columns)
    scan: dict[TableKind, Callable[[Path], Rows]] = {
        "jsonl": scan_jsonl,
        "parquet": ParquetRows,
        "arrow": ArrowRows,
        "json": read_json_records,
    }
    return scan[reading.kind](path)


def _joined(root: Path, tables: Mapping[Path, Rows], reading: TableReading) -> RecordSource | JoinedRecords:
    """Tables of one kind. With `images`, paths mean the same in all of them; else each folder has its own pictures."""
    folders: dict[str, dict[Path, Rows]] = {}
    for file, rows in tables.items():
        folders.setdefault("" if reading.images else folder_under(root, file), {})[file] = rows
    kept = {folder: part for folder, part in folders.items() if any(map(len, part.values()))} or folders
    return join_records({folder: _source(part, reading, root) for folder, part in kept.items()})


def _source(tables: Mapping[Path, Rows], reading: TableReading, root: Path) -> RecordSource:
    """Tables of one kind and folder, one after another."""
    place, parts = next(iter(tables)), list(tables.values())
    rows = join_rows([part for part in parts if len(part)] or parts[:1])
    if not len(rows):
        raise DataError(f"{place}: holds no records")
    columns: Sequence[ColumnRows] = [part for part in parts if isinstance(part, ColumnRows)]
    rows = in_words(rows, columns, (*columns_of(reading.fields), *reading.also))
    folder = reading.images or place.parent
    order = parts[0].order if isinstance(parts[0], PackedRows) else ""
    source = record_source(
        reading.kind, rows, reading.fields, folder, place=place, order=order, also=reading.also, table=True
    )
    return source if reading.images else replace(source, root=_folder_of(source, root))


def _folder_of(source: RecordSource, root: Path) -> Path:
    """The folder that holds the first picture that is a file: that of the table, an images/ in it, or the same of
    `root`, the folder of all tables."""
    folders = [place / name for place in dict.fromkeys((source.root, root)) for name in ("", "images", "Images")]
    for _, record in source.named(0, min(len(source), _LOOKED_AT)):
        path = source.path_of(record)
        if path and "\0" not in path:
            return next((folder for folder in folders if os.path.lexists(folder / as_here(folder, path))), source.root)
    return source.root
