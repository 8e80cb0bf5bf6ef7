"""Tables that a path names -> sources by split: which files, what their names or a column say of splits."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from data_pipelines.sources.cut import Subset
from data_pipelines.sources.picture_folders import PICTURE_ENDINGS
from data_pipelines.sources.record_source import RecordSource, as_here, record_source
from data_pipelines.sources.records import CAPTION_FIELDS, IMAGE_FIELDS, Fields, columns_of
from data_pipelines.sources.rows import PackedRows, Rows, join_rows, scan_jsonl
from data_pipelines.sources.tables.arrow_rows import SPLITS, STATE, ArrowRows, arrow_splits
from data_pipelines.sources.tables.column_rows import ColumnRows, in_words
from data_pipelines.sources.tables.csv_form import Quoting, read_form
from data_pipelines.sources.tables.csv_rows import scan_csv
from data_pipelines.sources.tables.json_records import JsonShape, json_shape, read_json_records
from data_pipelines.sources.tables.parquet_rows import ParquetRows
from data_pipelines.sources.tables.splits import split_by_field, split_column
from data_pipelines.tars.names import split_of, split_word
from seqtok_core.foundation.errors import DataError

TableKind = Literal["csv", "jsonl", "parquet", "json", "arrow"]
TABLE_ENDINGS: dict[str, TableKind] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
_BESIDE = (".json", ".txt")  # a file of captions, or of one picture
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
    split_field: str | None = None  # column that says the split; None: `split` where there is one; "": none


def open_tables(path: Path, reading: TableReading) -> Mapping[str, RecordSource | Subset]:
    """Raises DataError when there is no table of the kind, ConfigError for columns that are not there.

    A column says more than the names of files.
    """
    splits = _files(path, reading)
    tables = {file: _scan(reading, file) for files in splits.values() for file in files}
    columns = join_rows(list(tables.values())).columns()
    column = split_column(reading.split_field, columns, str(path))
    if column:
        whole = _source(tables, replace(reading, also=(*reading.also, column)))
        return split_by_field(whole, column, reading.rest, any_word=reading.split_field is not None)
    return {split: _source({file: tables[file] for file in files}, reading) for split, files in splits.items()}


def table_files(folder: Path) -> list[Path]:
    """In order of names; without what img2dataset writes about the shards in folders of the same names, and without
    what Hugging Face keeps of computations."""
    tables = sorted(p for p in folder.iterdir() if p.suffix.lower() in TABLE_ENDINGS and p.is_file())
    return [p for p in tables if not p.with_suffix("").is_dir() and not p.name.startswith((".", "cache-"))]


def is_arrow_folder(folder: Path) -> bool:
    return (folder / STATE).is_file() or (folder / SPLITS).is_file()


def lone_table(folder: Path) -> tuple[Path, Literal["csv", "coco", "json", "jsonl"]] | None:
    """The one .json or .txt at the top of a folder that belongs to no picture and looks like captions of pictures,
    with its kind. None where there is none, or several, or where pictures have captions beside them."""
    texts = (entry for entry in folder.iterdir() if entry.suffix.lower() in _BESIDE and not entry.name.startswith("."))
    files = [entry for entry in islice(texts, _MOST + 1) if entry.is_file()]
    if len(files) > _MOST:
        return None
    found = [(file, kind) for file in files if (kind := _kind_beside(file))]
    return found[0] if len(found) == 1 and not _has_sidecars(folder) else None


def kind_of_json(path: Path) -> Literal["coco", "json", "jsonl"]:
    """Of a .json that is asked for: what is not COCO's is read, or refused, as a list of records."""
    return json_shape(path) or "json"


def _kind_beside(file: Path) -> Literal["csv"] | JsonShape:
    if file.suffix.lower() == ".json":
        return json_shape(file)
    if file.suffix.lower() != ".txt":
        return ""
    try:
        form, _, header = read_form(file)
    except DataError:
        return ""
    names = {name.strip(' "') for name in header.split(form.divider)}
    return "csv" if names & set(IMAGE_FIELDS) and names & set(CAPTION_FIELDS) else ""


def _has_sidecars(folder: Path) -> bool:
    for _, _, names in os.walk(folder):
        parts = [os.path.splitext(name) for name in names]
        pictures = {stem for stem, ending in parts if ending.lower() in PICTURE_ENDINGS}
        if any(ending.lower() in _BESIDE and stem in pictures for stem, ending in parts):
            return True
    return False


def _files(path: Path, reading: TableReading) -> dict[str, list[Path]]:
    """Split -> its files."""
    kind = reading.kind
    if kind == "arrow" and path.is_dir() and is_arrow_folder(path):
        found = arrow_splits(path, reading.rest)
        return {split if split == reading.rest else split_word(split): files for split, files in found.items()}
    files = [path] if path.is_file() else [p for p in table_files(path) if TABLE_ENDINGS[p.suffix.lower()] == kind]
    if not files and path.is_dir():
        lone = lone_table(path)
        files = [lone[0]] if lone and lone[1] == kind else []
    if not files:
        raise DataError(f"{path}: no table of kind {kind} there")
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(split_of(file.name, reading.rest), []).append(file)
    return splits


def _scan(reading: TableReading, path: Path) -> Rows:
    if reading.kind == "csv":
        return scan_csv(path, reading.quoting)
    scan: dict[TableKind, Callable[[Path], Rows]] = {
        "jsonl": scan_jsonl,
        "parquet": ParquetRows,
        "arrow": ArrowRows,
        "json": read_json_records,
    }
    return scan[reading.kind](path)


def _source(tables: Mapping[Path, Rows], reading: TableReading) -> RecordSource:
    """Tables of one kind, one after another."""
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
    return source if reading.images else replace(source, root=_folder_of(source))


def _folder_of(source: RecordSource) -> Path:
    """The folder that holds the first picture that is a file: that of the table, or an images/ in it."""
    folders = [source.root, *(source.root / name for name in ("images", "Images"))]
    for _, record in source.named(0, min(len(source), _LOOKED_AT)):
        path = source.path_of(record)
        if path and "\0" not in path:
            return next((folder for folder in folders if os.path.lexists(folder / as_here(folder, path))), source.root)
    return source.root
