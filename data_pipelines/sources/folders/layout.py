"""What a folder is: tars, tables of one kind, or pictures; in it or in the folders in it.

Tars or tables at the top count alone; only where there are none do those of deeper folders. What img2dataset writes
about a shard beside it (a table of the same name) is no table of samples. A lone .json or .txt of captions
at the top or in each folder of a split is what the caller finds; beside tars it does not count: it speaks of them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from data_pipelines.sources.folders.endings import PictureFinder
from data_pipelines.sources.folders.sidecars import is_sidecar, owners
from data_pipelines.tars.folders import files_that_count, files_under, split_of_folder
from data_pipelines.tars.names import PACKED
from seqtok_core.foundation.errors import DataError

TableKind = Literal["csv", "jsonl", "parquet", "json", "arrow"]
FolderKind = Literal["tars", "pictures", "coco", "csv", "jsonl", "parquet", "json", "arrow"]
TABLE_ENDINGS: dict[str, TableKind] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
_COMPUTED = "cache-"  # begins the name of an .arrow that Hugging Face keeps of a computation


@dataclass(frozen=True)
class _Layout:
    """Paths under the folder."""

    tars: tuple[str, ...]
    tables: tuple[str, ...]
    pictures: dict[str, str]  # folder -> its first picture


def kind_of_folder(path: Path, lone: tuple[str, FolderKind] | None = None) -> FolderKind | None:
    """None where nothing known is there. `lone`: a table that its ending does not tell, and its kind.

    Raises DataError where the folder is of several kinds.
    """
    layout = _look(path)
    kinds: dict[FolderKind, str] = {"tars": layout.tars[0]} if layout.tars else {}
    top = [name for name in (*layout.tars, *layout.tables) if "/" not in name]
    tables = [name for name in layout.tables if not top or name in top]
    for table in tables:
        kinds.setdefault(table_kind(table), table)
    lone = None if layout.tars else lone
    if lone:
        kinds.setdefault(lone[1], lone[0])
    if layout.pictures and not lone and not (tables and top):
        kinds = _with_pictures(path, layout, kinds)
    if len(kinds) > 1:
        shown = "; ".join(f"{kind}, as {kinds[kind]}" for kind in sorted(kinds))
        raise DataError(
            f"{path}: not a source: holds data of several kinds; name one with `kind` ({', '.join(sorted(kinds))}), or "
            f"the folder or file of one ({shown})"
        )
    if not kinds:
        return "pictures" if any(entry.is_dir() for entry in path.iterdir()) else None
    return next(iter(kinds))


def tables_under(path: Path, kind: TableKind) -> list[str]:
    """The tables of a folder, as paths under it."""
    return files_that_count(path, [name for name in _look(path).tables if table_kind(name) == kind])


def split_folders(path: Path) -> dict[str, Path]:
    """Folders of pictures called train, val, test (or as people call them), where no other one holds pictures; they may
    lie in one folder of `path`. Raises DataError for two of one split."""
    pictures = _look(path).pictures
    while "" not in pictures and len({folder.partition("/")[0] for folder in pictures}) == 1:
        inner = next(iter(pictures)).partition("/")[0]
        if split_of_folder(inner):
            break
        path, pictures = path / inner, {folder.partition("/")[2]: name for folder, name in pictures.items()}
    splits: dict[str, Path] = {}
    for name in sorted({folder.partition("/")[0] for folder in pictures}):
        split = split_of_folder(name) if name else ""
        if not split:
            return {}
        if split in splits:
            raise DataError(f"{path}: {splits[split].name}/ and {name}/ are both of split {split}; name one of them")
        splits[split] = path / name
    alone = next(iter(splits.values())).name if len(splits) == 1 else "train"
    return splits if alone.isalpha() else {}  # a lone train2017/ is where the pictures are


def table_kind(name: str) -> TableKind:
    return TABLE_ENDINGS[_ending(name)]


def _look(path: Path) -> _Layout:
    tars, tables = [], []
    pictures: dict[str, str] = {}
    finder = PictureFinder(path)
    for name in files_under(path):
        if _ending(name) in TABLE_ENDINGS:
            if _ending(name) != ".arrow" or not os.path.basename(name).startswith(_COMPUTED):
                tables.append(name)
        elif name.endswith((".tar", *PACKED)):
            tars.append(name)
        elif finder.is_picture(name):
            pictures.setdefault(os.path.dirname(name), name)
    stems = {name.partition(".tar")[0] for name in tars}
    tables = [t for t in tables if (stem := os.path.splitext(t)[0]) not in stems and not (path / stem).is_dir()]
    return _Layout(tuple(tars), tuple(tables), pictures)


def _with_pictures(path: Path, layout: _Layout, kinds: dict[FolderKind, str]) -> dict[FolderKind, str]:
    """The kinds of a folder that holds pictures as well, and no table at its top. Pictures with texts of their own are
    data; others are what a table in their folder, or above it, speaks of."""
    first = next(iter(layout.pictures.values()))
    found = next(with_captions(path), "") if kinds else first
    if layout.tars:
        if not found:
            warnings.warn(f"{path}: its tars count, and the pictures are left aside, as {first}", stacklevel=3)
        return {**kinds, "pictures": found} if found else kinds
    if found:
        if kinds:
            warnings.warn(f"{path}: its pictures count, and tables are left aside, as {layout.tables[0]}", stacklevel=3)
        return {"pictures": found}
    homes = tuple(f"{os.path.dirname(table)}/" for table in layout.tables)
    spoken_of = any(f"{folder}/".startswith(homes) for folder in layout.pictures)
    return kinds if spoken_of or "parquet" in kinds else {**kinds, "pictures": first}


def with_captions(path: Path) -> Iterator[str]:
    """Pictures with a text of their own."""
    finder = PictureFinder(path)
    for _, group in groupby(files_under(path), os.path.dirname):
        names = list(group)
        texts = {os.path.splitext(os.path.basename(name))[0] for name in names if is_sidecar(name)}
        for name in names:
            if finder.is_picture(name) and not texts.isdisjoint(owners(os.path.basename(name))):
                yield name


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()
